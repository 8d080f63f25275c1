"""Every value that a field of a pipeline, or of an object of it, has while something happens."""

import itertools
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from system_fixtures import SETTLE_SECONDS, Pipeline
from testcluster.tools import path
from waiting import wait_until


@contextmanager
def watched(pipeline: Pipeline, kind: str, field: str, directory: Path) -> Iterator[Callable[[], list[str]]]:
    """Yield what returns each value of a field, a JSONPath, since now, in their order."""
    name = pipeline.name if kind == "embp" else pipeline.worker
    command = [str(path("kubectl")), "get", kind, name, "--namespace", pipeline.namespace, "--watch"]
    file = directory / f"{kind}-values"

    with (
        file.open("w", encoding="utf-8") as output,
        subprocess.Popen(
            [*command, f'--output=jsonpath={field}{{"\\n"}}'],
            stdout=output,
            env=pipeline.system.cluster.environment,
        ) as watch,
    ):

        def values() -> list[str]:
            # One that has ended would go on to show the last value before that.
            assert watch.poll() is None, "the watch has ended"
            return [value for value, _ in itertools.groupby(file.read_text(encoding="utf-8").split())]

        try:
            wait_until(values, SETTLE_SECONDS, "the watch shows nothing")
            yield values
        finally:
            watch.terminate()
