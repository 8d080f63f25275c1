"""What goes wrong with the cluster for tests, in words for the one who runs them."""


class ClusterUnavailable(Exception):  # noqa: N818 - says what is so, and what to do
    """No cluster can be had, or the one that was chosen does not run; the message says what to do."""


class CommandFailed(Exception):  # noqa: N818 - says what is so
    """A command ended with an error; the message has its last words."""
