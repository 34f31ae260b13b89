"""Tools that only some machines have: what could not run for want of them is named, or fails where it must run."""

import os
from typing import NoReturn

import pytest

#: words of the reason by which the end of a session lists what was not run
NEEDS = "NOT RUN, needs "
#: set where these tests must run, as in .ci/run: a missing tool is then a failure
REQUIRED = "RUNBOOK_REQUIRE_TOOLS"


def missing(what: str) -> NoReturn:
    """Leave the test out, by name; fail where nothing may be left out."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{REQUIRED} is set, and this test needs {what}")
    pytest.skip(f"{NEEDS}{what}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what could not run: a missing test is no green one."""
    skipped = terminalreporter.stats.get("skipped", [])
    missed = sorted(
        f"{report.nodeid}: {str(report.longrepr).rpartition(NEEDS)[2].rstrip(')')}"
        for report in skipped
        if NEEDS in str(report.longrepr)
    )
    if missed:
        terminalreporter.section(f"NOT RUN: {len(missed)} tests need a tool this machine lacks", red=True)
        for line in missed:
            terminalreporter.write_line(line)
