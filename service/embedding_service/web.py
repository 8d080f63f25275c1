"""HTTP: the original service's endpoints, the probes and the metrics, on Starlette; and the thread that serves them."""

import errno
import hmac
import socket
import threading
from collections.abc import Awaitable, Callable

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.settings import HttpSettings
from embedding_service.contract.stats import State
from embedding_service.queries import Refusal
from embedding_service.web_embeddings import EmbeddingsEndpoint, refused
from embedding_service.worker import Worker

Endpoint = Callable[[Request], Response]
AsyncEndpoint = Callable[[Request], Awaitable[Response]]

_HEALTH = {
    State.LOADING: "starting",
    State.CONNECTING: "starting",
    State.RUNNING: "healthy",
    State.DRAINING: "draining",
    State.STOPPED: "stopped",
    State.FAILED: "failed",
}
_UNAUTHORIZED = "expected the header Authorization: Bearer <http.token>"
# A pod's grace is what the drain takes and half a minute.
_FINISH_SECONDS = 10.0
_KAFKA = {True: "connected", False: "unreachable", None: "not used"}


class _Endpoints:
    """What is answered.

    The probes and the metrics never wait, and are answered on the event loop; the rest in Starlette's thread pool,
    which calls of ``/stop`` can fill.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def livez(self, _request: Request) -> Response:
        return _probe(self._worker.live(), "alive", "a stage of the loop hangs")

    async def readyz(self, _request: Request) -> Response:
        return _probe(self._worker.ready(), "ready", self._worker.state.value)

    async def metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self._worker.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    def health(self, _request: Request) -> Response:
        stats = self._worker.stats()
        lost = stats.state is State.RUNNING and not stats.kafka_connected
        return JSONResponse(
            {
                "status": "degraded" if lost else _HEALTH[stats.state],
                "kafka": _KAFKA[stats.kafka_connected],
                "messages_processed": stats.messages_processed,
                "embeddings_generated": stats.embeddings_generated,
                "error_count": stats.error_count,
                "last_processed_timestamp": stats.last_processed_timestamp,
                "model": self._worker.settings.model.name,
            }
        )

    def stats(self, _request: Request) -> Response:
        return JSONResponse(self._worker.stats().model_dump(mode="json"))

    def config(self, _request: Request) -> Response:
        return JSONResponse(self._worker.settings.redacted())

    def start(self, _request: Request) -> Response:
        return JSONResponse({"status": self._worker.start()})

    def stop(self, _request: Request) -> Response:
        return JSONResponse({"status": self._worker.stop()})


def application(worker: Worker) -> Starlette:
    """The routes, each guarded as ``http.control`` says."""
    http, endpoints = worker.settings.http, _Endpoints(worker)
    return Starlette(
        debug=http.debug,
        routes=[
            Route("/livez", endpoints.livez),
            Route("/readyz", endpoints.readyz),
            Route("/metrics", endpoints.metrics),
            Route("/health", _guarded(endpoints.health, http)),
            Route("/stats", _guarded(endpoints.stats, http)),
            Route("/config", _guarded(endpoints.config, http)),
            Route("/start", _guarded(_control(endpoints.start, http), http), methods=["POST"]),
            Route("/stop", _guarded(_control(endpoints.stop, http), http), methods=["POST"]),
            Route("/v1/embeddings", _guarded_as_openai(EmbeddingsEndpoint(worker), http), methods=["POST"]),
        ],
    )


def _probe(good: bool, yes: str, no: str) -> Response:  # noqa: FBT001 - the answer itself
    return JSONResponse({"status": yes if good else no}, status_code=200 if good else 503)


def _guarded(endpoint: Endpoint, http: HttpSettings) -> Endpoint:
    """Ask for the bearer token where ``http.control`` is ``token``."""
    if http.control != "token":
        return endpoint

    def guard(request: Request) -> Response:
        if _is_authorized(request, http):
            return endpoint(request)
        return JSONResponse({"error": _UNAUTHORIZED}, status_code=401, headers={"WWW-Authenticate": "Bearer"})

    return guard


def _guarded_as_openai(endpoint: AsyncEndpoint, http: HttpSettings) -> AsyncEndpoint:
    """The same, in the words of OpenAI."""

    async def guard(request: Request) -> Response:
        if http.control != "token" or _is_authorized(request, http):
            return await endpoint(request)
        return refused(Refusal(401, _UNAUTHORIZED, code="invalid_api_key"))

    return guard


def _is_authorized(request: Request, http: HttpSettings) -> bool:
    expected = http.token.get_secret_value().encode() if http.token is not None else b""
    # Starlette decodes headers as Latin-1; this is what was sent.
    scheme, _, token = request.headers.get("authorization", "").encode("latin-1").partition(b" ")
    return scheme.lower() == b"bearer" and bool(expected) and hmac.compare_digest(token, expected)


def _control(endpoint: Endpoint, http: HttpSettings) -> Endpoint:
    """Refuse where ``http.control`` is ``off``."""
    if http.control != "off":
        return endpoint

    def refuse(_request: Request) -> Response:
        return JSONResponse({"error": "http.control is off: this worker isn't controlled by HTTP"}, status_code=403)

    return refuse


class HttpServer:
    """Serves the application in a thread of its own; the main thread keeps the signals."""

    def __init__(self, worker: Worker) -> None:
        http = worker.settings.http
        self._socket = _bind(http)
        # Behind a sidecar every caller is loopback: its X-Forwarded-For must not be believed.
        config = uvicorn.Config(
            application(worker), log_config=None, access_log=False, proxy_headers=False, lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="http", daemon=True
        )

    def start(self) -> None:
        """Serve. The socket listens already, so a client that comes at once is not refused."""
        self._thread.start()

    def stop(self) -> None:
        """Finish open requests and end; a client that doesn't read its answer isn't waited for."""
        self._server.should_exit = True
        self._thread.join(_FINISH_SECONDS)
        self._socket.close()


def _bind(http: HttpSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in http.host else socket.AF_INET
    try:
        return socket.create_server((http.host, http.port), family=family, backlog=128)
    except OSError as error:
        where = f"can't listen on {http.host}:{http.port}"
        if error.errno == errno.EADDRINUSE:
            raise Termination(
                TerminationReason.PORT_IN_USE, f"http.port: {http.port}: {where}: in use; expected a free port"
            ) from None
        raise Termination(
            TerminationReason.CONFIGURATION_INVALID,
            f"http.host: '{http.host}': {where}: {error.strerror}; expected an address of this machine",
        ) from None
