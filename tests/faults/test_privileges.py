"""Faults of privileges are seen by exactly the checks that must see them."""

from dataclasses import replace

import pytest

from fixtures.checks import privileges
from fixtures.checks.fingerprint import lock_layers
from tests.faults.fault import Fault
from tests.faults.privileges import FAULTS
from tests.faults.world import World, copy_of, fired, seen, started


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_privileges_is_seen(world: World, fault: Fault) -> None:
    """Exactly the expected checks fire."""
    assert seen(world, fault) == fault.fires


def test_only_what_the_lock_changes_is_left_out_where_it_was_lifted(world: World) -> None:
    """One role's log-in and the databases' doors are the runbook's doing; another role's log-in is not."""
    with copy_of(world) as copy, started(copy):
        copy.sql("ALTER ROLE auditor NOLOGIN", "ALTER DATABASE ledger CONNECTION LIMIT 7")
        lifted = replace(copy.subject(), lifted=lock_layers("auditor", ["ledger"]))
        left_out = fired({check.id: check for check in privileges.check(lifted)})
        told = fired({check.id: check for check in privileges.check(copy.subject())})
        copy.sql("ALTER ROLE reader LOGIN")
        another = fired({check.id: check for check in privileges.check(lifted)})

    assert left_out == {}
    assert told == {"privileges.roles": "fail", "privileges.databases": "fail"}
    assert another == {"privileges.roles": "fail"}
