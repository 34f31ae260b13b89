"""Kill -9 of the runner at its worst moments: what is left is safe, and --resume or --rollback goes on from it."""

import subprocess
import sys

import pytest
from aftermath import events, kill, processes_of, slow_copies, wait_for_world
from crash_world import open_incident


@pytest.fixture
def incident(checkout, public_dir):
    """A damaged production that is not a drill's, and what deals with it."""
    with open_incident(checkout, public_dir) as made:
        yield made


def test_a_run_killed_eight_times_is_resumed_and_serves_everything(incident):
    """Lock, dump, its proof, copy, replay, both halves of the switch, monitoring: nothing is done twice or lost."""
    incident.hold("pg_dump", "proof", "copy", "replay", "before")
    session = incident.begin()
    incident.wait_for_event(session, "intent", action="close production's databases")
    session.kill()
    assert len(events(incident.folder, "test-started", test="s02.writes_locked")) == 1

    # in the safety copy: dump and base backup's copy run detached
    session = incident.resume()
    incident.wait_for_event(session, "job", name="dump-globals")
    incident.wait_for_start("pg_dump")
    assert_refused(incident, "--resume")
    assert_refused(incident, "--rollback")
    session.kill()
    assert incident.writable() == []

    # the dump is joined; its proof, cut off, is led again in a new throwaway cluster
    session = incident.resume()
    incident.let("pg_dump")
    incident.wait_for_start("proof")
    session.kill()
    assert incident.writable() == []

    session = incident.resume()
    incident.wait_for_start("proof", 2)
    incident.let("proof")
    incident.wait_for_event(session, "intent", action="restore to isolated instance")
    incident.wait_for_start("copy")
    session.kill()
    assert (incident.starts("pg_dump"), incident.starts("copy")) == (1, 1)
    assert incident.writable() == []

    # the copy is joined; the server that replays goes on by itself
    session = incident.resume()
    incident.let("copy")
    incident.wait_for_start("replay")
    session.kill()
    assert incident.writable() == []

    session = incident.resume()
    incident.let("replay")
    incident.wait_in_switch(session, "before")
    said = (incident.folder / "logs" / "data.err").read_text()
    assert said.count("starting point-in-time recovery") == 1
    session.kill()
    incident.end_write()
    assert incident.starts("copy") == 1
    assert incident.writable() == []
    assert incident.world.places.dsn.read_text() == incident.original
    with (incident.folder / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"seq": 99')  # the machine died while a line was written

    session = incident.resume()
    incident.hold("after")
    incident.let("before")
    incident.wait_in_switch(session, "after")
    session.kill()
    incident.end_write()
    assert incident.writable() == []
    assert incident.world.places.dsn.read_text() != incident.original

    incident.let("after")
    session = incident.resume()
    incident.wait_for_event(session, "test-started", test="s10.objectives_held")
    session.kill()
    assert incident.writable() == ["restored"]

    incident.shorten_monitoring()
    session = incident.resume()
    assert session.wait() == 0, session.text[-4000:]
    assert incident.audit_served() == []
    assert incident.writable() == ["restored"]
    assert incident.lease() is None
    assert len(events(incident.folder, "job", name="dump-stampcard")) == 1
    assert len(events(incident.folder, "job", name="prefetch")) <= 1  # none, where step 5 began the copy


def test_a_run_killed_four_times_is_rolled_back_each_time(incident):
    """Each rollback leaves production as it was, maintenance on, nobody writable; a resume goes on from it."""
    incident.hold("copy", "before")
    session = incident.begin()
    incident.wait_for_event(session, "intent", action="close production's databases")
    session.kill()
    assert "fence: interrupted half way" in incident.checkout.run("--status").output
    # killed before the lock's one transaction or behind it: production is left as that left it
    assert_rolled_back(incident, but=("production_closed",))

    session = incident.resume()
    incident.wait_for_event(session, "intent", action="restore to isolated instance")
    incident.wait_for_start("copy")
    session.kill()
    assert_rolled_back(incident)

    incident.let("copy")
    session = incident.resume()
    incident.wait_in_switch(session, "before")
    session.kill()
    incident.end_write()
    incident.let("before")
    assert_rolled_back(incident)
    steps = {step["id"]: step["status"] for step in incident.checkout.summary()["steps"]}
    assert steps["s09.switched"] == "broken"

    incident.hold("after")
    session = incident.resume()
    incident.wait_in_switch(session, "after")
    session.kill()
    incident.end_write()
    incident.let("after")
    assert_rolled_back(incident)

    session = incident.resume()
    incident.wait_for_event(session, "test-started", test="s10.objectives_held")
    session.kill()
    assert incident.writable() == ["restored"]
    assert_rolled_back(incident)
    assert "after-cutover" in [pack.name for pack in incident.packs()]


def test_a_killed_drill_is_cleaned_away_and_hinders_no_other(checkout, tmp_path):
    """Killed while its world is built and in the restore: clean ends all of it; a new drill starts before that."""
    env, _ = slow_copies(tmp_path / "bin")
    building = checkout.start("--drill", "--seed=7")
    first = wait_for_world(checkout.root, building)
    kill(building)
    child = checkout.start("--drill", "--seed=7", env=env)
    checkout.wait_for_event(child, "intent", action="restore to isolated instance")
    second = checkout.world_folder()
    kill(child)

    done = subprocess.run(
        [sys.executable, "-m", "fixtures.drill.clean"],
        cwd=checkout.root,
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout.count("ended folder") == 2, done.stdout
    for world in (first, second):
        assert processes_of(world) == []
        assert not world.exists()


def assert_refused(incident, verb):
    """A running session keeps others out, and they leave no trace."""
    before = sorted(path.name for path in incident.folder.iterdir())
    refused = incident.checkout.run(verb)

    assert refused.code == 4, refused.output
    assert "RB202" in refused.output
    assert sorted(path.name for path in incident.folder.iterdir()) == before


def assert_rolled_back(incident, *, but=()):
    """The rollback ends with 1, the outside audit is green, and production keeps fence and connection string."""
    session = incident.session("--rollback")

    assert session.wait() == 1, session.text[-4000:]
    assert [check.id for check in incident.audit_rolled_back() if check.id not in but] == []
    assert but or incident.writable() == []
    assert incident.world.places.dsn.read_text() == incident.original
    assert incident.world.places.maintenance.exists()
    assert incident.lease() is None
