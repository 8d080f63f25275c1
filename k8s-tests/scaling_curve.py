"""How lag, workers and outputs of a pipeline go while an autoscaler changes its number of workers."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib import pyplot as plt

from kafka_helpers import end_offsets, group_lag
from system_fixtures import Pipeline
from waiting import wait_until

LOOK_SECONDS = 1.0
# No window is opened.
mpl.use("agg")


class Look(NamedTuple):
    """What was so, ``at`` seconds after the first look."""

    at: float
    lag: int
    replicas: int
    outputs: int


class Curve:
    """Looks at a pipeline; ``numbers`` returns each number of workers that there was, as ``watched`` does."""

    def __init__(self, pipeline: Pipeline, numbers: Callable[[], list[str]]) -> None:
        self.looks: list[Look] = []
        self._pipeline = pipeline
        self._numbers = numbers
        self._start = time.monotonic()

    def look(self) -> Look:
        """Look once."""
        servers, name = (
            self._pipeline.system.kafka.bootstrap_servers,
            f"{self._pipeline.namespace}.{self._pipeline.name}",
        )
        lag = group_lag(servers, name, f"{name}.in")
        outputs = sum(end_offsets(servers, f"{name}.out").values())
        seen = Look(time.monotonic() - self._start, lag, int(self._numbers()[-1]), outputs)
        self.looks.append(seen)
        return seen

    def until(self, condition: Callable[[Look], bool], what: str, seconds: float) -> Look:
        """Look until something is so."""

        def done() -> Look | None:
            seen = self.look()
            return seen if condition(seen) else None

        try:
            found = wait_until(done, seconds, what, interval=LOOK_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {self.summary()}") from None
        assert found is not None
        return found

    def lags_at_falls(self) -> list[int]:
        """The lag at the last look before each that found fewer workers."""
        return [before.lag for before, after in itertools.pairwise(self.looks) if after.replicas < before.replicas]

    def save(self, file: Path) -> None:
        """Draw it, as a PNG: what waits, who works, and what has come out."""
        figure, axes = plt.subplots(3, sharex=True, figsize=(8, 6), layout="constrained")
        times = [look.at for look in self.looks]
        for part, name in zip(axes, ("lag", "replicas", "outputs"), strict=True):
            part.step(times, [getattr(look, name) for look in self.looks], where="post")
            part.set_ylabel(name)
            part.set_ylim(bottom=0)
            part.grid(visible=True, alpha=0.3)
        axes[-1].set_xlabel("seconds")
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=100)
        plt.close(figure)

    def summary(self) -> str:
        """When how many workers were there, with the lag of that moment."""
        changes = [after for before, after in itertools.pairwise(self.looks) if after.replicas != before.replicas]
        told = [f"{look.at:.0f} s: {look.replicas} workers, lag {look.lag}" for look in (*self.looks[:1], *changes)]
        return "; ".join(told)
