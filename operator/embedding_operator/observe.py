"""What is there: gathers from the cluster, the brokers and a worker all that a decision about a pipeline rests on."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from embedding_operator import claims, names, scaling, topics, workers
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.brokers import Brokers, BrokersError, Wanted, with_configs
from embedding_operator.cluster import Cluster
from embedding_operator.credentials import connection, gather, http_token, secret_names
from embedding_operator.desired.deployment import DEPLOYMENT
from embedding_operator.memory import Memory
from embedding_operator.observed import Kafka, Object, Observed, Problem, Secrets
from embedding_operator.providers import APIS, AUTOSCALER, SCALED_OBJECT, Provider, provider
from embedding_operator.settings import OperatorSettings
from embedding_operator.store import Key, Store
from embedding_operator.worker_stats import ask
from embedding_service.contract.kafka import Connection
from embedding_service.contract.stats import ModelStats

# The rate is a mean over at least so long.
_RATE_SECONDS = 10.0
_SERVED_SECONDS = 10.0


class Observer:
    """Looks, and changes nothing but its memory."""

    def __init__(
        self, cluster: Cluster, brokers: Brokers, store: Store, memory: Memory, settings: OperatorSettings
    ) -> None:
        self._cluster = cluster
        self._brokers = brokers
        self._store = store
        self._memory = memory
        self._settings = settings
        # When an API that autoscalers go by was last asked for, and whether it is served.
        self._served: dict[str, tuple[float, bool]] = {}

    def observe(self, key: Key, pipeline: EmbeddingPipeline) -> Observed:
        """Everything about a pipeline. Raises what ``Cluster`` raises; what the brokers refuse is part of it."""
        secrets = self.secrets(key, pipeline)
        kafka = secrets.problem or self._kafka(key, pipeline, connection(pipeline, secrets))
        conflict = None
        if isinstance(kafka, Kafka):
            conflict = self._memory.claim(key, claims.claim(pipeline, kafka.cluster_id))
        objects, pods = self._store.owned(key)
        found = Observed(
            pipeline=pipeline,
            objects=objects,
            pods=pods,
            secrets=secrets,
            kafka=kafka,
            now=datetime.now(UTC),
            created=self.created(key, pipeline),
            conflict=conflict,
            lag_provider=self._settings.lag_provider,
            provider_served=self._serves(provider(pipeline, self._settings.lag_provider), objects),
        )
        return replace(found, rate=self._memory.rate(key, found.progress, _RATE_SECONDS))

    def holds_claim(self, key: Key) -> bool:
        """Whether output topic and group are this pipeline's, as of the last look or the status before it."""
        return self._memory.holds(key)

    def created(self, key: Key, pipeline: EmbeddingPipeline) -> frozenset[str]:
        """The ids of topics that were created for the pipeline, by its status and since it was written."""
        # A topic that is missing for a moment falls out of the status; it stays ours.
        self._memory.remember_created(key, topics.created_ids(pipeline))
        return self._memory.created(key)

    def secrets(self, key: Key, pipeline: EmbeddingPipeline) -> Secrets:
        """The Secrets that the pipeline names, never older than a resync when the next look comes."""
        generation = pipeline.metadata.generation
        known = self._memory.secrets(key, generation, self._age())
        if known is not None:
            return known
        namespace = pipeline.metadata.namespace
        found = gather(pipeline, {name: self._cluster.secret(namespace, name) for name in secret_names(pipeline)})
        self._memory.remember_secrets(key, generation, found)
        return found

    def model(self, key: Key, observed: Observed) -> ModelStats | None:
        """What the first worker of the current configuration that is ready has loaded.

        One that answers is asked once, the others at each resync.
        """
        told = workers.configured(observed.objects.get(DEPLOYMENT), observed.pods)
        ready = [pod for pod in told if pod["status"].get("podIP")]
        if not ready or observed.secrets.problem is not None:
            return None
        uids = [str(pod["metadata"]["uid"]) for pod in ready]
        if not self._memory.asked_model(key, uids, self._settings.resync_seconds):
            model = ask(ready[0]["status"]["podIP"], http_token(observed.pipeline, observed.secrets))
            self._memory.remember_model(key, uids[0], model)
        return self._memory.model(key)

    def _serves(self, by: Provider | None, objects: Mapping[str, Object]) -> bool:
        """Whether the cluster serves what an autoscaler goes by; not asked while that is known from its objects."""
        known = SCALED_OBJECT in objects if by is Provider.KEDA else not scaling.lacks_metric(objects.get(AUTOSCALER))
        if by is None or by is Provider.NOBODY or known:
            return True
        api = APIS[by]
        asked, served = self._served.get(api, (float("-inf"), True))
        if time.monotonic() - asked >= _SERVED_SECONDS:
            # It is the same for all pipelines.
            served = self._cluster.serves(api)
            # From the answer on: one that took long is no older for that.
            self._served[api] = (time.monotonic(), served)
        return served

    def _age(self) -> float:
        """Seconds after which what is read once a resync is read again: later, the next look would find it too old."""
        return self._settings.resync_seconds - self._settings.look_seconds(len(self._store))

    def _kafka(self, key: Key, pipeline: EmbeddingPipeline, where: Connection) -> Kafka | Problem:
        names_of = topics.topics(pipeline)
        asked = Wanted(
            input=names_of[topics.Role.INPUT],
            output=names_of[topics.Role.OUTPUT],
            dead_letter=names_of[topics.Role.DEAD_LETTER],
            group=names.consumer_group(pipeline),
            from_earliest=pipeline.spec.input.start_from == "Earliest",
        )
        client = self._brokers.client(where)
        try:
            found = client.observe(asked)
            known = self._memory.configs(key)
            now = time.monotonic()
            old = [
                topic
                for topic in found.topics.values()
                if topic.id not in known or now - known[topic.id][0] >= self._age()
            ]
            for name, config in client.configs(topic.name for topic in old).items():
                known[found.topics[name].id] = (now, config)
        except BrokersError as error:
            return error.problem
        return with_configs(found, {name: known[topic.id][1] for name, topic in found.topics.items()})
