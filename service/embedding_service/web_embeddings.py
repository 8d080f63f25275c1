"""``POST /v1/embeddings``: reads a bounded body, waits for the answer, counts."""

import asyncio
import logging
import time

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from embedding_service.queries import MAX_BODY_BYTES, Refusal, answer, parse
from embedding_service.query_stage import overload
from embedding_service.worker import Worker

logger = logging.getLogger(__name__)

# Bounds the memory of bodies, and how long a text waits that shares batches with one of each other request.
_MAX_REQUESTS = 64
_BODY_SECONDS = 30.0
_LOADING_RETRY_SECONDS = 5


class EmbeddingsEndpoint:
    """Answers queries, whether the loop runs or not."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        # All of this is done on the event loop: no lock.
        self._requests = 0

    async def __call__(self, request: Request) -> Response:
        """Vectors, or an error body as OpenAI's."""
        started = time.monotonic()
        try:
            response = Response(await self._answer(request), media_type="application/json")
        except Refusal as refusal:
            response = refused(refusal)
        except Exception:
            logger.exception("a query failed")
            response = refused(Refusal.of_server(500, "this worker has failed; its log says why", "internal_error"))
        self._worker.metrics.query(response.status_code, time.monotonic() - started)
        return response

    async def _answer(self, request: Request) -> bytes:
        if self._requests >= _MAX_REQUESTS:
            raise overload(f"{self._requests} requests wait already")
        self._requests += 1
        try:
            body = await _read(request)
            model = self._worker.settings.model.name
            # In threads: a megabyte of JSON would hold up the probes.
            query = await asyncio.to_thread(parse, body, model)
            queries = self._worker.queries
            if queries is None:
                raise Refusal.of_server(503, "the model is being loaded", "model_loading", _LOADING_RETRY_SECONDS)
            found = await asyncio.wrap_future(queries.ask(query.texts))
            return await asyncio.to_thread(answer, query, found, model)
        finally:
            self._requests -= 1


def refused(refusal: Refusal) -> Response:
    """The refusal as OpenAI's clients read it."""
    headers = {}
    if refusal.retry_seconds is not None:
        headers["Retry-After"] = str(refusal.retry_seconds)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(refusal.body(), refusal.status, headers, media_type="application/json")


async def _read(request: Request) -> bytes:
    """The body. Raises ``Refusal`` as soon as it is too large, without the rest of it."""
    too_large = Refusal(413, f"the body is larger than {MAX_BODY_BYTES} bytes", code="body_too_large")
    if int(request.headers.get("content-length", 0)) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise too_large
    except TimeoutError:
        raise Refusal(408, f"the body didn't come within {_BODY_SECONDS:g} s", code="timeout") from None
    except ClientDisconnect:
        raise Refusal(400, "the body was cut off", code="disconnected") from None
    return bytes(body)
