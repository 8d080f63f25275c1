"""What ``/metrics`` shows of what has been delivered."""

import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from embedding_service.metrics import Latencies, Metrics
from embedding_service.records import InputRecord, Tombstone


def shown(registry: CollectorRegistry) -> dict[str, float]:
    lines = generate_latest(registry).decode().splitlines()
    found = [line.rsplit(" ", 1) for line in lines if line.startswith("embedding_latency_seconds")]
    return {name.removeprefix("embedding_latency_seconds"): float(value) for name, value in found}


def test_each_latency_is_counted_in_every_bucket_that_it_is_within() -> None:
    latencies, registry = Latencies(), CollectorRegistry()
    registry.register(latencies)
    latencies.observe([0.3, 0.5, 0.51, 3.0])
    latencies.observe([100.0])
    found = shown(registry)
    counts = [found[f'_bucket{{le="{bound}"}}'] for bound in ("0.25", "0.5", "0.75", "2.5", "5.0", "10.0", "+Inf")]
    assert counts == [0, 2, 3, 3, 4, 4, 5]
    assert found["_count"] == 5
    assert found["_sum"] == pytest.approx(104.31)


def test_what_was_delivered_was_under_way_since_it_was_received() -> None:
    metrics = Metrics()
    received = time.monotonic() - 100
    metrics.delivered([Tombstone(InputRecord("texts", 0, 0, b"k", None, [], 0.0, received))])
    found = shown(metrics.registry)
    assert found["_count"] == 1
    assert found["_sum"] >= 100


def test_buckets_are_shown_before_anything_is_delivered() -> None:
    assert shown(Metrics().registry)['_bucket{le="+Inf"}'] == 0
