"""A model hub on loopback: the few endpoints that downloading a model needs, over directories on disk."""

import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves ``models`` (id → directory); ``requested`` lists the files that were fetched.

    With ``status`` it answers that, and nothing else, to everything.
    """

    def __init__(self, models: Mapping[str, Path], *, status: int | None = None) -> None:
        self._status = status
        self.requested: list[str] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
                """Say nothing."""

        self._models = models
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """For ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, request: http.server.BaseHTTPRequestHandler, *, body: bool) -> None:
        """Answer one request."""
        if self._status is not None:
            request.send_response(self._status)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        path = urllib.parse.urlparse(request.path).path.lstrip("/")
        if path.startswith("api/models/"):
            self._api(request, path.removeprefix("api/models/"))
            return
        model, _, rest = path.partition("/resolve/")
        file = self._models.get(model, Path("/nowhere")) / rest.partition("/")[2]
        if not file.is_file():
            self._refuse(request, "EntryNotFound")
            return
        content = file.read_bytes()
        if body:
            self.requested.append(rest.partition("/")[2])
        request.send_response(200)
        request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if body:
            request.wfile.write(content)

    def _api(self, request: http.server.BaseHTTPRequestHandler, path: str) -> None:
        model, _, revision = path.replace("/tree/", "/revision/").partition("/revision/")
        directory = self._models.get(model)
        if directory is None:
            self._refuse(request, "RepoNotFound")
            return
        if revision not in ("main", "", COMMIT):
            self._refuse(request, "RevisionNotFound")
            return
        files = {file.relative_to(directory).as_posix(): file for file in directory.rglob("*") if file.is_file()}
        if "/tree/" in path:
            answer: object = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": "0" * 40}
                for name, file in sorted(files.items())
            ]
        else:
            siblings = [{"rfilename": name} for name in sorted(files)]
            answer = {"id": model, "modelId": model, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
        content = json.dumps(answer).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def _refuse(self, request: http.server.BaseHTTPRequestHandler, code: str) -> None:
        request.send_response(404)
        request.send_header("X-Error-Code", code)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
