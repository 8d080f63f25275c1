"""The documentation says what is there: every setting, every metric, every reason, and links that lead somewhere."""

import re
from pathlib import Path

import pytest

from embedding_service.contract.reasons import DeadLetterReason, TerminationReason
from embedding_service.contract.settings import Settings
from embedding_service.metrics import Metrics

ROOT = Path(__file__).parents[2]
DOCS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_every_setting_stands_in_the_configuration_page_and_no_other() -> None:
    settings = {
        f"{section}.{key}"
        for section, field in Settings.model_fields.items()
        for key in getattr(field.annotation, "model_fields", {})
    }
    assert set(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", text("configuration.md"), re.MULTILINE)) == settings


def test_every_metric_stands_in_the_contracts_page_and_no_other() -> None:
    metrics = {metric.name + ("_total" if metric.type == "counter" else "") for metric in Metrics().registry.collect()}
    assert set(re.findall(r"`(embedding_[a-z_]+)[`{]", text("contracts.md").partition("## Metrics")[2])) == metrics


def test_every_reason_is_explained() -> None:
    assert [reason for reason in DeadLetterReason if f"`{reason}`" not in text("contracts.md")] == []
    assert [reason for reason in TerminationReason if f"`{reason}`" not in text("configuration.md")] == []


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))):
        if "://" in target:
            continue
        found = (page.parent / target) if target else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_target_of_make_that_the_readme_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert named - targets == set()
