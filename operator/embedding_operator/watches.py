"""Watches of what belongs to pipelines, chosen on the API server's side, so that no other object is ever held here."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from kubernetes.informer import ADDED, DELETED, ERROR, MODIFIED, SharedInformer

from embedding_operator.cluster import WATCHED, Cluster
from embedding_operator.providers import KEDA_API, KEDA_KINDS
from embedding_operator.settings import OperatorSettings
from embedding_operator.store import Key, Store

logger = logging.getLogger(__name__)

# Between two questions whether there is KEDA.
_ABSENT_SECONDS = 10.0


class Watches:
    """Keeps the store as the API server has it, and tells whose object has changed."""

    def __init__(
        self, cluster: Cluster, store: Store, settings: OperatorSettings, changed: Callable[[Key], None]
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._changed = changed
        self._stop = threading.Event()
        self._listed: list[threading.Event] = []
        kinds = (*WATCHED, *(KEDA_KINDS if settings.lag_provider == "keda" else ()))
        self._informers = [
            self._informer(cluster, kind, namespace) for kind in kinds for namespace in settings.namespaces or (None,)
        ]

    def start(self) -> None:
        """Begin to watch; every object that is there comes first."""
        for informer in self._informers:
            informer.start()

    def stop(self) -> None:
        """End every watch."""
        self._stop.set()
        for informer in self._informers:
            informer.stop()

    def wait_until_listed(self, seconds: float) -> bool:
        """Whether everything that is there has been seen; waits at most so long for each kind."""
        return all(listed.wait(seconds) for listed in self._listed)

    def _informer(self, cluster: Cluster, kind: str, namespace: str | None) -> SharedInformer:
        listed = threading.Event()
        self._listed.append(listed)
        lister = cluster.lister(kind, self._stop)

        def list_objects(**parameters: Any) -> Any:
            """List, or watch.

            :return: object
            """
            if kind in KEDA_KINDS:
                self._wait_for_keda(listed)
            if parameters.get("watch"):
                # The informer hands all that was listed to the handlers before it begins to watch.
                listed.set()
            return lister(**parameters)

        informer = SharedInformer(list_objects, namespace=namespace)

        def put(found: Any) -> None:
            self._tell(self._store.put(kind, found))

        informer.add_event_handler(ADDED, put)
        informer.add_event_handler(MODIFIED, put)
        informer.add_event_handler(DELETED, lambda found: self._tell(self._store.drop(kind, found)))
        informer.add_event_handler(ERROR, lambda error: self._warn(kind, error))
        return informer

    def _wait_for_keda(self, listed: threading.Event) -> None:
        """It may come later, and go; without it nothing can be listed, which is no reason to wait with all the rest."""
        while not self._stop.is_set() and not self._cluster.serves(KEDA_API):
            listed.set()
            self._stop.wait(_ABSENT_SECONDS)

    def _warn(self, kind: str, error: Any) -> None:
        if not self._stop.is_set():
            logger.warning("the watch of %s was cut off and goes on: %s", kind, error)

    def _tell(self, key: Key | None) -> None:
        if key is not None:
            self._changed(key)
