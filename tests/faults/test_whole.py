"""Faults of the whole are seen by exactly the checks that must see them."""

import pytest

from tests.faults.cluster import FAULTS
from tests.faults.fault import Fault
from tests.faults.world import World, seen


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_the_whole_is_seen(world: World, fault: Fault) -> None:
    """Exactly the expected checks fire."""
    assert seen(world, fault) == fault.fires
