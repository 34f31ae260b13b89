"""Each fault is seen by exactly the checks that must see it, and a clean copy by none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.checks.catalogue import CATALOGUE
from fixtures.postgres.binaries import Binaries
from tests.faults import shapes
from tests.faults.catalogue import FAULTS
from tests.faults.fault import Fault
from tests.faults.schema import STORY
from tests.faults.world import (
    World,
    copy_of,
    done,
    fired,
    incident,
)


@pytest.fixture(scope="session")
def world(public_dir: Path, binaries: Binaries) -> Iterator[World]:
    """Production after its damage, and the stopped copy."""
    with incident(public_dir, binaries, STORY) as made:
        yield made


def test_the_clean_copy_raises_no_alarm(world: World) -> None:
    """Damage and rightful changes of production after the target are told from faults of the restore."""
    with copy_of(world) as copy:
        checks = done(copy, Fault(name="nothing", fires={}))
    declared = [each for group in CATALOGUE.values() for each in group.checks]

    assert fired(checks) == {}
    assert [name for name in checks if not any(each.names(name) for each in declared)] == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_seen(world: World, fault: Fault) -> None:
    """Exactly the expected checks fire."""
    with copy_of(world, fault.target) as copy:
        assert fired(done(copy, fault), unreadable=fault.unreadable) == fault.fires


def test_ten_clean_databases_of_other_shapes_raise_no_alarm(public_dir: Path, binaries: Binaries) -> None:
    """What a database is made of is no fault."""
    with incident(public_dir, binaries, shapes.STORY) as made, copy_of(made) as copy:
        checks = done(copy, Fault(name="nothing", fires={}))

    assert len(shapes.STORY.names) == 10
    assert fired(checks) == {}
