"""Lines that a user of pytest sees whether the test passes or fails."""

from collections.abc import Callable

import pytest


def announcer(config: pytest.Config) -> Callable[[str], None]:
    """Return a function that prints a line beside pytest's own."""
    plugins = config.pluginmanager

    def announce(line: str) -> None:
        with plugins.getplugin("capturemanager").global_and_fixture_disabled():
            reporter = plugins.getplugin("terminalreporter")
            reporter.ensure_newline()
            reporter.write_line(line)

    return announce
