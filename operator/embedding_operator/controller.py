"""The operator at work: watches feed a queue of pipelines, and a few threads look at one after the other."""

import logging
import threading
import time

from kubernetes.client import ApiClient
from kubernetes.dynamic.exceptions import ConflictError, DynamicApiError, NotFoundError
from urllib3.exceptions import HTTPError

from embedding_operator.brokers import Brokers
from embedding_operator.cluster import Cluster
from embedding_operator.due import DueQueue
from embedding_operator.metrics import Metrics
from embedding_operator.observed import Object
from embedding_operator.reconcile import Reconciler
from embedding_operator.settings import OperatorSettings
from embedding_operator.store import Key, Store
from embedding_operator.watches import Watches

logger = logging.getLogger(__name__)

# Looks mostly wait for the API server and the brokers.
_THREADS = 8
_LIST_SECONDS = 60.0
# Longer than every request of a look taken together.
_LIVE_SECONDS = 300.0
_CONFLICT_SECONDS = 0.2


class CrdMissingError(Exception):
    """The cluster doesn't know the resource."""


class Controller:
    """Everything but Kopf, which tells it of pipelines. Safe to use from every thread."""

    def __init__(self, settings: OperatorSettings, client: ApiClient) -> None:
        self.metrics = Metrics()
        self._settings = settings
        self._cluster = Cluster(client)
        self._store = Store()
        self._queue = DueQueue()
        self._reconciler = Reconciler(
            self._cluster, Brokers(), self._store, settings, self._queue.add, self.metrics.figures
        )
        self._watches = Watches(self._cluster, self._store, settings, self._queue.add)
        self._threads = [threading.Thread(target=self._work, name=f"look-{n}", daemon=True) for n in range(_THREADS)]
        # Since when each thread is at a look. Not by pipeline: one whose look is over may be another thread's at once.
        self._busy: dict[int, float] = {}
        self._ready = False

    def start(self) -> None:
        """Learn what is there, and begin. Raises ``CrdMissingError``, and what ``Cluster`` raises."""
        for namespace in self._settings.namespaces or (None,):
            for pipeline in self._pipelines(namespace):
                # A list leaves these out of its items, and events of a watch don't.
                pipeline |= {"apiVersion": "embeddings.dev/v1alpha1", "kind": "EmbeddingPipeline"}
                self._queue.add(self._store.put_pipeline(pipeline), 0)
        self.metrics.pipelines.set(len(self._store))
        self._reconciler.take_over()
        self._watches.start()
        if not self._watches.wait_until_listed(_LIST_SECONDS):
            raise TimeoutError(f"the API server didn't list what belongs to pipelines within {_LIST_SECONDS:.0f} s")
        for thread in self._threads:
            thread.start()
        self._ready = True

    def stop(self) -> None:
        """Finish what is being looked at, and end."""
        self._ready = False
        self._queue.close()
        self._watches.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def seen(self, event: str | None, pipeline: Object) -> None:
        """Kopf saw a pipeline; ``event`` is ``DELETED``, another change, or unset for one that was there before."""
        if event != "DELETED" and self._store.knows(pipeline):
            return
        key = self._store.drop_pipeline(pipeline) if event == "DELETED" else self._store.put_pipeline(pipeline)
        self.metrics.pipelines.set(len(self._store))
        self._queue.add(key, 0)

    def ready(self) -> bool:
        """Whether everything that is there is known and looked after."""
        return self._ready

    def live(self) -> bool:
        """Whether no look hangs."""
        now = time.monotonic()
        alive = not self._ready or all(thread.is_alive() for thread in self._threads)
        return alive and all(now - since < _LIVE_SECONDS for since in list(self._busy.values()))

    def _pipelines(self, namespace: str | None) -> list[Object]:
        try:
            found: list[Object] = self._cluster.list_all("EmbeddingPipeline", namespace)["items"]
        except NotFoundError:
            raise CrdMissingError(
                "the cluster has no resource embeddingpipelines.embeddings.dev; install the CRD, by the chart's "
                "crds.enabled or with kubectl apply --server-side -f crds/"
            ) from None
        return found

    def _work(self) -> None:
        thread = threading.get_ident()
        while (key := self._queue.take()) is not None:
            self._busy[thread] = time.monotonic()
            with self.metrics.seconds.time():
                result = self._look(key)
            del self._busy[thread]
            self.metrics.reconciles.labels(result).inc()
            self.metrics.waiting.set(len(self._queue))

    def _look(self, key: Key) -> str:
        try:
            delay = self._reconciler.reconcile(key)
        except ConflictError:
            # Somebody changed it meanwhile; the watch is about to tell.
            self._queue.done(key, _CONFLICT_SECONDS)
            return "conflict"
        except (DynamicApiError, HTTPError) as error:
            logger.warning("%s/%s: %s; again in %.0f s", *key, error, self._queue.failed(key))
            return "api-error"
        except Exception:
            logger.exception("%s/%s: unexpected; again in %.0f s", *key, self._queue.failed(key))
            return "error"
        self._queue.done(key, delay)
        return "ok"
