"""Every metric of the worker, declared once, and the statistics read from them."""

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from embedding_service.contract.reasons import DeadLetterReason
from embedding_service.contract.stats import Latency
from embedding_service.embedding import BatchReport
from embedding_service.records import Embedded, Outcome, Rejection

_RECENT_LATENCIES = 4096
_RATE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Counts:
    """Messages by what became of them, since the process started; ``per_minute`` is of the last 60 seconds."""

    embedded: int
    tombstones: int
    truncated: int
    dead_by_reason: dict[str, int]
    last_delivered: float | None
    per_minute: int
    latency: Latency


class Latencies(Collector):
    """A histogram of many values at once: telling ``Histogram`` of each takes longer than all else that is counted."""

    _BOUNDS = Histogram.DEFAULT_BUCKETS

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = np.zeros(len(self._BOUNDS), dtype=np.int64)
        self._sum = 0.0

    def observe(self, seconds: Sequence[float]) -> None:
        """Count them in."""
        counts = np.bincount(np.searchsorted(self._BOUNDS, seconds), minlength=len(self._BOUNDS))
        with self._lock:
            self._counts += counts
            self._sum += sum(seconds)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What ``/metrics`` shows."""
        with self._lock:
            counts, total = np.cumsum(self._counts).tolist(), self._sum
        names = ["+Inf" if bound == math.inf else str(bound) for bound in self._BOUNDS]
        buckets = list(zip(names, counts, strict=True))
        yield HistogramMetricFamily(
            "embedding_latency_seconds", "Seconds from consumed to delivered", buckets=buckets, sum_value=total
        )


class Metrics:
    """Counters and gauges in a registry of their own; safe to use from every thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.consumed = Counter(
            "embedding_messages_consumed", "Messages taken on by the model stage", registry=registry
        )
        self._embedded = Counter(
            "embedding_messages_embedded", "Messages whose embedding is delivered", registry=registry
        )
        self._dead = Counter(
            "embedding_messages_dead_lettered", "Messages dead-lettered", ["reason"], registry=registry
        )
        self._tombstones = Counter("embedding_tombstones", "Null values passed through", registry=registry)
        self._truncated = Counter("embedding_messages_truncated", "Texts cut at the maximum length", registry=registry)
        self._tokens = Counter("embedding_tokens", "Tokens through the model, without padding", registry=registry)
        self._padding = Counter("embedding_padding_tokens", "Padding tokens through the model", registry=registry)
        self._batch = Histogram(
            "embedding_batch_messages", "Messages in a batch", registry=registry, buckets=[2**n for n in range(11)]
        )
        self.stage_seconds = Histogram(
            "embedding_stage_seconds", "Seconds of a stage's step", ["stage"], registry=registry
        )
        self._latency = Latencies()
        registry.register(self._latency)
        self.commits = Counter("embedding_commits", "Offset commits", ["outcome"], registry=registry)
        self.rebalances = Counter("embedding_rebalances", "Partitions gained or given up", ["event"], registry=registry)
        self.lag = Gauge("embedding_consumer_lag", "Messages not yet dealt with", ["partition"], registry=registry)
        self.in_flight = Gauge("embedding_in_flight_messages", "Consumed and not yet committed", registry=registry)
        self.paused = Gauge("embedding_consumer_paused", "1 while fetching waits for room in flight", registry=registry)
        self._queries = Counter("embedding_queries", "Answers of /v1/embeddings", ["status"], registry=registry)
        self._query_seconds = Histogram(
            "embedding_query_seconds", "Seconds until /v1/embeddings had its answer", registry=registry
        )
        self.model_load_seconds = Gauge(
            "embedding_model_load_seconds", "How long the model took to load", registry=registry
        )
        self.build_info = Gauge(
            "embedding_build_info", "Version, model and contract", ["version", "model", "contract"], registry=registry
        )
        self._lock = threading.Lock()
        self._latencies: deque[float] = deque(maxlen=_RECENT_LATENCIES)
        self._by_second: deque[tuple[int, int]] = deque()
        self._last_delivered: float | None = None

    def batch(self, report: BatchReport) -> None:
        """A batch has gone through the model."""
        self._tokens.inc(report.tokens)
        self._padding.inc(report.padded_tokens - report.tokens)
        self._batch.observe(report.messages)

    def query(self, status: int, seconds: float) -> None:
        """A query has been answered. How long a refusal took says nothing of the model."""
        self._queries.labels(str(status)).inc()
        if status < 400:
            self._query_seconds.observe(seconds)

    def delivered(self, outcomes: Sequence[Outcome]) -> None:
        """Outcomes have been acknowledged by the broker."""
        now = time.monotonic()
        latencies = [now - outcome.record.received for outcome in outcomes]
        self._latency.observe(latencies)
        with self._lock:
            self._latencies.extend(latencies)
            self._last_delivered = time.time()
            self._count_second(int(now), len(outcomes))
        embedded = [outcome for outcome in outcomes if isinstance(outcome, Embedded)]
        rejected = [outcome for outcome in outcomes if isinstance(outcome, Rejection)]
        self._embedded.inc(len(embedded))
        self._truncated.inc(sum(outcome.truncated for outcome in embedded))
        self._tombstones.inc(len(outcomes) - len(embedded) - len(rejected))
        for outcome in rejected:
            self._dead.labels(outcome.reason.value).inc()

    def counts(self) -> Counts:
        """What ``/stats`` says of messages."""
        by_reason = {
            reason.value: self._value("messages_dead_lettered", reason=reason.value) for reason in DeadLetterReason
        }
        with self._lock:
            latencies = np.array(self._latencies)
            horizon = time.monotonic() - _RATE_SECONDS
            recent = sum(count for second, count in self._by_second if second >= horizon)
            last_delivered = self._last_delivered
        return Counts(
            embedded=self._value("messages_embedded"),
            tombstones=self._value("tombstones"),
            truncated=self._value("messages_truncated"),
            dead_by_reason={reason: count for reason, count in by_reason.items() if count},
            last_delivered=last_delivered,
            per_minute=recent,
            latency=_latency(latencies),
        )

    def _value(self, name: str, **labels: str) -> int:
        return int(self.registry.get_sample_value(f"embedding_{name}_total", labels) or 0)

    def _count_second(self, second: int, count: int) -> None:
        if self._by_second and self._by_second[-1][0] == second:
            self._by_second[-1] = (second, self._by_second[-1][1] + count)
        else:
            self._by_second.append((second, count))
        while self._by_second[0][0] <= second - _RATE_SECONDS:
            self._by_second.popleft()


def _latency(seconds: NDArray[np.float64]) -> Latency:
    if not len(seconds):
        return Latency(mean=None, p50=None, p99=None)
    p50, p99 = np.percentile(seconds, [50, 99]).tolist()
    return Latency(mean=float(seconds.mean()), p50=p50, p99=p99)
