"""
What a drill must leave, served or failed: read from its journal, its summary, its ticket and the outside audit.
"""

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any, Self

from fixtures.journal import Event, read_journal
from fixtures.manifest import CLOSE_OUT, MANIFEST

#: the harness of conftest.py, which cannot be imported by name
Checkout = Any
#: the outside audit's questions about a run that was rolled back
ROLLED_BACK = {
    "maintenance_on", "production_closed", "restored_closed", "connections_back", "every_row_kept",
    "production_unchanged_after_lock", "production_not_removed_from", "production_archive_untouched",
}  # fmt: skip


def last_attempt(checkout: Checkout) -> list[Event]:
    """Return the events since the run was begun or last resumed."""
    events = read_journal(checkout.folder)
    starts = [number for number, event in enumerate(events) if event.kind in {"run-started", "run-resumed"}]
    return events[starts[-1] :]


def of_kind(events: list[Event], kind: str) -> list[Event]:
    """Return the events of one kind."""
    return [event for event in events if event.kind == kind]


def undone(events: list[Event]) -> list[str]:
    """Return the names of undo entries carried out, in order."""
    return [event.data["name"] for event in of_kind(events, "undone")]


def failed_and_rolled_back(checkout: Checkout, test: str, *, reason: str = "") -> list[Event]:
    """
    Prove that `test` failed, was rolled back in its own teardown, and that nothing ran after it.

    Args:
        checkout: after its session.
        test: manifest name of the failed test.
        reason: what its reason must hold.

    Returns:
        The attempt's events.
    """
    events = last_attempt(checkout)
    results = {event.data["test"]: event for event in of_kind(events, "result")}
    begun, done = of_kind(events, "rolling-back"), of_kind(events, "rolled-back")

    assert results[test].data["status"] == "failed"
    assert reason in results[test].data["reason"]
    assert [len(begun), len(done)] == [1, 1]
    first_after = next(event for event in of_kind(events, "result") if event.seq > begun[0].seq)
    assert first_after is results[test], "rolled back before the failing test's own result"
    assert begun[0].data["reason"].startswith(f"{test} failed: ")
    later = [name for name in MANIFEST[MANIFEST.index(test) + 1 :] if name != CLOSE_OUT]
    assert {results[name].data["status"] for name in later} <= {"skipped"}
    assert {results[name].data["reason"] for name in later} <= {f"{test} failed"}
    assert not [event for event in of_kind(events, "action-done") if event.data["test"] in later]
    assert of_kind(events, "escalated")
    assert "Rolled back and escalated" in ticket(checkout)
    return events


def told(checkout: Checkout, test: str) -> dict[str, Any]:
    """Prove that the summary tells the failed end, and return it."""
    summary = checkout.summary()

    assert summary["exit_code"] == 1
    assert summary["rollback"]["performed"]
    assert summary["rollback"]["complete"]
    assert checkout.status(test) == "failed"
    assert "NOT RESTORED" in summary["verdict"]
    return summary


def audit_green(summary: dict[str, Any], *, wanted: set[str] = ROLLED_BACK) -> None:
    """Prove that the outside audit asked all of `wanted` and found no broken promise."""
    verdicts = {check["id"]: check["verdict"] for check in summary["audit"]}

    assert wanted <= set(verdicts)
    assert {
        name: verdict for name, verdict in verdicts.items() if verdict not in {"pass", "not-applicable"}
    } == {}


def ticket(checkout: Checkout) -> str:
    """Return the run's ticket."""
    return next((checkout.folder / "ticket").glob("*.md")).read_text()


def standing(checkout: Checkout) -> set[str]:
    """Return the names of what is still in place."""
    return {undo.name for undo in checkout.state().open_undo.values()}


def world(checkout: Checkout) -> dict[str, Any]:
    """Return the record of the drill's world."""
    loaded: dict[str, Any] = json.loads((checkout.folder / "world.json").read_text())
    return loaded


class Stopped:
    """A process of the drill's world, with its children, that hangs while the block runs."""

    def __init__(self, checkout: Checkout, job: str) -> None:
        self.pid = next(each["pid"] for each in world(checkout)["jobs"] if each["name"] == job)

    def __enter__(self) -> Self:
        os.killpg(self.pid, signal.SIGSTOP)
        return self

    def __exit__(self, *_exception: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # the world was torn down meanwhile
            os.killpg(self.pid, signal.SIGCONT)


def pack_rows(folder: Path) -> int:
    """Return how many rows a reconciliation pack's manifest names."""
    return int(json.loads((folder / "pack.json").read_text())["rows"])


def check_served(checkout):
    """Every step passed, what is served is protected and in time, the audit agrees, nothing is left."""
    summary = checkout.summary()
    assert {step["status"] for step in summary["steps"]} == {"passed"}
    assert summary["protected"]["state"] == "PROTECTED"
    assert summary["rpo"]["verdict"] == "met"
    assert summary["rto"]["verdict"] == "met"
    audit = [check for check in summary["audit"] if check["verdict"] not in {"pass", "not-applicable"}]
    assert audit == []
    assert not checkout.world_folder().exists()


def check_dead(checkout, session):
    """A production that died is fenced, kept whole and left as it was, and there is nothing to go back to."""
    asked = {check["id"] for check in checkout.summary()["audit"]}
    assert asked >= {
        "production_stays_fenced", "production_unchanged_since_death", "safety_copy_holds_all",
        "unarchived_rows_served",
    }  # fmt: skip
    assert "fence: held by its own command" in session.output
    assert "rollback target: NO ROLLBACK TARGET" in session.output
    assert checkout.summary()["rollback"]["target_statement"].startswith("NO ROLLBACK TARGET")
