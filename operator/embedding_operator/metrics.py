"""The operator's metrics, declared once."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_PIPELINE = ("namespace", "name")


class _Told(NamedTuple):
    lag: int
    rate: float | None
    until: float


class PipelineFigures(Collector):
    """How far each pipeline is, as far as that is known now. Safe to use from every thread.

    What isn't told anew in time is gone: an old figure would look like a new one, and autoscalers would follow it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], _Told] = {}

    def tell(self, pipeline: tuple[str, str], lag: int, rate: float | None, seconds: float) -> None:
        """These are the figures of a pipeline, by namespace and name, for at most so many seconds."""
        with self._lock:
            self._told[pipeline] = _Told(lag, rate, self._clock() + seconds)

    def withdraw(self, pipeline: tuple[str, str]) -> None:
        """Nobody knows the figures of a pipeline, or it is gone."""
        with self._lock:
            self._told.pop(pipeline, None)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See ``Collector``."""
        lag = GaugeMetricFamily(
            "embedding_pipeline_lag", "Records of the input topic that are not yet embedded", labels=_PIPELINE
        )
        rate = GaugeMetricFamily(
            "embedding_pipeline_messages_per_second", "Records that were embedded a second", labels=_PIPELINE
        )
        with self._lock:
            now = self._clock()
            self._told = {pipeline: told for pipeline, told in self._told.items() if now < told.until}
            for pipeline, told in self._told.items():
                lag.add_metric(pipeline, told.lag)
                if told.rate is not None:
                    rate.add_metric(pipeline, told.rate)
        yield lag
        yield rate


class Metrics:
    """Prometheus metrics with the prefixes ``embedding_operator_`` and ``embedding_pipeline_``, in base units."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.reconciles = Counter(
            "embedding_operator_reconciles",
            "Looks at a pipeline, by whether they went through",
            ["result"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "embedding_operator_reconcile_seconds",
            "How long a look at a pipeline took",
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 30),
            registry=self.registry,
        )
        self.pipelines = Gauge("embedding_operator_pipelines", "Pipelines that are watched", registry=self.registry)
        self.waiting = Gauge(
            "embedding_operator_queue_length", "Pipelines that wait for a look, now or later", registry=self.registry
        )
        self.figures = PipelineFigures()
        self.registry.register(self.figures)
