"""What the API server answers to a write of an object, and which of it a status tells."""

from kubernetes.dynamic.exceptions import DynamicApiError
from urllib3.exceptions import HTTPError, MaxRetryError, ReadTimeoutError

from embedding_operator.cluster import refusal
from embedding_operator.observed import Problem
from embedding_operator.reasons import Reason

# What the API server says of an object itself; the rest is about the request, and may be better the next time.
_FINAL = frozenset({400, 403, 413, 422})
_BROKEN = 500
# A restart of the API server or an election in etcd is over by then. Longer, and with the status itself being written
# by the same server, it is about these objects: most often an admission webhook that doesn't answer.
_PATIENCE_SECONDS = 10.0


def is_broken(error: DynamicApiError | HTTPError) -> bool:
    """Whether the API server, or what it asks, can't do its work. A connection that isn't made says nothing."""
    if isinstance(error, DynamicApiError):
        return int(error.status or 0) >= _BROKEN
    return isinstance(error.reason if isinstance(error, MaxRetryError) else error, ReadTimeoutError)


def problem(error: DynamicApiError | HTTPError, broken_seconds: float) -> Problem | None:
    """What a status says of it; ``None`` where the request is merely to be made again.

    ``broken_seconds`` is for how long nothing but broken answers has come.
    """
    if isinstance(error, DynamicApiError) and error.status in _FINAL:
        message = f"the API server refuses an object of this pipeline: {refusal(error)}"
        advice = "change the spec that it comes from, or what the namespace allows"
        return Problem(Reason.REJECTED, f"{message}; {advice}")
    if is_broken(error) and broken_seconds >= _PATIENCE_SECONDS:
        said = refusal(error) if isinstance(error, DynamicApiError) else "it doesn't answer in time"
        message = f"the API server can't write an object of this pipeline: {said}"
        advice = "mend what this names, such as an admission webhook that doesn't answer; it is tried again by itself"
        return Problem(Reason.WRITE_FAILED, f"{message}; {advice}")
    return None
