"""The worker: loads the model once, starts and stops runs of the loop, and says how it stands."""

import atexit
import gc
import logging
import threading
import time
from dataclasses import replace

from embedding_service import __version__
from embedding_service.contract.settings import Settings
from embedding_service.contract.stats import ModelStats, State, Stats
from embedding_service.encoders.protocol import LoadedModel
from embedding_service.metrics import Metrics
from embedding_service.pipeline import Pipeline
from embedding_service.query_stage import QueryStage
from embedding_service.stages import Failure
from embedding_service.turns import share

logger = logging.getLogger(__name__)

# Longer than the worst batch, and than a broker that hangs in a commit.
_LIVE_SECONDS = 120.0


def settle_interpreter() -> None:
    """Have Python's interpreter serve threads that share it with a loaded model."""
    # A million objects of libraries stay for good; looking through them time and again takes a third of the loop.
    gc.freeze()
    # Some complain at the end of what nobody has collected.
    atexit.register(gc.unfreeze)


class Worker:
    """Safe to use from every thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._started = time.monotonic()
        self._control = threading.Lock()
        self._model: LoadedModel | None = None
        self._pipeline: Pipeline | None = None
        self.queries: QueryStage | None = None
        self._query_failure = Failure()
        self._wanted = True
        self._closed = False

    def load(self) -> None:
        """Load the model, and start the loop unless told otherwise meanwhile.

        Raises ``Termination`` where the model can't be loaded.
        """
        logger.info("loading the model %s", self.settings.model.name)
        # Takes seconds: the probes must answer meanwhile.
        from embedding_service.encoders import loading

        model = loading.load(self.settings.model)
        settle_interpreter()
        self.use(model)

    def use(self, model: LoadedModel) -> None:
        """Answer queries with this model, and start the loop with it unless told otherwise."""
        contract = model.contract.fingerprint()
        self.metrics.model_load_seconds.set(model.seconds)
        self.metrics.build_info.labels(__version__, model.name, contract).set(1)
        logger.info(
            "model ready: %s from %s (%s), %d dimensions, at most %d tokens, on %s by %s in %s, contract %s",
            model.name,
            model.source,
            model.path,
            model.encoder.dimension,
            model.encoder.max_length,
            model.device,
            model.backend,
            model.precision,
            contract,
        )
        backlog, interactive = share(model.encoder)
        queries = QueryStage(
            interactive,
            self.settings.engine.max_batch_tokens or model.batch_tokens,
            model.batch_cost,
            self._query_failure,
            rejects_long=self.settings.model.on_overflow == "reject",
        )
        queries.start()
        with self._control:
            self._model = replace(model, encoder=backlog)
            self.queries = queries
            self._run_if_wanted()

    def start(self) -> State:
        """Start the loop where it isn't running; while the model loads: as soon as it is there."""
        with self._control:
            self._wanted = True
            self._run_if_wanted()
            return self.state

    def stop(self) -> State:
        """Stop the loop where it runs: finish what is in the model, commit, leave the group."""
        with self._control:
            self._wanted = False
            if self._pipeline is not None:
                self._pipeline.stop()
                self._pipeline.join()
            return self.state

    def close(self) -> None:
        """Stop for good: a later ``start`` does nothing."""
        with self._control:
            self._closed = True
        self.stop()
        if self.queries is not None:
            self.queries.close()

    def _run_if_wanted(self) -> None:
        idle = self._pipeline is None or not self._pipeline.is_alive()
        if self._model is not None and self._wanted and idle and not self._closed:
            self._pipeline = Pipeline(self.settings, self._model, self.metrics)
            self._pipeline.start()

    @property
    def state(self) -> State:
        """Where the worker stands."""
        if self._model is None:
            return State.LOADING
        return State.STOPPED if self._pipeline is None else self._pipeline.state

    @property
    def failure(self) -> BaseException | None:
        """What ended the loop, where it ended by itself, or why no query can be answered any more."""
        ended = self._pipeline.failure.error if self._pipeline is not None else None
        return ended or self._query_failure.error

    def live(self) -> bool:
        """Whether every stage moves. Says nothing of the brokers."""
        if self.queries is not None and self.queries.busy_seconds() >= _LIVE_SECONDS:
            return False
        pipeline = self._pipeline
        return pipeline is None or not pipeline.is_alive() or pipeline.heartbeat_age() < _LIVE_SECONDS

    def ready(self) -> bool:
        """Whether the model is warm and a first assignment was received; brokers that go away later don't matter."""
        return self.state is State.RUNNING

    def stats(self) -> Stats:
        """All figures, as ``GET /stats`` shows them."""
        counts, pipeline = self.metrics.counts(), self._pipeline
        dead = sum(counts.dead_by_reason.values())
        processed = counts.embedded + dead + counts.tombstones
        return Stats(
            state=self.state,
            kafka_connected=pipeline.connected if pipeline is not None and pipeline.is_alive() else None,
            messages_processed=processed,
            embeddings_generated=counts.embedded,
            error_count=dead,
            errors_by_reason=counts.dead_by_reason,
            tombstones=counts.tombstones,
            truncated=counts.truncated,
            last_processed_timestamp=counts.last_delivered,
            messages_per_minute=counts.per_minute,
            latency_seconds=counts.latency,
            error_rate=dead / processed if processed else 0.0,
            in_flight=pipeline.in_flight if pipeline is not None else 0,
            lag=pipeline.lag if pipeline is not None else {},
            uptime_seconds=time.monotonic() - self._started,
            model=_model_stats(self._model),
        )


def _model_stats(model: LoadedModel | None) -> ModelStats | None:
    if model is None:
        return None
    return ModelStats(
        name=model.name,
        source=model.source,
        path=model.path,
        dimension=model.encoder.dimension,
        max_length=model.encoder.max_length,
        device=model.device,
        backend=model.backend,
        precision=model.precision,
        contract=model.contract.fingerprint(),
    )
