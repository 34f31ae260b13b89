"""
Step 9 - Cut over [Umschalten].

Before: integrity and canary are green; Owner and Reviewer have seen what will be discarded.
Proves: what is served is durable, archived and backed up; every connection string leads to it; no
        session is left on the old database; users are served.
Undo:   at once on failure: maintenance on, the restored database fenced, its rows since the cutover
        kept, connections back.
"""

from fixtures.actions.cutover import ApproveCutover, Commission, LeaveOld, ServeUsers, SwitchOver
from fixtures.steps import step


@step("s09.approved")
def test_two_people_approve_the_cutover(run):
    """Owner and Reviewer approved what was shown to them."""
    approval = run.perform(ApproveCutover())

    assert approval.approved


@step("s09.commissioned")
def test_the_restored_instance_is_fit_to_be_production(run):
    """It is durable after a restart, has production's settings, and archives to a new place."""
    service = run.perform(Commission())

    assert service.durable
    assert service.differences == ()


@step("s09.switched")
def test_every_connection_string_leads_to_the_restored_database(run):
    """The barrier held, and all places now name the restored instance."""
    switched = run.perform(SwitchOver())

    assert switched.broken_conditions == ()
    assert switched.stale_connections == ()


@step("s09.old_idle")
def test_nobody_is_left_on_the_old_database(run):
    """No client session is on the old production, and it refuses writes."""
    old = run.perform(LeaveOld())

    assert old.sessions == 0
    assert not old.writable


@step("s09.served")
def test_users_are_served_and_workers_are_back(run):
    """An outside probe is served, and every worker runs again."""
    served = run.perform(ServeUsers())

    assert served.probe_ok
    assert served.paused_workers == ()
