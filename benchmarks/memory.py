"""Does memory grow with the backlog, and how much is the loop's? A worker on 100,000 messages beside its encoder alone.

Messages are docstrings' first lines, and every twentieth a whole docstring, up to several pages. Prints resident memory
after a tenth of them and after all, and that of a process that embeds texts of the same kind with the same encoder and
has no Kafka; writes the whole curve to ``out/benchmarks/memory.json``. Run by ``make bench``.
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
ALONE = 10_000
TEXTS = 2_000
EVERY = 20
SAMPLE_SECONDS = 2
OUTPUT = ROOT / "out" / "benchmarks" / "memory.json"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alone", action="store_true", help="only embed, without Kafka, and print the resident KiB")
    if parser.parse_args().alone:
        print(alone())
        return
    command = [sys.executable, __file__, "--alone"]
    without = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
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


def alone() -> int:
    """KiB of a process that has embedded so many texts."""
    model = loading.load(ModelSettings())
    remaining = list(islice(texts(), ALONE))
    while remaining:
        ceiling(model, remaining[:1024])
        del remaining[:1024]
    return resident_kib(os.getpid())


def watch(worker: WorkerProcess) -> list[tuple[int, int]]:
    """Resident KiB by messages processed."""
    curve: list[tuple[int, int]] = []
    while not curve or curve[-1][0] < MESSAGES:
        # A benchmark samples by the clock.
        time.sleep(SAMPLE_SECONDS)
        curve.append((int(worker.stats()["messages_processed"]), resident_kib(worker.pid)))
    return curve


def report(curve: list[tuple[int, int]], without: int) -> None:
    """Print the figures and write the curve."""
    early = next(kib for messages, kib in curve if messages >= MESSAGES // 10)
    messages, late = curve[-1]
    result = {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "machine": machine("torch", "sentence-transformers", "confluent-kafka"),
        "resident_kib_by_messages": curve,
        "encoder_alone_kib": without,
        "ratio_to_encoder": round(late / without, 4),
        "ratio_late_to_early": round(late / early, 4),
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"the encoder alone: {without / 1024:.0f} MiB resident after {ALONE:,} texts")
    print(f"the worker: {early / 1024:.0f} MiB after {MESSAGES // 10:,} messages, {late / 1024:.0f} after {messages:,}")
    print(f"worker / encoder alone: {late / without:.3f} (the aim is at most 1.30)")
    print(f"late / early: {late / early:.3f} (the aim is at most 1.10)")
    print(f"curve: {OUTPUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
