"""A worker's ``GET /stats``, asked by the operator."""

import time

import urllib3

from embedding_service.contract.stats import ModelStats, Stats

_PORT = 5000
_SECONDS = 2.0
_OK = 200
_CHUNK = 8192
_LARGEST = 64 * 1024
_pool = urllib3.PoolManager(retries=False, timeout=_SECONDS, maxsize=1)


def ask(address: str, token: str | None) -> ModelStats | None:
    """The model that the worker at ``address`` has loaded; ``None`` where it doesn't say.

    Only a status is poorer for it: the network between operator and workers may well be closed.
    """
    host = f"[{address}]" if ":" in address else address
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        answer = _pool.request("GET", f"http://{host}:{_PORT}/stats", headers=headers, preload_content=False)
        try:
            # The image may be anybody's, and what it says without end or a byte at a time.
            body = _read(answer) if answer.status == _OK else None
        finally:
            answer.close()
        return Stats.model_validate_json(body).model if body is not None else None
    except (urllib3.exceptions.HTTPError, ValueError):
        # ValueError: what isn't JSON of this shape, and a token that no header can hold.
        return None


def _read(answer: urllib3.BaseHTTPResponse) -> bytes | None:
    """The body; ``None`` where it is larger, or takes longer, than any worker's."""
    deadline = time.monotonic() + _SECONDS
    body = b""
    while chunk := answer.read1(_CHUNK):
        body += chunk
        if len(body) > _LARGEST or time.monotonic() > deadline:
            return None
    return body
