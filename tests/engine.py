"""A container engine for tests: found or said to be missing, images built for them, what is in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.drill.containers.engine import Engine
from fixtures.drill.image.build import build
from fixtures.errors import ToolError
from fixtures.settings import Containers

#: words of the reason by which the end of a session lists what was not run
NEEDS_ENGINE = "needs a container engine"
#: set where these tests must run, as in .ci/run: a missing engine is then a failure
REQUIRED = "RUNBOOK_REQUIRE_ENGINE"
#: of the pinned wheel
WHEEL_MAJOR = 18
#: majors an image can be built of here: the distribution's packages', and the wheel's
MAJORS = tuple(
    sorted(
        {WHEEL_MAJOR}
        | {major for major in Containers().majors if Path(f"/usr/lib/postgresql/{major}/bin/initdb").exists()}
    )
)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what could not run for want of a container engine: a missing test is no green one."""
    skipped = terminalreporter.stats.get("skipped", [])
    missed = sorted(report.nodeid for report in skipped if NEEDS_ENGINE in str(report.longrepr))
    if missed:
        terminalreporter.section(f"NOT RUN: {len(missed)} tests need a container engine", red=True)
        for name in missed:
            terminalreporter.write_line(name)


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The engine of this machine."""
    try:
        return Engine.open()
    except ToolError as error:
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, and {error.fact}: {error.where}")
        pytest.skip(f"{NEEDS_ENGINE}: {error.fact}")


@pytest.fixture(scope="session")
def image(engine: Engine) -> Iterator[str]:
    """Images of our recipe, one per major version; `{major}` in the name stands for it."""
    pattern = f"restore-runbook-test-{os.getpid()}:{{major}}"
    made = [pattern.replace("{major}", str(major)) for major in MAJORS]
    for major, tag in zip(MAJORS, made, strict=True):
        build(major, tag=tag)
    yield pattern
    for tag in made:
        engine.client.images.remove(tag, force=True)


def everything_in(engine: Engine) -> set[str]:
    """Return what would be left over: containers, networks and volumes, by name."""
    found = [
        *engine.client.containers.list(all=True, ignore_removed=True),
        *engine.client.networks.list(),
        *engine.client.volumes.list(),
    ]
    return {f"{type(each).__name__} {each.name}" for each in found}
