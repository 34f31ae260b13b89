"""What is always on screen, from a run's state alone."""

from datetime import UTC, datetime, timedelta

import pytest

from fixtures.journal import Undo, When
from fixtures.screen import headline, status_lines, writable
from fixtures.state import Result, RunState

NOW = datetime(2026, 3, 1, 12, 10, tzinfo=UTC)
FENCE = Undo(name="production_open", args={}, when=When.RELEASE)


def _state(**changes) -> RunState:
    state = RunState(
        started={
            "production": "shop",
            "options": {"target": {"kind": "time", "value": "2026-03-01T11:59:00Z", "exclusive": True}},
        },
        stamps={"declared": NOW - timedelta(minutes=10)},
    )
    for name, value in changes.items():
        setattr(state, name, value)
    return state


def _declared(state: str) -> dict[str, object]:
    return {"production_state": {"result": {"state": state}}}


def _shown(state: RunState) -> str:
    return "\n".join(headline("20260301T120000Z-abcd", state, rto=timedelta(hours=1), now=NOW))


def test_everything_that_must_be_on_screen_is_there():
    """Name, writable side, fence, T0, RTO left, target, discarded window, rollback target, next command."""
    discarded = {"discarded_window": {"result": {"rows": 7, "transactions": 3}}}
    shown = _shown(_state(actions=_declared("reachable") | discarded, open_undo={1: FENCE}, fenced=True))

    for wanted in (
        "shop",
        "writable: neither; production is fenced",
        "fence: held",
        "T0 2026-03-01T12:00:00Z",
        "RTO left 50:00 min",
        "target: time 2026-03-01T11:59:00Z (exclusive)",
        "discarded: 7 rows in 3 transactions",
        "rollback target: production behind its fence",
        "next: pytest --resume=20260301T120000Z-abcd",
    ):
        assert wanted in shown


def test_a_missed_rto_is_shown_as_less_than_nothing():
    """RTO left goes negative; it does not stop at zero."""
    assert "RTO left -5:00 min" in _shown(_state(stamps={"declared": NOW - timedelta(minutes=65)}))


def test_before_anything_is_known_nothing_is_claimed():
    """No T0, no count, and production untouched."""
    shown = _shown(_state(stamps={}))

    assert "T0 not declared yet" in shown
    assert "discarded: not counted yet" in shown
    assert "rollback target: production, untouched" in shown


@pytest.mark.parametrize("state", ["down", "unknown"])
def test_a_silent_production_is_nobodys_to_write_to_or_go_back_to(state):
    """Unreachable from here is not dead: until it is fenced, what it does is unknown."""
    before = _state(actions=_declared(state))
    after = _state(actions=_declared(state) | {"writes_locked": {"result": {}}})

    assert writable(before) == f"unknown; production is {state} and not fenced yet"
    assert writable(after) == "neither; production is fenced"
    assert "fence: held by its own command" in _shown(after)
    assert "rollback target: NO ROLLBACK TARGET" in _shown(after)


def test_an_uncounted_window_is_not_shown_as_nothing_lost():
    """-1 transactions means that nobody could count them."""
    lost = {"discarded_window": {"result": {"rows": 0, "transactions": -1}}}

    assert "discarded: could not be counted" in _shown(_state(actions=lost))


def test_a_lock_that_was_only_begun_is_not_shown_as_a_fence():
    """A process that died at the lock left it open or closed: nobody is told that it is held."""
    shown = _shown(_state(actions=_declared("reachable"), open_undo={1: FENCE}))

    assert "writable: production or neither: its lock was interrupted" in shown
    assert "fence: interrupted half way" in shown


def test_status_says_the_same():
    """--status shows the fence, the discarded window and the rollback target, too."""
    lines = "\n".join(
        status_lines(
            "r",
            _state(actions=_declared("reachable"), open_undo={1: FENCE}, fenced=True),
            running=False,
            now=NOW,
        )
    )

    assert "fence: held" in lines
    assert "rollback target: production behind its fence" in lines


def test_a_drill_whose_world_is_gone_offers_no_resume():
    """Nothing is left to go on with or to undo, whatever the journal still holds open."""
    gone = _state(actions=_declared("reachable"), open_undo={1: FENCE}, fenced=True, rolled_back=True)
    gone.torn_down = True

    shown = "\n".join(status_lines("20260301T120000Z-abcd", gone, running=False, now=NOW))

    assert "next: nothing; the drill's world is gone (another drill: make drill)" in shown
    assert "writable: nothing; the drill's world is gone" in shown
    assert "--resume" not in shown


def test_between_the_switch_and_the_gate_of_maintenance_nobody_is_told_of_an_accident():
    """Users are not in yet, and only a switch that was not opened to them is under way."""
    opened = Undo(name="fence_restored", args={}, when=When.ROLLBACK)

    assert writable(_state(switched=True)).startswith("neither (a switch is under way")
    assert writable(_state(switched=True, open_undo={1: opened})) == (
        "the restored database, behind maintenance: users are not let in yet"
    )


def test_a_run_that_step_0_refused_has_nothing_to_go_on_with_or_to_undo():
    """The next command is a new start; once T0 is declared, it is the resume again."""
    refusal = Result("s00.ready", "failed", 0.1, "target: RB301 no base backup\n  at: the oldest", NOW)
    refused = _state(results={"s00.ready": refusal}, stamps={})
    later = _state(results={"s00.ready": refusal})

    assert "next: nothing was changed: mend what step 0 names, then start anew" in _shown(refused)
    assert "Preconditions: failed - target: RB301 no base backup" in "\n".join(
        status_lines("20260301T120000Z-abcd", refused, running=False, now=NOW)
    )
    assert "next: pytest --resume=20260301T120000Z-abcd" in _shown(later)
