"""What the stages know of a guarantee."""

from collections.abc import Sequence
from typing import Protocol

from embedding_service.records import Outcome


class Delivery(Protocol):
    """Produces outcomes. Used by one thread; acknowledgements reach the ``OffsetTracker``."""

    def deliver(self, outcomes: Sequence[Outcome]) -> None:
        """Hand outcomes to the producer, in order; waits where its queue is full.

        Raises ``Termination`` where outputs can't be produced for a reason that waiting doesn't cure.
        """
        ...

    def flush(self, timeout: float) -> None:
        """Send what lingers, and serve acknowledgements until there are all of them, or for ``timeout`` seconds.

        Raises as ``deliver`` does.
        """
        ...

    def outstanding(self) -> int:
        """Records produced and not yet acknowledged."""
        ...

    def close(self) -> None:
        """Give up what isn't acknowledged; it will be consumed again."""
        ...
