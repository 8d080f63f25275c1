"""How long each folder of tests took, at the end of a run."""

from collections import defaultdict

import pytest

_seconds: defaultdict[str, float] = defaultdict(float)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add a test's set-up, call or end to its folder."""
    # A parameter may hold slashes, too.
    file = report.nodeid.partition("::")[0]
    _seconds[file.rpartition("/")[0]] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each folder."""
    terminalreporter.section("time by stage")
    for stage, seconds in _seconds.items():
        terminalreporter.write_line(f"{stage}: {seconds / 60:.1f} min")
