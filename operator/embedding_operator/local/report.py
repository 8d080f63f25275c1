"""The text that a run ends with, and the lines that it shows on the way; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedding_operator.local.neighbours import MOST_VECTORS, Example
from embedding_operator.local.tracker import RecordTracker
from embedding_service.contract.settings import Settings
from embedding_service.contract.stats import ModelStats

_SNIPPET = 96  # characters
_CUT = " …"
_LABEL_WIDTH = 12


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went. ``blank`` are lines that were left out; ``written`` is how many outputs went to which file."""

    pipeline: str
    broker: str
    model: ModelStats
    tracker: RecordTracker
    examples: Sequence[Example] = ()
    vectors_cut: bool = False
    blank: int = 0
    written: tuple[int, str] | None = None


def report(outcome: Outcome) -> str:
    """The report: what was used, what came of it, how fast, and the neighbours."""
    tracker = outcome.tracker
    rows = [
        ("Pipeline", outcome.pipeline),
        ("Broker", outcome.broker),
        ("Model", _model(outcome.model)),
        ("Weights", f"{outcome.model.source}, {outcome.model.path}"),
        ("Contract", outcome.model.contract),
        ("In", _number(tracker.fed) + (f" ({_count(outcome.blank, 'blank line')} left out)" if outcome.blank else "")),
        ("Out", _number(tracker.embedded)),
        ("Dead", _dead(tracker)),
        ("Tombstones", _number(tracker.tombstones)),
        ("Duplicates", _number(tracker.duplicates)),
        ("Rate", _rate(tracker)),
        ("Latency", _latency(tracker)),
    ]
    if outcome.written is not None:
        count, path = outcome.written
        rows.append(("Written", f"{_count(count, 'embedding')} to {path}"))
    lines = [f"{label:<{_LABEL_WIDTH}}{value}" for label, value in rows]
    return "\n".join([*lines, *_neighbours(outcome.examples, cut=outcome.vectors_cut)])


def serving(settings: Settings) -> str:
    """What a person can do while a run serves."""
    url, servers = f"http://localhost:{settings.http.port}", ",".join(settings.kafka.bootstrap_servers)
    return "\n".join(
        [
            f"Serving at {url}, with the broker at {servers}, until Ctrl-C. For instance:",
            "",
            f"  curl {url}/health",
            f'  kafka-cli write {settings.kafka.input_topic} "Hello" --bootstrap-servers {servers}',
            f"  kafka-cli read {settings.kafka.output_topic} --bootstrap-servers {servers}",
        ]
    )


def mismatch(tracker: RecordTracker) -> str:
    """The error where not all that went in came back."""
    missing = list(tracker.missing(5))
    shown = ", ".join(missing) + (", …" if tracker.lag > len(missing) else "")
    return (
        f"in {_number(tracker.fed)} ≠ out {_number(tracker.embedded)} + dead {_number(tracker.dead.total())} + "
        f"tombstones {_number(tracker.tombstones)}: {_count(tracker.lag, 'record')} did not come back: {shown}"
    )


def progress_line(tracker: RecordTracker, total: int | None) -> str:
    """One line of how far a run is, with the time left where the total is known."""
    rate = _per_second(tracker)
    of_total = "" if total is None else f" of {_number(total)}"
    left = f", {(total - tracker.answered) / rate:.0f} s left" if total is not None and rate else ""
    return f"{_number(tracker.answered)}{of_total} answered, {rate:.0f}/s, lag {_number(tracker.lag)}{left}"


def snippet(text: str) -> str:
    """The beginning of a text, on one line, cut between words where there are any."""
    line = " ".join(text.split())
    if len(line) <= _SNIPPET:
        return line
    cut = line[: _SNIPPET - len(_CUT)]
    return (cut.rpartition(" ")[0] or cut) + _CUT


def _model(model: ModelStats) -> str:
    return (
        f"{model.name}, {_number(model.dimension)} dimensions, at most {_number(model.max_length)} tokens, "
        f"on {model.device}" + (f" in {model.precision}" if model.precision else "")
    )


def _dead(tracker: RecordTracker) -> str:
    reasons = ", ".join(f"{reason} {_number(count)}" for reason, count in tracker.dead.most_common())
    return _number(tracker.dead.total()) + (f" ({reasons})" if reasons else "")


def _per_second(tracker: RecordTracker) -> float:
    return tracker.answered / tracker.seconds if tracker.seconds else 0.0


def _rate(tracker: RecordTracker) -> str:
    return f"{_per_second(tracker):.1f} messages/s over {tracker.seconds:.1f} s"


def _latency(tracker: RecordTracker) -> str:
    if not tracker.latencies:
        return "none was measured"
    p50, p99 = np.percentile(tracker.latencies, [50, 99])
    return f"p50 {p50:.2f} s, p99 {p99:.2f} s, from fed to read, waiting in line included"


def _neighbours(examples: Sequence[Example], *, cut: bool) -> list[str]:
    if not examples:
        return []
    among = f", among the first {_number(MOST_VECTORS)} texts" if cut else ""
    lines = ["", f"Nearest neighbours, by cosine similarity{among}:"]
    for example in examples:
        lines += ["", f"  {snippet(example.text)}"]
        lines += [f"    {cosine:.2f}  {snippet(text)}" for cosine, text in example.neighbours]
    return lines


def _number(number: int) -> str:
    return f"{number:,}"


def _count(number: int, noun: str) -> str:
    return f"{_number(number)} {noun}{'' if number == 1 else 's'}"
