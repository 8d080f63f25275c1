"""What the benchmarks of the loop found, as pictures."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

# No window is opened.
mpl.use("agg")


def rates(found: Mapping[str, list[float]], file: Path) -> None:
    """Messages a second by contestant: the median of each as a bar, every round as a point."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    names = sorted(found, key=lambda name: statistics.median(found[name]))
    axes.barh(names, [statistics.median(found[name]) for name in names], alpha=0.5)
    for name in names:
        axes.plot(found[name], [name] * len(found[name]), "k.", markersize=4)
    axes.set_xlabel("messages a second; a point is a round")
    figure.savefig(file, dpi=100)
    plt.close(figure)


def times(found: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """The loop's microseconds by stage, one beside the other, and a bare loop's below, by what the model is."""
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    stages: list[str] = []
    for where, row in reversed(list(found.items())):
        axes.barh(f"a bare loop, after {where}", statistics.median(row["bare_microseconds"]), color="grey", alpha=0.5)
        left = 0.0
        stages = list(row["microseconds"])
        for index, stage in enumerate(stages):
            axes.barh(where, row["microseconds"][stage], left=left, color=f"C{index}", label=stage)
            left += row["microseconds"][stage]
    handles, _ = axes.get_legend_handles_labels()
    axes.legend(handles[: len(stages)], stages, fontsize="small")
    axes.set_xlabel("processor time a message outside of tokenizer and model, µs")
    figure.savefig(file, dpi=100)
    plt.close(figure)
