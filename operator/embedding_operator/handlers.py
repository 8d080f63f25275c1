"""Kopf's registrations: something about a pipeline may have changed. What follows from it is not decided here.

Only ``on.event``: Kopf's other handlers write annotations and finalizers, and what they miss they miss for good.
"""

import asyncio
import logging
from typing import Any

import kopf

from embedding_operator.controller import Controller
from embedding_operator.observed import Object
from embedding_operator.probes import Probes

logger = logging.getLogger(__name__)

# A watch without an end can hang in silence.
_WATCH_SECONDS = 300


def registry(controller: Controller, probes: Probes) -> kopf.OperatorRegistry:
    """All that Kopf is asked to do."""
    found = kopf.OperatorRegistry()

    @kopf.on.startup(registry=found)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
        await probes.start()
        await asyncio.to_thread(controller.start)
        logger.info("ready")

    @kopf.on.cleanup(registry=found)
    async def stop(**_: Any) -> None:
        await asyncio.to_thread(controller.stop)
        await probes.stop()

    @kopf.on.login(registry=found)
    async def log_in(**given: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**given) or kopf.login_with_kubeconfig(**given)

    @kopf.on.event("embeddings.dev", "v1alpha1", "embeddingpipelines", registry=found)
    async def changed(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - Kopf's name
        controller.seen(type, _plain(body))

    return found


def configure(settings: kopf.OperatorSettings) -> None:
    """Kopf as this operator uses it."""
    settings.watching.server_timeout = _WATCH_SECONDS
    settings.watching.client_timeout = _WATCH_SECONDS + 30
    # Every kind is known; nothing of the cluster's other resources is looked at.
    settings.scanning.disabled = True
    settings.peering.standalone = True
    # Events are posted for transitions of a pipeline, not for log lines.
    settings.posting.enabled = False


def _plain(body: kopf.Body) -> Object:
    """Kopf's view of an object as the object itself."""
    return {str(key): value for key, value in body.items()}
