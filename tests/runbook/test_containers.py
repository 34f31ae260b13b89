"""The drill in containers: served and audited, isolated by trying, and nothing left in the engine however it ends."""

import json
import signal
from pathlib import Path

import pytest
from aftermath import events, kill, wait_for_world

from fixtures.drill.clean import clean
from fixtures.drill.containers.layout import DATA_LABEL, Layout
from fixtures.drill.containers.probes import probe_isolation
from tests.engine import MAJORS, WHEEL_MAJOR, everything_in

PROBES = {
    "network",
    "production's address",
    "production's published port",
    "a service of this machine",
    "a write into production's archive",
}


@pytest.fixture
def contained(checkout, image):
    """A small, fast drill on our own image."""
    checkout.edit('world = "embedded"', f'world = "containers"\n\n[drill.containers]\nimage = "{image}"')
    return checkout


def layout_of(checkout) -> Layout:
    """Return the newest run's container world."""
    return Layout.of(checkout.world_folder())


def isolation(checkout) -> dict[str, set[str]]:
    """Return the verdicts of what was tried from inside the copy's container, by subject."""
    found: dict[str, set[str]] = {}
    for record in checkout.state().evidence["s05.restored"]:
        for check in record["checks"]:
            subject = check["id"].partition(":")[2]
            if subject in PROBES:
                found.setdefault(subject, set()).add(check["verdict"])
    return found


def test_the_drill_restores_in_containers(contained, engine):
    """Every step passes on the image's own version, the outside audit agrees, and the engine is as before."""
    major = MAJORS[0]  # the test of a stopped drill goes through all steps on the wheel's
    before = everything_in(engine)

    session = contained.run("--drill", f"--pg-major={major}", "--disaster=deploy", "--seed=7")

    assert session.code == 0, session.output[-3000:]
    summary = contained.summary()
    assert {step["status"] for step in summary["steps"]} == {"passed"}
    assert summary["protected"]["state"] == "PROTECTED"
    audit = [check for check in summary["audit"] if check["verdict"] not in {"pass", "not-applicable"}]
    assert audit == []
    assert isolation(contained) == {subject: {"pass"} for subject in PROBES}
    # as the image's own postgres said it
    assert json.loads((contained.folder / "world.json").read_text())["major"] == major
    assert not contained.world_folder().exists()
    assert everything_in(engine) == before


def test_killed_drills_leave_nothing_behind(contained, engine):
    """Killed while its world is built, in the restore, and after the switch: the next start ends what is left."""
    before = everything_in(engine)
    building = contained.start("--drill", "--seed=7")
    wait_for_world(contained.root, building, job="broker")
    kill(building)

    restoring = contained.start("--drill", "--seed=7")
    contained.wait_for_event(restoring, "intent", action="restore to isolated instance")
    folder = contained.folder
    kill(restoring)
    assert engine.labelled(folder.name)

    serving = contained.start("--drill", "--seed=7")
    contained.wait_for_event(serving, "test-started", test="s10.objectives_held")
    last = contained.folder
    assert engine.labelled(folder.name) == []
    serving.send_signal(signal.SIGKILL)
    said, _ = serving.communicate()
    assert said.count("left: ") == 1, (
        said
    )  # the second start ended what the first left, this one the second's

    assert len(engine.labelled(last.name)) == 4  # production, restored, toolbox, network
    assert [path.parent for path, _ in clean(contained.root / "reports" / "runs")] == [last]
    assert everything_in(engine) == before


def test_a_stopped_drill_keeps_its_containers_and_its_isolation_is_tried(contained, engine):
    """A copy moved onto a network is caught, production's address included; put back, the drill goes on."""
    before = everything_in(engine)
    stopped = contained.run(
        "--drill", f"--pg-major={WHEEL_MAJOR}", "--seed=7", "--disaster=drop", "--until=restore"
    )
    assert stopped.code == 11, stopped.output[-3000:]
    layout, folder = layout_of(contained), contained.folder
    data = layout.places.restored / folder.name / "data"
    copy = engine.server(folder.name, DATA_LABEL, str(data))
    nothing, production = engine.client.networks.get("none"), engine.client.networks.get(layout.network)

    nothing.disconnect(copy)
    other = engine.client.networks.create(f"{layout.network}-other", labels=layout.labels)
    other.connect(copy)
    assert open_to(layout, data) == {"network", "a service of this machine"}

    other.disconnect(copy)
    other.remove()
    production.connect(copy)
    assert open_to(layout, data) == {"network", "a service of this machine", "production's address"}

    production.disconnect(copy)
    nothing.connect(copy)
    assert open_to(layout, data) == set()

    resumed = contained.run("--resume")
    assert resumed.code == 0, resumed.output[-3000:]
    assert len(events(folder, "intent", action="restore to isolated instance")) == 1
    assert everything_in(engine) == before


def test_a_failed_drill_is_rolled_back_and_leaves_nothing(contained, engine):
    """Ctrl-C in the middle: rolled back, code 2, and the engine as before."""
    before = everything_in(engine)
    child = contained.start("--drill", "--seed=7")
    contained.wait_for_event(child, "test-started", test="s04.target_reachable")
    child.send_signal(signal.SIGINT)
    said, _ = child.communicate(timeout=300)

    assert child.returncode == 2, said[-3000:]
    assert not contained.world_folder().exists()
    assert everything_in(engine) == before


def test_an_image_from_nowhere_names_the_recipe(contained, engine):
    """Neither here nor to be pulled: refused before anything is made, with the command that builds one."""
    before = everything_in(engine)
    text = (contained.root / "runbook.toml").read_text()
    name = text.partition('image = "')[2].partition('"')[0]
    contained.edit(name, "localhost:1/nowhere:{major}")

    session = contained.run("--drill", "--pg-major=15")

    assert session.code == 4, session.output
    assert "RB705 the image localhost:1/nowhere:15 is not here" in session.output
    assert "make image MAJOR=15" in session.output
    assert not list((contained.root / "reports" / "runs").glob("*/journal.jsonl"))
    assert everything_in(engine) == before


def test_without_an_engine_the_drill_says_so(checkout):
    """No engine, no drill in containers: code 4, and nothing is left, not even a folder."""
    session = checkout.run("--drill=containers", env={"DOCKER_HOST": "unix:///nowhere/docker.sock"})

    assert session.code == 4, session.output
    assert "RB704 no container engine answers" in session.output
    assert "make drill" in session.output
    assert not list((checkout.root / "reports" / "runs").glob("*/world.json"))


def open_to(layout: Layout, data: Path) -> set[str]:
    """Return what the copy could reach, or be reached by."""
    findings = probe_isolation(layout, data)
    assert {finding.subject for finding in findings} == PROBES
    return {finding.subject for finding in findings if not finding.holds}
