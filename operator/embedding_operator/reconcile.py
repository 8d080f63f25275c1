"""The reconcile of one pipeline: observe → decide → act → status. Safe at any time, any number of times."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from kubernetes.dynamic.exceptions import DynamicApiError, NotFoundError
from pydantic import ValidationError
from urllib3.exceptions import HTTPError

from embedding_operator import events, names, placement, refusals, scaling, status
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.brokers import Brokers, BrokersError
from embedding_operator.claims import claim
from embedding_operator.cluster import Cluster
from embedding_operator.conditions import Condition, conditions, unreadable
from embedding_operator.credentials import connection
from embedding_operator.deletion import Deletion
from embedding_operator.desired.deployment import DEPLOYMENT, running
from embedding_operator.desired.state import desired_state
from embedding_operator.memory import Memory
from embedding_operator.metrics import PipelineFigures
from embedding_operator.observe import Observer
from embedding_operator.observed import Object, Observed, Problem
from embedding_operator.plan import Plan, decide, secrets_checksum
from embedding_operator.settings import FIGURES_SECONDS, OperatorSettings
from embedding_operator.store import Key, Store
from embedding_service.contract.problems import problems_of

logger = logging.getLogger(__name__)

# Exported figures outlast a look or two that fail, and no more.
_TOLD_LOOKS = 3


class Reconciler:
    """Makes what is there as a pipeline says, and writes to its status what is so."""

    def __init__(
        self,
        cluster: Cluster,
        brokers: Brokers,
        store: Store,
        settings: OperatorSettings,
        wake: Callable[[Key], None],
        figures: PipelineFigures,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._brokers = brokers
        self._store = store
        self._settings = settings
        self._wake = wake
        self._figures = figures
        self._memory = Memory(clock)
        self._observer = Observer(cluster, brokers, store, self._memory, settings)
        self._deletion = Deletion(cluster, brokers, store, self._observer)

    def take_over(self) -> None:
        """Learn from the statuses of all pipelines in the store what another process granted."""
        for stored in self._store.pipelines():
            cluster_id = (stored.get("status") or {}).get("kafkaClusterId")
            if cluster_id is None:
                continue
            try:
                held = claim(EmbeddingPipeline.model_validate(stored), cluster_id)
            except ValidationError:
                continue
            self._memory.seed((stored["metadata"]["namespace"], stored["metadata"]["name"]), held)

    def reconcile(self, key: Key) -> float | None:
        """Look at a pipeline once. Returns the seconds until the next look, ``None`` where there is nothing left.

        Raises what ``Cluster`` raises.
        """
        stored = self._store.pipeline(key)
        if stored is None:
            self._memory.forget(key)
            self._figures.withdraw(key)
            # What it had is free now.
            for waiting in self._memory.waiting():
                self._wake(waiting)
            return None
        try:
            return self._reconcile(key, stored, EmbeddingPipeline.model_validate(stored))
        except ValidationError as error:
            # Stored under a schema that was replaced since, or where its rules were not applied.
            self._figures.withdraw(key)
            if stored["metadata"].get("deletionTimestamp") is not None:
                self._deletion.let_go(stored)
            else:
                self._write_unreadable(key, stored, error)
            return self._settings.resync_seconds
        except NotFoundError:
            if self._cluster.get("EmbeddingPipeline", *key) is not None:
                raise
            self._store.drop_pipeline(stored)
            return 0

    def _reconcile(self, key: Key, stored: Object, pipeline: EmbeddingPipeline) -> float | None:
        self._memory.meet(key, pipeline.metadata.uid)
        if pipeline.metadata.deletion_timestamp is not None:
            self._figures.withdraw(key)
            return self._deletion.go_on(key, stored, pipeline)
        stored = self._deletion.set_finalizer(stored, pipeline)
        replicas = scaling.kept_replicas(pipeline, self._store.owned(key)[0])
        refused = None
        if replicas is not None:
            refused = self._refused(key, lambda: self._set_replicas(stored, replicas))
            if refused is None:
                return 0
        # Where that is refused the pipeline goes on as it stands written, and its status tells.
        observed = replace(self._observe(key, pipeline), rejected=refused)
        plan = self._plan(key, observed)
        observed, created = self._act(key, observed, plan)
        if created:
            # That they are ours has to outlive this process.
            observed = self._observe(key, pipeline)
            plan = self._plan(key, observed)
        elif observed.rejected is None:
            # Once everything is as it should be: until then, workers may tell of the model before a change.
            observed = replace(observed, model=self._observer.model(key, observed))
        self._write_status(key, stored, observed, conditions(observed, plan))
        return 0 if created else self._until_next(key)

    def _observe(self, key: Key, pipeline: EmbeddingPipeline) -> Observed:
        """Look, and export what is about to stand in the status."""
        observed = self._observer.observe(key, pipeline)
        if observed.progress is None:
            self._figures.withdraw(key)
        else:
            self._figures.tell(key, observed.progress.lag, observed.rate, _TOLD_LOOKS * self._until_next(key))
        return observed

    def _until_next(self, key: Key) -> float:
        """Seconds until the next look."""
        # Each time that is spent on what hangs is taken from the others.
        return max(self._settings.look_seconds(len(self._store)), self._memory.patience(key))

    def _set_replicas(self, stored: Object, replicas: int) -> None:
        """Go on with as many workers as there are: autoscaling was switched off."""
        self._store.put_pipeline(self._cluster.set_replicas(stored, replicas))

    def _plan(self, key: Key, observed: Observed) -> Plan:
        """What is to be done. The objects are not built again where nothing has changed since they were right."""
        versions = {kind: found["metadata"]["resourceVersion"] for kind, found in observed.objects.items()}
        checksum = secrets_checksum(observed)
        partitions = scaling.cap(observed)
        stopped, served = observed.stopped, observed.provider_served
        state = (observed.pipeline.metadata.generation, checksum, partitions, stopped, served, versions)
        if self._memory.settled(key) == state:
            return decide(observed, ())
        live, placed = observed.objects.get(DEPLOYMENT), placement.placed(observed.pods, observed.now)
        built = desired_state(
            observed.pipeline, self._settings, checksum, partitions, live=live, placed=placed, stopped=stopped
        )
        plan = decide(observed, built)
        if not plan.apply:
            self._memory.settle(key, state)
        return plan

    def _act(self, key: Key, observed: Observed, plan: Plan) -> tuple[Observed, bool]:
        """Do what is planned. Returns what was refused with what was observed, and whether topics were created.

        Those come first and alone: what else is to be done depends on what they turn out to be.
        """
        topic_problem, created = self._change_topics(key, observed, plan)
        if created:
            return observed, True
        rejected = self._refused(key, lambda: self._write_objects(observed, plan)) or observed.rejected
        # As they are now, or a status would call ready what was changed a moment ago.
        objects, pods = self._store.owned(key)
        observed = replace(observed, objects=objects, pods=pods)
        return replace(observed, topic_problem=topic_problem, rejected=rejected), False

    def _change_topics(self, key: Key, observed: Observed, plan: Plan) -> tuple[Problem | None, bool]:
        """Do what is planned at the brokers. Returns what was refused, and whether topics were created."""
        # A pipeline that went away during this look may have had its topics deleted by whoever took it away.
        if not plan.topics or self._store.pipeline(key) is None:
            return None, False
        client = self._brokers.client(connection(observed.pipeline, observed.secrets))
        try:
            created, problem = client.create(plan.topics.create)
            self._memory.remember_created(key, created.values())
            client.change(plan.topics)
        except BrokersError as error:
            return error.problem, False
        if created:
            events.created_topics(self._cluster, observed.pipeline, created)
        self._memory.forget_configs(key)
        # Only for new topics: what brokers alter to something else than was asked for would be looked at without end.
        return problem, bool(created) and problem is None

    def _refused(self, key: Key, write: Callable[[], None]) -> Problem | None:
        """Write something in the cluster. Returns what was refused, where a status is to tell."""
        try:
            write()
        except (DynamicApiError, HTTPError) as error:
            problem = refusals.problem(error, self._memory.broken(key, now=refusals.is_broken(error)))
            if problem is None:
                raise
            return problem
        self._memory.broken(key, now=False)
        return None

    def _write_objects(self, observed: Observed, plan: Plan) -> None:
        live = observed.objects.get(DEPLOYMENT)
        if plan.release_replicas and live is not None:
            self._cluster.release_replicas(live)
        # Down comes first: who may no longer run, be it by a conflict, doesn't go on because something is refused, and
        # doesn't read what is meant for later.
        down = live is not None and plan.scale is not None and plan.scale < running(live)
        if down:
            self._scale(observed, plan)
        for kind, found in plan.delete:
            self._cluster.delete(found, kind)
            self._store.drop(kind, found)
        for built in plan.apply:
            self._store.put(built["kind"], self._cluster.apply(built))
        if not down:
            self._scale(observed, plan)

    def _scale(self, observed: Observed, plan: Plan) -> None:
        if plan.scale is not None:
            metadata = observed.pipeline.metadata
            self._cluster.scale(metadata.namespace, names.worker(observed.pipeline), plan.scale)

    def _write_unreadable(self, key: Key, stored: Object, error: ValidationError) -> None:
        found = problems_of(error, EmbeddingPipeline, frozenset())
        told = unreadable("; ".join(f"{problem.key.lstrip('.')}: {problem.text}" for problem in found))
        before = stored.get("status") or {}
        wanted = status.unreadable(stored, told, _now())
        if wanted != before:
            logger.error("%s/%s can't be read: %s", *key, told.message)
            self._store.put_pipeline(self._cluster.write_status(stored, wanted))

    def _write_status(self, key: Key, stored: Object, observed: Observed, found: tuple[Condition, ...]) -> None:
        wanted = status.status(observed, found, _now())
        before = observed.status
        # Without a rate: what a process before this one wrote says more, and is most often still so.
        due = observed.rate is not None and self._memory.figures_due(key, FIGURES_SECONDS)
        if not status.worth_writing(before, wanted, figures_due=due):
            return
        self._store.put_pipeline(self._cluster.write_status(stored, wanted))
        self._memory.wrote_figures(key)
        events.transitions(self._cluster, observed.pipeline, before, found)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
