"""The end of a pipeline whose topics go with it: workers first, then the group and the topics, then the finalizer.

Without ``deletionPolicy: Delete`` there is no finalizer, and Kubernetes takes everything away by itself.
"""

from datetime import UTC, datetime

from embedding_operator import events, names, topics
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.brokers import Brokers, BrokersError, Wanted
from embedding_operator.cluster import Cluster
from embedding_operator.credentials import connection
from embedding_operator.desired.deployment import DEPLOYMENT, running
from embedding_operator.observe import Observer
from embedding_operator.observed import Object, Problem
from embedding_operator.providers import SCALED_OBJECT
from embedding_operator.reasons import Reason
from embedding_operator.store import Key, Store
from embedding_service.contract.broker_trouble import TroubleReason

_AGAIN_SECONDS = 1.0
# A Kafka that is gone for good must not keep a namespace from being deleted.
_PATIENCE_SECONDS = 300.0
# What only somebody else can mend, and who deletes a pipeline often has no more reason to.
_HOPELESS = frozenset(
    {
        Reason.CONFLICT,
        Reason.SECRET_MISSING,
        TroubleReason.AUTHENTICATION_FAILED,
        TroubleReason.TLS_FAILED,
        TroubleReason.ACCESS_DENIED,
    }
)


def _age(pipeline: EmbeddingPipeline) -> float:
    """Seconds since the deletion was asked for."""
    asked = datetime.fromisoformat(pipeline.metadata.deletion_timestamp or "")
    return (datetime.now(UTC) - asked).total_seconds()


class Deletion:
    """Sets the finalizer where it is needed, and does what it stands for."""

    def __init__(self, cluster: Cluster, brokers: Brokers, store: Store, observer: Observer) -> None:
        self._cluster = cluster
        self._brokers = brokers
        self._store = store
        self._observer = observer

    def set_finalizer(self, stored: Object, pipeline: EmbeddingPipeline) -> Object:
        """Have the finalizer exactly where the policy asks for it. Returns the pipeline as it is stored then."""
        wanted = pipeline.spec.topics.deletion_policy == "Delete"
        if wanted != (names.FINALIZER in pipeline.metadata.finalizers):
            others = [name for name in pipeline.metadata.finalizers if name != names.FINALIZER]
            found = self._cluster.set_finalizers(stored, [*others, names.FINALIZER] if wanted else others)
            self._store.put_pipeline(found)
            return found
        return stored

    def let_go(self, stored: Object) -> None:
        """Take the finalizer away, where it is there: nothing is left to do, or nothing can be done."""
        finalizers = stored["metadata"].get("finalizers") or []
        if names.FINALIZER in finalizers:
            self._cluster.set_finalizers(stored, [name for name in finalizers if name != names.FINALIZER])

    def go_on(self, key: Key, stored: Object, pipeline: EmbeddingPipeline) -> float | None:
        """The next step of the deletion. Returns the seconds until the one after it, ``None`` where all is done."""
        if names.FINALIZER not in pipeline.metadata.finalizers:
            return None
        if pipeline.spec.topics.deletion_policy == "Retain":
            # Somebody thought better of it.
            self.let_go(stored)
            return None
        objects, _ = self._store.owned(key)
        scaled = objects.get(SCALED_OBJECT)
        if scaled is not None and "deletionTimestamp" not in scaled["metadata"]:
            # Or KEDA would start a worker again.
            self._cluster.delete(scaled, SCALED_OBJECT)
        if running(objects.get(DEPLOYMENT)) > 0:
            self._cluster.scale(pipeline.metadata.namespace, names.worker(pipeline), 0)
            return _AGAIN_SECONDS
        problem = self._clean_up(key, pipeline)
        if problem is not None and problem.reason not in _HOPELESS and _age(pipeline) < _PATIENCE_SECONDS:
            return _AGAIN_SECONDS
        if problem is not None:
            message = f"topics and group stay at the brokers: {problem.message}"
            events.post(self._cluster, pipeline, "Warning", "KafkaNotCleanedUp", message)
        self.let_go(stored)
        return None

    def _clean_up(self, key: Key, pipeline: EmbeddingPipeline) -> Problem | None:
        """Delete the group and the topics that are ours. Returns what is in the way."""
        if not self._observer.holds_claim(key):
            return Problem(Reason.CONFLICT, "whether output topic and group are this pipeline's isn't known")
        secrets = self._observer.secrets(key, pipeline)
        if secrets.problem is not None:
            return secrets.problem
        client = self._brokers.client(connection(pipeline, secrets))
        group = names.consumer_group(pipeline)
        try:
            found = topics.topics(pipeline)
            kafka = client.observe(
                Wanted(found[topics.Role.INPUT], found[topics.Role.OUTPUT], found[topics.Role.DEAD_LETTER], group, True)
            )
            client.delete(topics.deletable(pipeline, kafka, self._observer.created(key, pipeline)), group)
        except BrokersError as error:
            # What was remembered may have been mended since: only what is asked now is final.
            return Problem(Reason.UNKNOWN, error.problem.message) if error.remembered else error.problem
        return None
