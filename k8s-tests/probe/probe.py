"""What runs in the probe's pod: it prints the API server's version, and serves an empty answer at port 8080."""

import ssl
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

_IDENTITY = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class _Empty(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """The log is for the version alone."""


def _api_version() -> str:
    request = urllib.request.Request("https://kubernetes.default.svc/version")
    request.add_header("Authorization", f"Bearer {(_IDENTITY / 'token').read_text()}")
    context = ssl.create_default_context(cafile=_IDENTITY / "ca.crt")
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return str(answer.read().decode())


print(_api_version(), flush=True)
HTTPServer(("", 8080), _Empty).serve_forever()
