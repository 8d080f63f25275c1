"""The documentation of the status says what there is: every reason, condition, column and figure, and no other."""

import re

import pytest

from embedding_operator import crd
from embedding_operator.conditions import conditions
from embedding_operator.reasons import Reason
from embedding_service.contract.broker_trouble import TroubleReason
from embedding_service.contract.reasons import TerminationReason
from operator_objects import SETTINGS, observed, pipeline, planned
from operator_scene import Scene
from status_page import rows, section

AUTOSCALED = observed(pipeline(autoscaling={"metric": "CPU", "maxReplicas": 3}))
CONDITIONS = {condition.type for condition in conditions(AUTOSCALED, planned(AUTOSCALED))}


def test_every_reason_stands_in_the_page_once_and_no_other() -> None:
    named = [row[0].strip("`") for row in rows(section("Reasons"))]
    assert sorted(named) == sorted({*Reason, *TroubleReason, *TerminationReason})


@pytest.mark.parametrize("row", rows(section("Reasons")), ids=lambda row: str(row[0].strip("`")))
def test_a_reason_says_which_condition_has_it(row: list[str]) -> None:
    assert set(re.findall("`([A-Za-z]+)`", row[1])) <= CONDITIONS
    assert row[1]


def test_every_condition_stands_in_the_page() -> None:
    assert {row[0].strip("`") for row in rows(section("Conditions"))} == CONDITIONS


def test_every_column_stands_in_the_page_in_its_order() -> None:
    (version,) = crd.definition()["spec"]["versions"]
    columns = [column["name"].upper() for column in version["additionalPrinterColumns"] if column["name"] != "Age"]
    assert [row[0] for row in rows(section("Columns and figures")) if row[0].isupper()] == columns


def test_every_field_of_the_status_stands_in_the_page() -> None:
    fields = crd.schema()["properties"]["status"]["properties"].keys() - {"conditions", "selector"}
    assert set(re.findall(r"`status\.([a-zA-Z]+)", section("Columns and figures"))) == fields


@pytest.mark.parametrize(("pipelines", "seconds"), [(1, 10), (500, 10), (1000, 20), (10_000, 60)])
def test_a_pipeline_is_looked_at_as_often_as_the_page_says(pipelines: int, seconds: int) -> None:
    scene = Scene(pipeline())
    for number in range(1, pipelines):
        scene.store.put_pipeline(
            {"metadata": {"namespace": "n", "name": str(number), "uid": str(number), "resourceVersion": "1"}}
        )
    assert scene.look() == seconds
    said = section("How soon")
    assert "every 10 s with up to 500 pipelines; with n of them every n/50 s, which is 20 s for 1,000" in said
    assert f"which is {SETTINGS.resync_seconds:.0f} s unless set otherwise" in said
