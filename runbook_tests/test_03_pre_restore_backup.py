"""
Step 3 - Pre-restore backup [Pre-Restore-Sicherung].

Before: writes are locked, so the copy is the state a rollback goes back to.
Proves: the present state is kept, and the copy can be read back. The base backup of the restore is
        copied meanwhile.
Undo:   nothing to undo; the copy is kept.
"""

from fixtures.actions.safety_copy import KeepPresentState
from fixtures.steps import step


@step("s03.safety_copy")
def test_the_present_state_is_kept_and_readable(run):
    """The safety copy was read back, not only written."""
    copy = run.perform(KeepPresentState())

    assert copy.proven
    assert copy.differences == ()
