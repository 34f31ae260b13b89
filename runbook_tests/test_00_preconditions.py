"""
Step 0 - Preconditions [Vorbedingungen].

Before: nothing. Production is not touched.
Proves: backups and credentials are there, RPO and RTO are stated, roles are named, the migration
        version is known, tools and space suffice, and the target can be reached.
Undo:   nothing to undo.
"""

from fixtures.actions.readiness import CheckReadiness
from fixtures.steps import step


@step("s00.ready")
def test_everything_a_restore_needs_is_there(run):
    """All preconditions hold, each asked for and none assumed."""
    ready = run.perform(CheckReadiness())

    assert ready.missing == (), ready.told
