"""
Step 6 - Align migrations [Migrationsstand angleichen].

Before: references of the untouched copy are taken.
Proves: the ledger matches the folder up to the version production ran, and no id that production
        ever handed out will be handed out again.
Undo:   nothing to undo: only the restored copy is changed.
"""

from fixtures.actions.migrations import AlignLedger, RaiseSequences
from fixtures.steps import step


@step("s06.ledger_aligned")
def test_the_schema_is_at_the_target_version(run):
    """Nothing is pending, unknown, edited or half done in the ledger."""
    ledger = run.perform(AlignLedger())

    assert ledger.pending == ()
    assert ledger.unknown == ()
    assert ledger.edited == ()
    assert ledger.unfinished == ()


@step("s06.sequences_raised")
def test_no_id_is_handed_out_twice(run):
    """Every sequence stands at or above what production had handed out at the lock."""
    sequences = run.perform(RaiseSequences())

    assert sequences.below_high_water == ()
