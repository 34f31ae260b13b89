"""
Step 11 - Audit and close [Audit & Abschluss].

Before: the service held its objectives.
Proves: the ticket holds run, backup id, duration and verdicts; what is served is protected; and in a
        drill an outside audit agrees.
Undo:   the close-out always runs: it rolls back what a failed step left, and says so.
"""

from fixtures.actions.audit import CloseTicket, close_out
from fixtures.steps import step


@step("s11.closed")
def test_the_ticket_tells_the_whole_story(run):
    """The ticket is complete, and the served database is protected."""
    closed = run.perform(CloseTicket())

    assert closed.ticket_complete
    assert closed.protected


@step("s11.close_out")
def test_the_run_ends_in_a_known_state(run, ledger):
    """Everything passed, or what failed is rolled back; the outside audit finds no broken promise."""
    end = close_out(run, ledger)

    assert end.failed_steps == (), end.told
    assert end.broken_promises == (), end.told
