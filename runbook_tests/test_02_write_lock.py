"""
Step 2 - Lock writes [Schreibzugriff sperren].

Before: the Owner typed production's name back.
Proves: maintenance is on, workers are paused, the database refuses writes through every declared
        entrance, and no client commits any more.
Undo:   at --release only: a rollback leaves the lock in place.
"""

from fixtures.actions.write_lock import LockWrites, ProveLock
from fixtures.steps import step


@step("s02.writes_locked")
def test_writes_are_locked_in_every_layer(run):
    """Application, workers, new connections, open sessions and the database are closed to writes."""
    locked = run.perform(LockWrites())

    assert locked.maintenance
    assert locked.running_workers == ()
    assert locked.open_layers == ()


@step("s02.lock_proven")
def test_no_client_commits_any_more(run):
    """Between two positions no client committed, nothing waits prepared, every entrance refuses."""
    proof = run.perform(ProveLock())

    assert proof.client_commits == 0
    assert proof.accepting_entrances == ()
