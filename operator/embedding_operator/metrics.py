"""The operator's metrics, declared once."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector


class Metrics:
    """Prometheus metrics with the prefix ``embedding_operator_``, in base units."""

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
