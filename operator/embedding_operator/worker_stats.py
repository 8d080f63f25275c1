"""A worker's ``GET /stats``, asked by the operator."""

import urllib3

from embedding_service.contract.stats import ModelStats, Stats

_PORT = 5000
_SECONDS = 2.0
_OK = 200
_pool = urllib3.PoolManager(retries=False, timeout=_SECONDS, maxsize=1)


def ask(address: str, token: str | None) -> ModelStats | None:
    """The model that the worker at ``address`` has loaded; ``None`` where it doesn't say.

    Only a status is poorer for it: the network between operator and workers may well be closed.
    """
    host = f"[{address}]" if ":" in address else address
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        answer = _pool.request("GET", f"http://{host}:{_PORT}/stats", headers=headers)
        return Stats.model_validate_json(answer.data).model if answer.status == _OK else None
    except (urllib3.exceptions.HTTPError, ValueError):
        # ValueError: what isn't JSON of this shape, and a token that no header can hold.
        return None
