"""A container engine for tests: found or named as missing, images built for them, what is in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.drill.containers.engine import Engine
from fixtures.drill.image.build import build
from fixtures.errors import ToolError
from fixtures.settings import Containers
from tests.missing import missing

#: of the pinned wheel
WHEEL_MAJOR = 18
#: majors an image can be built of here: the distribution's packages', and the wheel's
MAJORS = tuple(
    sorted(
        {WHEEL_MAJOR}
        | {major for major in Containers().majors if Path(f"/usr/lib/postgresql/{major}/bin/initdb").exists()}
    )
)


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The engine of this machine."""
    try:
        return Engine.open()
    except ToolError:
        missing("a container engine")


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
