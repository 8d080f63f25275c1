"""Does memory grow with the backlog, and how much is the loop's? A worker on 100,000 messages beside its encoder alone.

Messages are docstrings' first lines, and every twentieth a whole docstring, up to several pages. Prints resident memory
after a tenth, a half and all of them, and that of a process that embeds as many texts of the same kind with the same
encoder and has no Kafka, so that what grows shows whose it is. Writes both curves to ``out/benchmarks/memory.json``.
Run by ``make bench``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "testing"))

from contestants import ceiling  # noqa: E402 - needs the path above

from embedding_service.contract.settings import ModelSettings  # noqa: E402 - as above
from embedding_service.encoders import loading  # noqa: E402 - as above
from kafka_broker import KafkaBroker  # noqa: E402 - as above
from kafka_helpers import Record, create_topics, produce  # noqa: E402 - as above
from machine import machine, resident_kib  # noqa: E402 - as above
from real_texts import long_tailed, short  # noqa: E402 - as above
from worker_process import WorkerProcess  # noqa: E402 - as above

MESSAGES = 100_000
# So that it still works when the last one is looked at.
WAITING = 110_000
TEXTS = 2_000
EVERY = 20
SAMPLE_SECONDS = 2
# Of so many messages, the resident KiB.
Curve = list[tuple[int, int]]
OUTPUT = ROOT / "out" / "benchmarks" / "memory.json"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alone", action="store_true", help="only embed, without Kafka, and print resident KiB")
    if parser.parse_args().alone:
        print(json.dumps(alone()))
        return
    command = [sys.executable, __file__, "--alone"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    without: Curve = json.loads(done.stdout.splitlines()[-1])
    with KafkaBroker(own=True) as kafka, tempfile.TemporaryDirectory() as directory:
        servers = kafka.bootstrap_servers
        create_topics(servers, ["text-messages", "embeddings"])
        values = (json.dumps({"id": n, "text": text}).encode() for n, text in enumerate(islice(texts(), WAITING)))
        produce(servers, (Record("text-messages", value=value) for value in values), timeout=300)
        with WorkerProcess(Path(directory), {"kafka": {"bootstrap_servers": servers}}) as worker:
            worker.wait_ready()
            curve = watch(worker)
    report(curve, without)


def texts() -> Iterator[str]:
    """Short ones, and now and then one of any length; for ever."""
    for number, (line, whole) in enumerate(zip(cycle(short(TEXTS)), cycle(long_tailed(TEXTS)), strict=False)):
        yield line if number % EVERY else whole


def alone() -> Curve:
    """Of this process, by texts embedded, in windows as the worker's."""
    model = loading.load(ModelSettings())
    remaining = islice(texts(), MESSAGES)
    curve: Curve = []
    embedded = 0
    while window := list(islice(remaining, 1024)):
        ceiling(model, window)
        embedded += len(window)
        curve.append((embedded, resident_kib(os.getpid())))
    return curve


def watch(worker: WorkerProcess) -> Curve:
    """Of a worker, by messages processed."""
    curve: Curve = []
    while not curve or curve[-1][0] < MESSAGES:
        # A benchmark samples by the clock.
        time.sleep(SAMPLE_SECONDS)
        curve.append((int(worker.stats()["messages_processed"]), resident_kib(worker.pid)))
    return curve


def report(curve: Curve, without: Curve) -> None:
    """Print the figures and write the curves."""
    found = {"the worker": curve, "the encoder alone": without}
    rows = {name: [_after(one, MESSAGES * tenths // 10) for tenths in (1, 5, 10)] for name, one in found.items()}
    for name, (early, half, late) in rows.items():
        print(
            f"{name}: {early / 1024:.0f} MiB resident after {MESSAGES // 10:,} messages, {half / 1024:.0f} after "
            f"{MESSAGES // 2:,}, {late / 1024:.0f} after {MESSAGES:,}; {late / early:.3f} times, of the last half "
            f"{late / half:.3f} times"
        )
    ratio = rows["the worker"][-1] / rows["the encoder alone"][-1]
    print(f"worker / encoder alone, after {MESSAGES:,} each: {ratio:.3f} (the aim is at most 1.30)")
    result = {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "machine": machine("torch", "openvino", "sentence-transformers", "confluent-kafka"),
        "resident_kib_by_messages": found,
        "ratio_to_encoder": round(ratio, 4),
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"curves: {OUTPUT.relative_to(ROOT)}")


def _after(curve: Curve, messages: int) -> int:
    """KiB when so many were through; at the end where the last window has fewer."""
    return next((kib for through, kib in curve if through >= messages), curve[-1][1])


if __name__ == "__main__":
    main()
