"""
Step 10 - Monitor [Überwachen].

Before: users are served.
Proves: over the configured window latency, 5xx, deadlocks and slow statements stay in range.
Undo:   outside the objectives the cutover is rolled back at once.
"""

from fixtures.actions.monitoring import WatchService
from fixtures.steps import step


@step("s10.objectives_held")
def test_the_service_stays_within_its_objectives(run):
    """No sample of the window left the objectives, and the samples were enough to say so."""
    watched = run.perform(WatchService())

    assert watched.breaches == ()
    assert watched.enough_requests
