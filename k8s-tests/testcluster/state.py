"""Which one-node cluster is on this machine, as those need to know who did not start it."""

import json
from dataclasses import dataclass
from pathlib import Path

from testcluster.layout import RUNTIME, Layout

SHARED = "make cluster-up"
_FILE = RUNTIME / "cluster.json"


@dataclass(frozen=True, slots=True)
class State:
    """``owner``: SHARED, or the name that a test run gave the cluster that is its own."""

    owner: str
    layout: Layout


def read() -> State | None:
    """Return what the cluster that was started last wrote, if it was not removed."""
    if not _FILE.exists():
        return None
    data = json.loads(_FILE.read_text())
    return State(data["owner"], Layout(Path(data["base"])))


def write(state: State) -> None:
    """Leave word of a cluster before anything of it is started."""
    RUNTIME.mkdir(exist_ok=True)
    temporary = _FILE.with_suffix(".new")
    temporary.write_text(json.dumps({"owner": state.owner, "base": str(state.layout.base)}))
    temporary.rename(_FILE)
