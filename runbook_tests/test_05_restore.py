"""
Step 5 - Run the restore [Restore ausführen].

Before: target and base backup are chosen; production is locked and copied.
Proves: an isolated instance stands at the target, nothing it does can reach production, and what
        the target discards is kept.
Undo:   nothing to undo: production is not touched, the instance is kept for a resume.
"""

from fixtures.actions.pack import KeepDiscarded
from fixtures.actions.restore import OpenRestored, RestoreToTarget, TakeReferences
from fixtures.steps import step


@step("s05.restored")
def test_a_copy_is_replayed_to_the_target_in_isolation(run):
    """The copy stands at the target, and every question about its isolation has the right answer."""
    restored = run.perform(RestoreToTarget())

    assert restored.open_to_the_world == ()
    assert restored.last_commit_within_target


@step("s05.discarded_kept")
def test_discarded_rows_are_kept_in_a_pack(run):
    """Every row written between target and lock is in the after-target pack, or the safety copy holds it."""
    pack = run.perform(KeepDiscarded())

    assert pack.retained


@step("s05.opened")
def test_recovery_is_ended_still_isolated(run):
    """The instance left recovery at the target and is still closed to the world."""
    opened = run.perform(OpenRestored())

    assert not opened.in_recovery
    assert opened.open_to_the_world == ()


@step("s05.references")
def test_references_are_taken_before_anything_changes_the_copy(run):
    """Counts, checksums and sequences of the untouched, still isolated copy are on record."""
    references = run.perform(TakeReferences())

    assert references.missing_tables == ()
