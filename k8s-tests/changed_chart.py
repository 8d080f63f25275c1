"""The chart as another version could be, and the upgrade to it."""

import shutil
from pathlib import Path

import yaml

from system_fixtures import CHART, RELEASE, SYSTEM_NAMESPACE, System

NEW_FIELD = "ofTheChangedChart"


def changed_chart(directory: Path) -> Path:
    """The chart of another version, with a resource definition that has one more optional field."""
    changed = shutil.copytree(CHART, directory / "chart")
    metadata = yaml.safe_load((changed / "Chart.yaml").read_text(encoding="utf-8"))
    metadata["version"] = metadata["appVersion"] = "0.9.0"
    (changed / "Chart.yaml").write_text(yaml.safe_dump(metadata), encoding="utf-8")
    definition = yaml.safe_load((changed / "files" / "crd.yaml").read_text(encoding="utf-8"))
    (version,) = definition["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    spec[NEW_FIELD] = {"type": "string", "maxLength": 63, "description": "What an upgrade added. Unset: nothing."}
    (changed / "files" / "crd.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")
    return changed


def upgrade_to(system: System, chart: Path, *values: str) -> None:
    """Upgrade the release to a chart, with further values; returns once the operator is ready."""
    system.cluster.helm(
        *("upgrade", RELEASE, str(chart), "--namespace", SYSTEM_NAMESPACE, "--values", str(system.values)),
        *("--wait", "--timeout", "3m", "--set", ",".join(values)),
    )


def explains_the_new_field(system: System) -> bool:
    """Whether `kubectl explain` knows the field that the changed chart adds."""
    explained = system.cluster.kubectl("explain", f"embeddingpipeline.spec.{NEW_FIELD}", check=False)
    return "What an upgrade added." in explained.stdout
