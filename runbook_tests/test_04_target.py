"""
Step 4 - Choose the target time [Zielzeitpunkt wählen].

Before: the lock's position is known; nothing later can be a target.
Proves: the target can be reached, lies within the RPO, and the Owner accepts what it discards.
Undo:   nothing to undo.
"""

from fixtures.actions.targeting import AcceptDiscarded, CheckTarget
from fixtures.steps import step


@step("s04.target_reachable")
def test_the_target_can_be_reached_and_meets_the_rpo(run):
    """The archive holds everything up to the target, and the target is close enough to the damage."""
    target = run.perform(CheckTarget())

    assert target.refusals == ()
    assert target.distance_s <= target.rpo_s


@step("s04.discarded_accepted")
def test_the_owner_accepts_what_the_restore_discards(run):
    """What lies between target and lock is counted per table, and accepted by name."""
    discarded = run.perform(AcceptDiscarded())

    assert discarded.accepted
