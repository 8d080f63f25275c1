"""How long something may go on before it is acted upon. Pure: it is told the time."""


class Patience:
    """Is over where something has been so for some seconds without a break, and begins anew then."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def is_over(self, now: float, *, so: bool) -> bool:
        """Told time and again whether it is so."""
        if not so:
            self.renew()
            return False
        self._since = now if self._since is None else self._since
        if now - self._since < self._seconds:
            return False
        self.renew()
        return True

    def renew(self) -> None:
        """It isn't so now."""
        self._since = None
