"""Lines that a user of pytest sees whether the test passes or fails."""

import sys
from collections.abc import Callable

import pytest


def announcer(config: pytest.Config) -> Callable[[str], None]:
    """Return a function that prints a line beside pytest's own."""
    plugins = config.pluginmanager

    def announce(line: str) -> None:
        reporter = plugins.getplugin("terminalreporter")
        with plugins.getplugin("capturemanager").global_and_fixture_disabled():
            if reporter is None:
                # A process of several, which has no terminal, hands its error output on.
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()
                return
            reporter.ensure_newline()
            reporter.write_line(line)

    return announce
