"""What the loop itself takes, on this machine's processor: beside the model, and beside one that needs no processor.

Real texts, a real Kafka, in turns within one run: the worker's loop with the default model in float32, and with two
that wait 20 and 5 ms a batch of 64, as for a GPU, and compute nothing; each followed by a bare loop that consumes,
parses, writes and produces the same records. Prints the loop's rate against the stand-in's own, the processor's time
for each message outside of tokenizer and model by stage, and how many times a bare loop's that is: medians and spreads.
Run by ``make bench``; writes every round to ``out/benchmarks/overlap.json``, and a picture beside it.
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "testing")]

import contestants as run  # noqa: E402 - needs the path above
import plots  # noqa: E402 - as above
from contestants import Flow, Stream, WaitingEncoder  # noqa: E402 - as above
from quiet import spread, undisturbed  # noqa: E402 - as above

from embedding_service.contract.settings import ModelSettings  # noqa: E402 - as above
from embedding_service.encoders import loading  # noqa: E402 - as above
from embedding_service.worker import settle_interpreter  # noqa: E402 - as above
from kafka_broker import KafkaBroker  # noqa: E402 - as above
from machine import machine  # noqa: E402 - as above
from real_texts import long_tailed  # noqa: E402 - as above

WAITS = {"a wait of 20 ms a batch of 64": 0.02, "a wait of 5 ms a batch of 64": 0.005}
WAITING_TEXTS = 64
WAITING_MESSAGES = 20_000
OUTPUT = ROOT / "out" / "benchmarks" / "overlap.json"

Row = dict[str, Any]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=4_000)
    options = parser.parse_args()
    texts = list(long_tailed(options.messages))
    # They come in the order of modules; the first windows shall be like the rest.
    random.Random(0).shuffle(texts)
    model = loading.load(ModelSettings(device="cpu", precision="float32"))
    # As the worker does.
    settle_interpreter()
    many = (texts * (WAITING_MESSAGES // len(texts) + 1))[:WAITING_MESSAGES]
    waiting = {name: WaitingEncoder(seconds, WAITING_TEXTS, many) for name, seconds in WAITS.items()}
    with KafkaBroker(own=True) as kafka:
        stream = run.filled(kafka.bootstrap_servers, "texts", texts)
        repeated = run.filled(kafka.bootstrap_servers, "many", many)
        works: dict[str, tuple[Stream, Callable[[], Flow]]] = {
            f"{model.backend} {model.precision}": (stream, partial(run.flow, stream, model))
        }
        for name, encoder in waiting.items():
            stand_in = partial(
                run.flow, repeated, replace(model, encoder=encoder), max_batch_tokens=encoder.batch_tokens
            )
            works[name] = repeated, stand_in
        rows = {name: _processor(name, *work, options.rounds) for name, work in works.items()}
    for name, encoder in waiting.items():
        rows[name] |= _of_its_own(name, rows[name]["messages_per_second"], len(many) / encoder.alone(model.batch_cost))
    environment = machine("torch", "openvino", "confluent-kafka") | {"date": datetime.now(tz=UTC).date().isoformat()}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1), encoding="utf-8")
    plots.times(rows, OUTPUT.with_suffix(".png"))
    print(f"every round: {OUTPUT.relative_to(ROOT)}, and as a picture: {OUTPUT.with_suffix('.png').relative_to(ROOT)}")


def _processor(name: str, stream: Stream, work: Callable[[], Flow], rounds: int) -> Row:
    """Microseconds of the processor for each message, outside of tokenizer and model, beside a bare loop's."""
    flows: list[Flow] = []
    bare: list[float] = []
    others: list[float] = []
    for _ in range(rounds):
        flow, share = undisturbed(work)
        seconds, share_of_bare = undisturbed(lambda: run.bare_loop(stream))
        flows.append(flow)
        bare.append(1e6 * seconds / stream.messages)
        others += share, share_of_bare
    spent = [{stage: 1e6 * flow.cpu_seconds[stage] / stream.messages for stage in run.STAGES} for flow in flows]
    stages = {stage: statistics.median(one[stage] for one in spent) for stage in run.STAGES}
    ours = [sum(one.values()) for one in spent]
    ratios = [one / other for one, other in zip(ours, bare, strict=True)]
    parts = ", ".join(f"{stage} {microseconds:.0f}" for stage, microseconds in stages.items())
    print(
        f"{name}: outside of the model {spread(ours, 1)} µs a message ({parts}); a bare loop {spread(bare, 1)}; "
        f"{spread(ratios, 2)} times that (the aim is at most 2; others {max(others):.1%} at most)",
        flush=True,
    )
    return {
        "messages_per_second": [stream.messages / flow.seconds for flow in flows],
        "microseconds": stages,
        "microseconds_by_round": ours,
        "bare_microseconds": bare,
        "microseconds_ratios": ratios,
        "others": others,
    }


def _of_its_own(name: str, rates: Sequence[float], own: float) -> Row:
    """The loop's rate, where the model takes none of the processor's time, against that model's own."""
    ratios = [rate / own for rate in rates]
    print(f"{name}: {spread(rates, 0)} msgs/s, {spread(ratios, 3)} of its own rate (of 20 ms, the aim is 0.95)")
    return {"own": own, "ratios": ratios}


if __name__ == "__main__":
    main()
