"""A run of the loop in this process, for as long as it is needed."""

from collections.abc import Iterator
from contextlib import contextmanager

from embedding_service.contract.settings import Settings
from embedding_service.encoders.protocol import LoadedModel
from embedding_service.metrics import Metrics
from embedding_service.pipeline import Pipeline


@contextmanager
def running(settings: Settings, model: LoadedModel, metrics: Metrics | None = None) -> Iterator[Pipeline]:
    """Start it; drained at the end."""
    pipeline = Pipeline(settings, model, metrics or Metrics())
    pipeline.start()
    try:
        yield pipeline
    finally:
        pipeline.stop()
        pipeline.join()
