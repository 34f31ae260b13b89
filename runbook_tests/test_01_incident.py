"""
Step 1 - Record T0, open the ticket [T0 festhalten].

Before: step 0 found everything in place.
Proves: the clock runs, the ticket is open, and what production still does is known from probes and
        a person's word.
Undo:   nothing to undo; the ticket stays.
"""

from fixtures.actions.incident import DeclareIncident, EstablishState
from fixtures.steps import step


@step("s01.declared")
def test_t0_is_recorded_and_the_ticket_is_open(run):
    """T0 is on record in UTC and the ticket exists."""
    declared = run.perform(DeclareIncident())

    assert declared.t0_recorded
    assert declared.ticket != ""


@step("s01.production_state")
def test_production_state_is_established(run):
    """Probes and the configured word agree on what production still does."""
    state = run.perform(EstablishState())

    assert state.contradiction == ""
