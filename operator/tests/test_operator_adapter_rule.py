"""The rule for prometheus-adapter in the docs fits what the operator exports and what its autoscalers ask for."""

import re
from pathlib import Path
from typing import Any

import yaml

from embedding_operator.metrics import PipelineFigures
from manual_clock import Clock
from operator_objects import SETTINGS, desired, pipeline

PAGE = Path(__file__).parents[2] / "docs" / "autoscaling.md"


def documented() -> dict[str, Any]:
    (block,) = re.findall(r"```yaml\n(rules:\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (rule,) = yaml.safe_load(block)["rules"]["external"]
    return dict(rule)


def test_the_rule_and_autoscalers_are_of_the_metric_and_the_labels_that_the_operator_exports() -> None:
    figures = PipelineFigures(Clock())
    figures.tell(("search", "articles"), 7, None, 60)
    (sample,) = [sample for family in figures.collect() for sample in family.samples]
    assert sample.name == documented()["seriesQuery"] == SETTINGS.lag_metric
    assert sample.labels == {SETTINGS.lag_namespace_label: "search", SETTINGS.lag_name_label: "articles"}


def test_a_query_of_the_rule_names_the_pipelines_own_labels() -> None:
    rule = documented()
    built = desired(pipeline(autoscaling={"metric": "Lag", "maxReplicas": 3}), lag_provider="external")
    (metric,) = built["HorizontalPodAutoscaler"]["spec"]["metrics"]
    asked = metric["external"]["metric"]["selector"]["matchLabels"]
    # What the adapter turns into Kubernetes' own namespace is a label of the metric.
    assert rule["resources"]["overrides"].keys() <= asked.keys()
    matchers = ",".join(f'{label}="{value}"' for label, value in asked.items())
    query = rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"]).replace("<<.LabelMatchers>>", matchers)
    expected = 'max(embedding_pipeline_lag{namespace="search",name="articles"}) by (namespace, name)'
    assert query == expected
