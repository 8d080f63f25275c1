"""A clock for tests, whose time passes when told."""

import pytest


class Clock:
    """Seconds."""

    def __init__(self) -> None:
        """Begin somewhere."""
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Give a test a clock of its own."""
    return Clock()
