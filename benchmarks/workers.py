"""Workers as processes: queries while a backlog flows, and two workers of one thread beside one of two.

A query is a text for ``POST /v1/embeddings``, sent by the clock whether the last one was answered or not. Prints its
latency beside the longest batch of the backlog's texts, and the backlog's rate with and without queries, in turns. Run
by ``make bench``; writes every round to ``out/benchmarks/workers.json``.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "testing")]

import numpy as np  # noqa: E402 - needs the path above
from quiet import spread, undisturbed  # noqa: E402 - as above

from embedding_service.batching import pack  # noqa: E402 - as above
from embedding_service.contract.settings import DEFAULT_MODEL, ModelSettings  # noqa: E402 - as above
from embedding_service.encoders import loading  # noqa: E402 - as above
from embedding_service.encoders.processors import available  # noqa: E402 - as above
from kafka_broker import KafkaBroker  # noqa: E402 - as above
from kafka_helpers import Record, create_topics, produce  # noqa: E402 - as above
from machine import machine  # noqa: E402 - as above
from real_texts import long_tailed  # noqa: E402 - as above
from worker_process import WorkerProcess  # noqa: E402 - as above

TEXTS = 4_000
# More than the fastest machine has embedded by the last round.
WAITING = 500_000
PARTITIONS = 4
SECONDS = 30.0
PER_SECOND = 2
# Batches that OpenVINO computes at a time on more processors than that.
MOST_SIDE_BY_SIDE = 8
OUTPUT = ROOT / "out" / "benchmarks" / "workers.json"

Row = dict[str, Any]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    texts = long_tailed(TEXTS)
    with KafkaBroker(own=True) as kafka:
        servers = kafka.bootstrap_servers
        create_topics(servers, ["texts"], partitions=PARTITIONS)
        values = (json.dumps({"id": n, "text": text}).encode() for n, text in enumerate(islice(cycle(texts), WAITING)))
        produce(servers, (Record("texts", n % PARTITIONS, value=value) for n, value in enumerate(values)), timeout=300)
        rows: Row = {"environment": machine("torch", "openvino", "confluent-kafka")}
        rows["environment"] |= {"date": datetime.now(tz=UTC).date().isoformat(), "load": os.getloadavg()[0]}
        OUTPUT.parent.mkdir(parents=True, exist_ok=True)
        for name, measured in (("queries", partial(_queries, servers, texts)), ("sharing", partial(_sharing, servers))):
            rows[name] = measured(rounds)
            # The next part takes long, and may fail.
            OUTPUT.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"every round: {OUTPUT.relative_to(ROOT)}")


@contextmanager
def _workers(servers: str, name: str, threads: Sequence[set[int]]) -> Iterator[list[WorkerProcess]]:
    """A worker on each of the sets of processors, as one group that begins at the first message."""
    create_topics(servers, [f"{name}-out"], partitions=PARTITIONS)
    kafka = {
        "bootstrap_servers": servers,
        "input_topic": "texts",
        "output_topic": f"{name}-out",
        "consumer_group": name,
    }
    mine = os.sched_getaffinity(0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = []
        for number, processors in enumerate(threads):
            # A process has the processors of its parent.
            os.sched_setaffinity(0, processors)
            workers.append(stack.enter_context(WorkerProcess(folder / str(number), {"kafka": kafka})))
        os.sched_setaffinity(0, mine)
        for one in workers:
            one.wait_ready()
        # The group is complete, and the first windows have taught the workers their pace.
        _rate(workers, SECONDS / 3)
        yield workers


def _rate(workers: Sequence[WorkerProcess], seconds: float) -> float:
    """Tokens a second of all together."""
    before, started = _tokens(workers), time.monotonic()
    # A rate is of a time.
    time.sleep(seconds)
    rate = (_tokens(workers) - before) / (time.monotonic() - started)
    _check_behind(workers)
    return rate


def _check_behind(workers: Sequence[WorkerProcess]) -> None:
    """A worker without a backlog has all its time for queries, and a rate that is nobody's."""
    if not any(_metric(one.port, "embedding_in_flight_messages") for one in workers):
        raise RuntimeError(f"the backlog of {WAITING:,} messages is through; expected more than the rounds need")


def _tokens(workers: Sequence[WorkerProcess]) -> float:
    """What has gone through the model: told batch by batch, while messages are counted by windows of many seconds."""
    return sum(_metric(one.port, "embedding_tokens_total") for one in workers)


def _metric(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def _queries(servers: str, texts: Sequence[str], rounds: int) -> Row:
    longest = _longest_batch(texts)
    found_rounds: list[Row] = []
    latencies: list[float] = []
    with _workers(servers, "queried", [os.sched_getaffinity(0)]) as workers:
        asking = cycle(texts)
        for number in range(rounds):
            without, share = undisturbed(lambda: _rate(workers, SECONDS))
            (found, rate), share_with = undisturbed(lambda: _asked(workers[0], asking))
            latencies += found
            row = {"without": without, "with": rate, "seconds": found, "others": [share, share_with]}
            found_rounds.append(row)
            print(
                f"round {number + 1}: {without:,.0f} tokens/s alone, {rate:,.0f} beside queries "
                f"(others {max(share, share_with):.1%})",
                flush=True,
            )
    p50, p99 = (float(value) for value in np.percentile(latencies, [50, 99]))
    of_rounds = [float(np.percentile(one["seconds"], 99)) for one in found_rounds]
    kept = [one["with"] / one["without"] for one in found_rounds]
    print(
        f"{len(latencies)} queries beside a backlog: p50 {1e3 * p50:.0f} ms, p99 {1e3 * p99:.0f} ms (of single rounds "
        f"{1e3 * min(of_rounds):.0f}-{1e3 * max(of_rounds):.0f})"
    )
    print(f"the longest batch: {1e3 * longest:.0f} ms; p99 is {p99 / longest:.2f} of it (the aim is at most 3)")
    print(f"the backlog keeps {spread(kept, 3)} of its rate (the aim is at least 0.85)")
    return {"longest_batch_seconds": longest, "p50": p50, "p99": p99, "kept": kept, "rounds": found_rounds}


def _longest_batch(texts: Sequence[str]) -> float:
    """Seconds of the slowest batch of these texts, with as many others beside it as a backlog has."""
    model = loading.load(ModelSettings(device="cpu"))
    tokenized = model.encoder.tokenize(texts[:1024])
    batches = pack([text.length for text in tokenized], model.batch_tokens, model.batch_cost)

    def seconds(batch: list[int], copies: int) -> float:
        started = time.monotonic()
        running = [model.encoder.submit([tokenized[index] for index in batch]) for _ in range(copies)]
        for computation in running:
            computation.result()
        return time.monotonic() - started

    slowest = max(batches, key=lambda batch: seconds(batch, 1))
    side_by_side = min(available(), MOST_SIDE_BY_SIDE)
    copies = 10 * side_by_side
    return statistics.median(seconds(slowest, copies) * side_by_side / copies for _ in range(3))


def _asked(worker: WorkerProcess, texts: Iterator[str]) -> tuple[list[float], float]:
    """Latencies of queries sent by the clock, and the backlog's rate meanwhile."""
    before, started = _tokens([worker]), time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        answers = []
        for number in range(int(SECONDS * PER_SECOND)):
            due = started + number / PER_SECOND
            time.sleep(max(0.0, due - time.monotonic()))
            answers.append(pool.submit(_ask, worker.port, next(texts), due))
        rate = (_tokens([worker]) - before) / (time.monotonic() - started)
        _check_behind([worker])
        return [answer.result() for answer in answers], rate


def _ask(port: int, text: str, due: float) -> float:
    """Seconds from when it was due: one that waits for this process's thread waits, too."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/embeddings",
        data=json.dumps({"input": text, "model": DEFAULT_MODEL}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        response.read()
    return time.monotonic() - due


def _sharing(servers: str, rounds: int) -> Row:
    processors = sorted(os.sched_getaffinity(0))[:2]
    if len(processors) < 2:
        sys.exit("two workers of a thread each need two processors, and this process may use one")
    contestants: dict[str, list[set[int]]] = {
        "one worker of two threads": [set(processors)],
        "two workers of one thread": [{processors[0]}, {processors[1]}],
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    others: list[float] = []
    for number in range(rounds):
        for name, threads in contestants.items():
            with _workers(servers, f"shared-{number}-{len(threads)}", threads) as workers:
                rate, share = undisturbed(_rate_of(workers))
            rates[name].append(rate)
            others.append(share)
            print(f"round {number + 1}: {name}: {rate:,.0f} tokens/s (others {share:.1%})", flush=True)
    one, two = rates.values()
    ratios = [b / a for a, b in zip(one, two, strict=True)]
    print(f"two workers of one thread / one of two: {spread(ratios, 3)} (the aim is at least 0.9)")
    return {"rates": rates, "ratios": ratios, "others": others}


def _rate_of(workers: Sequence[WorkerProcess]) -> Callable[[], float]:
    return lambda: _rate(workers, SECONDS)


if __name__ == "__main__":
    main()
