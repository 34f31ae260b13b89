"""
Signals, whenever they come: a drill is rolled back and nothing of its world is left; an incident is
suspended with its fence held, unless the person at its terminal says otherwise.
"""

import os
import signal

import pytest
from aftermath import (
    CAUGHT,
    WAIT_S,
    assert_interrupted,
    events,
    finish,
    processes_of,
    slow_copies,
    wait_for_world,
)
from crash_world import open_incident

from fixtures.command import wait_for


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)],
    ids=["ctrl-c", "term"],
)
def test_nothing_is_left_of_a_drill_interrupted_while_its_world_is_built(first, second, checkout):
    """No run has begun yet: exit 2, no run folder, no world; a second signal does not cut the clean-up short."""
    child = checkout.start("--drill", "--seed=7")
    world = wait_for_world(checkout.root, child)

    os.kill(child.pid, first)
    os.kill(child.pid, second)
    output = finish(child)

    assert child.returncode == 2, output[-3000:]
    assert "Traceback" not in output
    assert "interrupted before the run began: nothing is left of it; exit code 2" in output
    assert not world.exists()
    assert processes_of(world) == []
    assert list((checkout.root / "reports").glob("runs/*")) == []


@pytest.mark.parametrize("number", CAUGHT, ids=["ctrl-c", "term", "hangup"])
def test_a_drill_interrupted_in_the_restore_is_rolled_back_and_gone(number, checkout, tmp_path):
    """With the base backup's copy running detached: broken step, complete rollback, and the copy is ended, too."""
    env, _ = slow_copies(tmp_path / "bin")
    child = checkout.start("--drill", "--seed=7", env=env)
    checkout.wait_for_event(child, "intent", action="restore to isolated instance")
    world = checkout.world_folder()
    wait_for(
        lambda: any("--reflink=auto" in line for line in processes_of(world)),
        timeout_s=60,
        what="the copy runs",
    )

    os.kill(child.pid, number)
    output = finish(child)

    assert child.returncode == 2, output[-3000:]
    assert_gone(world)
    assert_interrupted(checkout.folder, "s05.restored")
    assert_rolled_back(checkout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_a_drill_interrupted_after_its_cutover_is_switched_back(number, checkout):
    """Users were served already: their rows since then are packed, connections are back; further signals wait."""
    checkout.edit('window = "3s"', 'window = "90s"')
    child = checkout.start("--drill", "--seed=7")
    checkout.wait_for_event(child, "test-started", test="s10.objectives_held")
    world = checkout.world_folder()

    os.kill(child.pid, number)
    checkout.wait_for_event(child, "rolling-back")
    for again in CAUGHT:
        os.kill(child.pid, again)
    output = finish(child)

    assert child.returncode == 2, output[-3000:]
    assert_gone(world)
    assert_interrupted(checkout.folder, "s10.objectives_held")
    assert_rolled_back(checkout)
    assert len(events(checkout.folder, "switched-back")) == 1
    pack = checkout.folder / "packs" / "after-cutover"
    assert (pack / "pack.json").exists()
    kept = next(check for check in checkout.summary()["audit"] if check["id"].endswith("every_row_kept"))
    assert kept["verdict"] == "pass"


def test_a_drill_whose_output_nobody_reads_any_more_is_rolled_back_and_gone(checkout):
    """`| head` has seen enough: a lost terminal, not a session that dies half way with its world running."""
    child = checkout.start("--drill", "--seed=7")
    checkout.wait_for_event(child, "test-started", test="s02.writes_locked")
    world = checkout.world_folder()

    child.stdout.close()

    assert child.wait(timeout=WAIT_S) == 2
    assert_gone(world)
    assert_rolled_back(checkout)


def test_a_rollback_goes_on_when_ctrl_c_ends_what_read_the_output(checkout):
    """`| tee` gets the Ctrl-C, too, and every line of the rollback goes nowhere."""
    checkout.edit('window = "3s"', 'window = "90s"')
    child = checkout.start("--drill", "--seed=7")
    checkout.wait_for_event(child, "test-started", test="s10.objectives_held")
    world = checkout.world_folder()

    child.stdout.close()
    os.kill(child.pid, signal.SIGINT)

    assert child.wait(timeout=WAIT_S) == 2
    assert_gone(world)
    assert_interrupted(checkout.folder, "s10.objectives_held")
    assert_rolled_back(checkout)


def test_an_incident_is_suspended_by_every_signal_and_goes_on(checkout, public_dir):
    """Before the lock, in the restore and after the switch: 11, state held; only a person's r rolls back (1)."""
    with open_incident(checkout, public_dir) as incident:
        session = incident.begin(answering=False)
        session.wait_for_text("anything else stops here")
        os.kill(session.child.pid, signal.SIGTERM)
        assert_suspended(incident, session, "SIGTERM")
        assert incident.writable() == ["production"]

        incident.hold("copy")
        session = incident.resume()
        incident.wait_for_event(session, "intent", action="restore to isolated instance")
        incident.wait_for_start("copy")
        os.kill(session.child.pid, signal.SIGHUP)
        assert_suspended(incident, session, "SIGHUP")
        assert_interrupted(incident.folder, "s05.restored")
        assert incident.writable() == []
        assert any("--reflink=auto" in line for line in processes_of(incident.home))

        # Ctrl-C at the terminal, and nobody answers the question
        session = incident.resume()
        incident.wait_for_event(session, "test-started", since=incident.position, test="s05.restored")
        session.type("\x03")
        assert_suspended(incident, session, "SIGINT")
        assert "[s]uspend" in session.text
        assert incident.starts("copy") == 1
        assert incident.writable() == []

        # the terminal is lost while users are served
        incident.let("copy")
        session = incident.resume()
        incident.wait_for_event(session, "test-started", test="s10.objectives_held")
        session.hang_up()
        assert_suspended(incident, session, "SIGHUP")
        assert incident.writable() == ["restored"]

        session = incident.resume()
        incident.wait_for_event(session, "test-started", since=incident.position, test="s10.objectives_held")
        os.kill(session.child.pid, signal.SIGTERM)
        assert_suspended(incident, session, "SIGTERM")
        assert incident.writable() == ["restored"]
        assert not incident.world.places.maintenance.exists()

        session = incident.resume()
        incident.wait_for_event(session, "test-started", since=incident.position, test="s10.objectives_held")
        session.type("\x03")
        session.wait_for_text("[r]oll back?")
        session.type("r\n")
        assert session.wait() == 1, session.text[-4000:]
        assert incident.audit_rolled_back() == []
        assert incident.writable() == []
        assert incident.world.places.dsn.read_text() == incident.original
        assert "after-cutover" in [pack.name for pack in incident.packs()]


def assert_suspended(incident, session, reason):
    """Exit 11; the journal says why, and the lease still belongs to the run."""
    assert session.wait() == 11, session.text[-4000:]
    assert events(incident.folder, "suspended")[-1].data["reason"] == reason
    assert events(incident.folder, "rolling-back") == []
    assert incident.lease()["run_id"] == incident.folder.name


def assert_gone(world):
    """No process and no folder of the world is left."""
    assert processes_of(world) == []
    assert not world.exists()


def assert_rolled_back(checkout):
    """The journal tells of one complete rollback, nothing that needed undoing stands, the outside audit is green."""
    folder = checkout.folder
    assert [event.data["complete"] for event in events(folder, "rolled-back")] == [True]
    assert events(folder, "run-ended")[-1].data["exit_code"] == 2
    summary = checkout.summary()
    assert summary["exit_code"] == 2
    assert not [entry for entry in summary["rollback"]["entries"] if entry["state"] in {"failed", "held"}]
    assert {check["verdict"] for check in summary["audit"]} <= {"pass", "not-applicable"}
    assert len(summary["audit"]) == 8
