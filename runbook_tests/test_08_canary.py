"""
Step 8 - Canary check [Canary-Check].

Before: integrity is green.
Proves: the application works against the restored copy: health and the core routes, as a dry run
        whose writes are provably rolled back.
Undo:   nothing to undo: the canary is ended, nothing was committed.
"""

from fixtures.actions.canary import RunCanary
from fixtures.steps import step


@step("s08.canary")
def test_the_application_works_against_the_restored_database(run):
    """Health and core routes answer right, and no row was changed by asking."""
    canary = run.perform(RunCanary())

    assert canary.wrong_routes == ()
    assert canary.changed_tables == ()
