"""``POST /v1/embeddings``: reads a bounded body, waits for the answer, counts."""

import asyncio
import logging
import time
from contextlib import ExitStack

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from embedding_service.queries import MAX_BODY_BYTES, Refusal, answer, parse
from embedding_service.query_stage import overload
from embedding_service.worker import Worker

logger = logging.getLogger(__name__)

# Bounds the memory of bodies and answers, and how long a text waits that shares batches with one of each other request.
_MAX_REQUESTS = 64
_BODY_SECONDS = 30.0
# For each part of an answer. A client that has died is noticed much later.
_PART_SECONDS = 30.0
_PART_BYTES = 256 * 1024
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
            response = await self._answer(request)
        except Refusal as refusal:
            response = refused(refusal)
        except Exception:
            logger.exception("a query failed")
            response = refused(Refusal.of_server(500, "this worker has failed; its log says why", "internal_error"))
        self._worker.metrics.query(response.status_code, time.monotonic() - started)
        return response

    async def _answer(self, request: Request) -> Response:
        if self._requests >= _MAX_REQUESTS:
            raise overload(f"{self._requests} requests wait already, or their answers are being read")
        self._requests += 1
        with ExitStack() as place:
            place.callback(self._leave)
            body = await _read(request)
            model = self._worker.settings.model.name
            # In threads: a megabyte of JSON would hold up the probes.
            query = await asyncio.to_thread(parse, body, model)
            queries = self._worker.queries
            if queries is None:
                raise Refusal.of_server(503, "the model is being loaded", "model_loading", _LOADING_RETRY_SECONDS)
            found = await asyncio.wrap_future(queries.ask(query.texts))
            content = await asyncio.to_thread(answer, query, found, model)
            return _Answer(content, place.pop_all())

    def _leave(self) -> None:
        self._requests -= 1


class _Answer(Response):
    """Vectors, which keep their request's place until the client has read them."""

    media_type = "application/json"

    def __init__(self, content: bytes, place: ExitStack) -> None:
        super().__init__(content)
        self._place = place

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it, in parts: the server takes one at once, and the next when the client has read the last."""
        with self._place:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                # Up to an empty one.
                for start in range(0, len(self.body) + _PART_BYTES, _PART_BYTES):
                    part = self.body[start : start + _PART_BYTES]
                    async with asyncio.timeout(_PART_SECONDS):
                        await send({"type": "http.response.body", "body": part, "more_body": bool(part)})
            except TimeoutError:
                # The server closes a connection whose answer isn't whole.
                logger.warning("a client hasn't read its answer for %g s: it doesn't get the rest", _PART_SECONDS)


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
