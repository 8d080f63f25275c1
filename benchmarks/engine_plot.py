"""What ``engine.py`` found, as a picture."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# No window is opened.
mpl.use("agg")


def save(rows: Mapping[str, Any], file: Path) -> None:
    """Draw rates, and the processor's time outside of the model, as a PNG; ``rows`` are those of ``engine.json``."""
    figure, (rates, times) = plt.subplots(2, figsize=(9, 7), layout="constrained", height_ratios=[2, 1])
    _rates(rates, rows["throughput"]["messages_per_second"])
    found = {"beside the model": rows["throughput"]} | {
        f"beside a wait of {one['encoder']}": one for one in rows["overlap"]
    }
    _times(times, found)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def _rates(axes: Axes, found: Mapping[str, list[float]]) -> None:
    """The median of each contestant as a bar, every round as a point."""
    names = sorted(found, key=lambda name: statistics.median(found[name]))
    axes.barh(names, [statistics.median(found[name]) for name in names], alpha=0.5)
    for name in names:
        axes.plot(found[name], [name] * len(found[name]), "k.", markersize=4)
    axes.set_xlabel("messages a second; a point is a round")


def _times(axes: Axes, found: Mapping[str, Mapping[str, Any]]) -> None:
    """The loop's microseconds by stage, one beside the other, and a bare loop's below."""
    for where, row in reversed(list(found.items())):
        axes.barh(f"a bare loop, {where}", statistics.median(row["bare_microseconds"]), color="grey", alpha=0.5)
        left = 0.0
        for index, (stage, microseconds) in enumerate(row["microseconds"].items()):
            axes.barh(where, microseconds, left=left, color=f"C{index}", label=stage)
            left += microseconds
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[: len(row["microseconds"])], labels[: len(row["microseconds"])], fontsize="small")
    axes.set_xlabel("processor time a message outside of tokenizer and model, µs")
