"""What ends a local run early."""


class LocalError(Exception):
    """The run can't start or go on; the message is one sentence for the person who started it."""


class Interrupted(Exception):  # noqa: N818 - asked for, no error
    """SIGINT or SIGTERM came while there was nothing to report yet."""
