"""HTTP for Kubernetes and Prometheus: ``/livez``, ``/readyz`` and ``/metrics``."""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from embedding_operator.controller import Controller

_HEADERS = {"Content-Type": CONTENT_TYPE_LATEST}


class Probes:
    """A server on Kopf's own event loop: where that hangs, nothing is answered."""

    def __init__(self, controller: Controller, port: int) -> None:
        self._controller = controller
        self._port = port
        application = web.Application()
        application.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self) -> None:
        """Listen. Raises ``OSError`` where the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, port=self._port).start()

    async def stop(self) -> None:
        """Finish open requests and end."""
        await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return _probe(self._controller.live(), "alive", "a look at a pipeline hangs")

    async def _readyz(self, _: web.Request) -> web.Response:
        return _probe(self._controller.ready(), "ready", "starting or ending")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._controller.metrics.registry), headers=_HEADERS)


def _probe(good: bool, yes: str, no: str) -> web.Response:  # noqa: FBT001 - the answer itself
    return web.json_response({"status": yes if good else no}, status=200 if good else 503)
