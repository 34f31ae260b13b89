"""
A failure in every step of a drill: what is rolled back, what stays, and what people are told.

Before the switch there is nothing to point back: the lock stays, and the world's own audit looks at
the rest. After it everything goes back at once. A failure in step 0 changes nothing, and one in
step 11 never takes a watched service away from its users.
"""

import shutil
from pathlib import Path

import pytest
from endings import (
    Stopped,
    audit_green,
    failed_and_rolled_back,
    last_attempt,
    of_kind,
    pack_rows,
    standing,
    told,
    undone,
)

from fixtures.drill.lookup import found_in_database, found_in_packs
from fixtures.drill.witness import read_acks
from fixtures.drill.world import attach_world
from fixtures.journal import read_journal
from fixtures.postgres.session import connect

#: what is wrong is written here, unless a case names another file
TOML = "runbook.toml"
JOBS = ["end_job", "end_job"]
#: test that fails -> file, what is replaced there by what, what the reason holds, entries undone
BEFORE_SWITCH = {
    "s03.safety_copy": (
        TOML, 'same_filesystem = "a drill has one disk; a real safety copy belongs on another"',
        'same_filesystem = ""', "RB404", [],
    ),
    # a drill's own target lies at its damage, so that no file can make it miss the objective
    "s04.target_reachable": (
        "fixtures/actions/targeting.py", "(reference - moment).total_seconds() if",
        "(reference - moment).total_seconds() + 901 if", "901.0 <= 900.0", JOBS,
    ),
    "s05.references": (
        TOML, '"public.rewards"]\nappend', '"public.rewards", "public.no_such_table"]\nappend', "no_such_table", JOBS,
    ),
    "s06.ledger_aligned": (
        TOML, '"fixtures/drill/migrations"', '"fewer-migrations"', "0004_stamp_history", JOBS,
    ),
    "s07.sanity": (TOML, "expect = true", "expect = false", "no two users share", JOBS),
}  # fmt: skip


def test_nothing_is_changed_when_a_precondition_is_missing(checkout):
    """A database nobody listed ends the run at step 0 with 4: no intent, no rollback, no escalation."""
    checkout.edit('[[databases]]\nname = "stampcard"', '[[databases]]\nname = "postgres"')

    session = checkout.run("--drill", "--disaster=drop", "--seed=7", "--junitxml=drill.xml")

    assert session.code == 4, session.output[-3000:]
    assert "exit code 4" in (checkout.root / "drill.xml").read_text()
    events = read_journal(checkout.folder)
    assert not {"intent", "rolling-back", "escalated"} & {event.kind for event in events}
    results = {event.data["test"]: event.data for event in of_kind(events, "result")}
    assert results["s00.ready"]["status"] == "failed"
    assert "RB408" in results["s00.ready"]["reason"] + session.output
    assert {data["status"] for test, data in results.items() if test.startswith("s0")} == {
        "failed",
        "skipped",
    }
    assert checkout.summary()["exit_code"] == 4
    assert not checkout.world_folder().exists()


def test_a_contradicted_word_about_production_stops_before_the_lock(checkout):
    """Step 1 changes nothing but the ticket: production serves on, and nobody is told that it does not."""
    checkout.edit("[production]\n", '[production]\nstate = "read-only"\n')

    session = checkout.run("--drill", "--disaster=drop", "--seed=7")

    assert session.code == 1, session.output[-3000:]
    events = failed_and_rolled_back(checkout, "s01.production_state", reason="read-only")
    assert [event.data["action"] for event in of_kind(events, "intent")] == ["open ticket"]
    assert "Maintenance mode: OFF" in of_kind(events, "escalated")[0].data["text"]
    assert standing(checkout) == set()
    told(checkout, "s01.production_state")
    assert not checkout.world_folder().exists()


def test_a_worker_that_does_not_pause_fails_the_lock(checkout):
    """Step 2 fails with maintenance on and what was paused still paused; the database was not reached yet."""
    assert checkout.run("--drill", "--disaster=drop", "--seed=7", "--until=incident").code == 11

    with Stopped(checkout, "worker-digest"):
        session = checkout.run("--resume")

    assert session.code == 1, session.output[-3000:]
    events = failed_and_rolled_back(checkout, "s02.writes_locked", reason="RB602")
    assert "Maintenance mode: on" in of_kind(events, "escalated")[0].data["text"]
    assert standing(checkout) == {"maintenance_off", "worker_resume"}
    told(checkout, "s02.writes_locked")
    assert not checkout.world_folder().exists()


@pytest.mark.parametrize("test", sorted(BEFORE_SWITCH))
def test_a_failure_before_the_switch_leaves_the_lock_and_nothing_else(test, checkout):
    """Rolled back in its own teardown; maintenance and fence stay; connections were never touched."""
    file, old, new, reason, undo = BEFORE_SWITCH[test]
    fewer = checkout.root / "fewer-migrations"
    shutil.copytree(checkout.root / "fixtures" / "drill" / "migrations", fewer)
    (fewer / "0004_stamp_history.sql").unlink()
    checkout.edit(old, new, file=file)

    session = checkout.run("--drill", "--disaster=drop", "--seed=7")

    assert session.code == 1, session.output[-3000:]
    events = failed_and_rolled_back(checkout, test, reason=reason)
    assert undone(events) == undo
    assert standing(checkout) == {"maintenance_off", "worker_resume", "production_open"}
    assert not any(event.kind == "switching" for event in events)
    assert not any("connection" in event.data["action"] for event in of_kind(events, "intent"))
    assert not (checkout.folder / "packs" / "after-cutover").exists()
    audit_green(told(checkout, test))
    assert not checkout.world_folder().exists()


def test_a_broken_condition_of_the_barrier_switches_nothing(checkout):
    """A safety copy damaged at the last moment stops step 9 before the point of no return."""
    child = checkout.start("--drill", "--disaster=drop", "--seed=7")
    checkout.wait_for_event(child, "intent", action="commission the restored instance")
    copy = Path(checkout.state().actions["safety_copy"]["result"]["place"])
    for table_of_contents in copy.rglob("toc.dat"):
        table_of_contents.unlink()
    output, _ = child.communicate(timeout=120)

    assert child.returncode == 1, output[-3000:]
    events = failed_and_rolled_back(checkout, "s09.switched", reason="safety copy")
    assert not of_kind(events, "switching")
    assert undone(events) == ["isolate", *JOBS]
    assert standing(checkout) == {"maintenance_off", "worker_resume", "production_open"}
    assert not (checkout.folder / "packs" / "after-cutover").exists()
    audit_green(told(checkout, "s09.switched"))
    assert not checkout.world_folder().exists()


def test_a_worker_that_does_not_come_back_undoes_the_cutover(checkout):
    """After the switch all goes back at once: maintenance first, fence and pack, then connections."""
    assert checkout.run("--drill", "--disaster=truncate", "--seed=7", "--until=canary").code == 11

    with Stopped(checkout, "worker-digest"):
        session = checkout.run("--resume")

    assert session.code == 1, session.output[-3000:]
    events = failed_and_rolled_back(checkout, "s09.served", reason="RB602")
    assert of_kind(events, "switching")
    order = [name for name in undone(events) if name != "end_job"]
    assert order == [
        "maintenance_on", "worker_pause", "worker_pause", "fence_restored", "connection_back", "isolate",
    ]  # fmt: skip
    assert standing(checkout) == {"maintenance_off", "worker_resume", "production_open"}
    assert not checkout.state().switched
    assert pack_rows(checkout.folder / "packs" / "after-cutover") > 0
    summary = told(checkout, "s09.served")
    assert summary["stamps"]["served"] is None
    audit_green(summary)
    assert not checkout.world_folder().exists()


def test_a_held_cutover_leaves_the_connections_to_a_person(checkout):
    """With after_cutover = "hold" users who are not served get maintenance and a fence; the rest waits."""
    checkout.edit("writers = 2", 'writers = 2\n\n[rollback]\nafter_cutover = "hold"')
    checkout.edit("SERVED_S: Final = 60.0", "SERVED_S: Final = 3.0", file="fixtures/actions/cutover.py")
    child = checkout.start("--drill", "--disaster=drop", "--seed=7")
    checkout.wait_for_event(child, "switching")

    with Stopped(checkout, "app"):
        checkout.wait_for_event(child, "rolling-back")
    output, _ = child.communicate(timeout=120)

    assert child.returncode == 1, output[-3000:]
    events = failed_and_rolled_back(checkout, "s09.served", reason="RB606")
    assert [name for name in undone(events) if name != "end_job"] == ["maintenance_on", "fence_restored"]
    assert {event.data["name"] for event in of_kind(events, "undo-held")} == {"connection_back", "isolate"}
    assert {"connection_back", "maintenance_off", "production_open"} <= standing(checkout)
    assert checkout.state().switched
    summary = told(checkout, "s09.served")
    audit_green(summary)
    connections = next(check for check in summary["audit"] if check["id"] == "connections_back")
    assert connections["verdict"] == "not-applicable"
    assert not checkout.world_folder().exists()


def test_what_cannot_be_undone_is_left_to_a_person_and_finished_later(checkout):
    """A breach in step 10 with the kept connection string gone ends with 10; --rollback completes it."""
    assert checkout.run("--drill", "--disaster=drop", "--seed=7", "--until=cutover").code == 11
    kept = checkout.folder / "secrets" / "connection-0"
    aside = checkout.root / "aside"
    kept.rename(aside)
    checkout.edit("p95_ms = 5000 ", "p95_ms = 0.001 ")

    session = checkout.run("--resume")

    assert session.code == 10, session.output[-3000:]
    assert "left: connection_back" in session.output
    events = last_attempt(checkout)
    assert [event.data["attempt"] for event in of_kind(events, "undo-failed")] == [1, 2, 3]
    assert of_kind(events, "rolled-back")[-1].data["complete"] is False
    assert "NOT COMPLETELY" in of_kind(events, "escalated")[0].data["text"]
    # one entry that fails keeps none of the others from being carried out
    assert {"maintenance_on", "fence_restored", "isolate"} <= set(undone(events))
    assert checkout.status("s10.objectives_held") == "failed"
    assert checkout.summary()["exit_code"] == 10
    world = attach_world(checkout.folder / "world.json", adopt=False)
    assert world.places.maintenance.exists()
    status = checkout.run("--status")
    assert status.code == 0
    assert "pytest --rollback" in status.output
    # nothing acknowledged is only in the copy that is about to be discarded
    acks = read_acks(world.witness)
    with connect(world.production) as production:
        found = found_in_database(production, acks)
    packed = found_in_packs([checkout.folder / "packs" / "after-cutover"])
    since = next(event.at for event in read_journal(checkout.folder) if event.kind == "switching")
    after = {ack.request_id for ack in acks if ack.acked_at >= since}
    assert after
    assert after - packed - found == set()
    assert checkout.state().stamps.get("served") is None

    aside.rename(kept)
    again = checkout.run("--rollback")

    assert again.code == 1, again.output[-3000:]
    assert checkout.state().rolled_back is True
    assert not checkout.state().switched
    assert standing(checkout) == {"maintenance_off", "worker_resume", "production_open"}
    assert not checkout.world_folder().exists()


def test_a_ticket_that_cannot_be_closed_costs_users_nothing(checkout):
    """A served and watched run is resumed as it is; what fails in step 11 is told with 12, not undone."""
    assert checkout.run("--drill", "--disaster=truncate", "--seed=7", "--until=monitoring").code == 11
    served = checkout.state().stamps["served"]
    ticket = next((checkout.folder / "ticket").glob("*.md"))
    ticket.unlink()

    session = checkout.run("--resume")

    assert session.code == 12, session.output[-3000:]
    events = last_attempt(checkout)
    results = {event.data["test"]: event.data for event in of_kind(events, "result")}
    assert {data["status"] for test, data in results.items() if not test.startswith("s11.")} == {"passed"}
    assert results["s11.closed"]["status"] == "failed"
    assert "RB610" in results["s11.closed"]["reason"]
    assert not {"rolling-back", "undone"} & {event.kind for event in events}
    assert checkout.state().stamps["served"] == served
    assert checkout.state().switched
    audit_green(checkout.summary(), wanted={"acked_before_target_served", "application_writes"})
