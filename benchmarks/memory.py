"""Does memory grow with the backlog? A worker with 200,000 messages waiting, watched for two minutes.

Prints resident memory after 30 s and after 120 s of running, and their ratio; writes the whole curve to
``out/benchmarks/memory.json``. Run by ``make bench``.
"""

import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "testing"))

from kafka_broker import KafkaBroker  # noqa: E402 - needs the path above
from kafka_helpers import Record, create_topics, produce  # noqa: E402 - as above
from machine import machine  # noqa: E402 - as above
from real_texts import long_tailed  # noqa: E402 - as above
from worker_process import WorkerProcess  # noqa: E402 - as above

MESSAGES = 200_000
TEXTS = 5_000
EARLY_SECONDS = 30
LATE_SECONDS = 120
SAMPLE_SECONDS = 5
OUTPUT = ROOT / "out" / "benchmarks" / "memory.json"


def main() -> None:
    """Measure and report."""
    with KafkaBroker(own=True) as kafka, tempfile.TemporaryDirectory() as directory:
        servers = kafka.bootstrap_servers
        create_topics(servers, ["text-messages", "embeddings"])
        texts = islice(cycle(long_tailed(TEXTS)), MESSAGES)
        produce(
            servers,
            (
                Record("text-messages", value=json.dumps({"id": n, "text": text}).encode())
                for n, text in enumerate(texts)
            ),
            timeout=300,
        )
        with WorkerProcess(Path(directory), {"kafka": {"bootstrap_servers": servers}}) as worker:
            worker.wait_ready()
            curve = watch(worker)
            processed = worker.stats()["messages_processed"]
    report(curve, processed)


def watch(worker: WorkerProcess) -> list[tuple[int, int]]:
    """Resident KiB at each sample, by seconds since ready."""
    started = time.monotonic()
    curve = []
    for second in range(SAMPLE_SECONDS, LATE_SECONDS + 1, SAMPLE_SECONDS):
        # A benchmark samples by the clock.
        time.sleep(max(0.0, started + second - time.monotonic()))
        curve.append((second, resident_kib(worker.pid)))
    return curve


def resident_kib(pid: int) -> int:
    """Resident memory of a process, as ps tells it."""
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], check=True, capture_output=True, text=True).stdout)


def report(curve: list[tuple[int, int]], processed: int) -> None:
    """Print the figures and write the curve."""
    early, late = dict(curve)[EARLY_SECONDS], dict(curve)[LATE_SECONDS]
    if processed >= MESSAGES:
        sys.exit(f"the backlog of {MESSAGES:,} messages ran out: make it larger on a machine as fast as this one")
    result = {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "machine": machine("torch", "sentence-transformers", "confluent-kafka"),
        "messages_waiting": MESSAGES,
        "messages_processed": processed,
        "resident_kib": curve,
        "ratio": round(late / early, 4),
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"messages waiting: {MESSAGES:,}; processed in {LATE_SECONDS} s: {processed:,}")
    print(f"resident after {EARLY_SECONDS} s: {early / 1024:.0f} MiB")
    print(f"resident after {LATE_SECONDS} s: {late / 1024:.0f} MiB")
    print(f"ratio: {late / early:.3f} (the aim is at most 1.10)")
    print(f"curve: {OUTPUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
