"""The runbook through each way of backing production up, but the one every other drill takes."""

import shutil

import pytest

from fixtures.drill.archiving import ARCHIVING
from fixtures.drill.neon_simulator.description import OBTAINED
from fixtures.settings.whole import SERVICES
from tests.missing import missing
from tests.runbook.endings import check_dead, check_served

#: basebackup: every other drill's; neon-in-place: test_drill_neon.py takes it through a kill, too
ELSEWHERE = {"basebackup", "neon-in-place"}


@pytest.mark.parametrize(
    ("way", "disaster"),
    [(way, disaster) for way in sorted(set(ARCHIVING) - ELSEWHERE) for disaster in ("drop", "down")],
)
def test_the_drill_restores_through(way, disaster, checkout):
    """The same runbook, with production backed up for another provider, damaged or down, and served anew."""
    lacking = [tool for tool in ARCHIVING[way].tools if shutil.which(tool) is None]
    if lacking:
        missing(f"{', '.join(lacking)} for a drill through {way}")
    if way.startswith("neon") and not OBTAINED.is_file():
        missing("the API description of Neon (make neon-api)")
    session = checkout.run("--drill", f"--provider={way}", f"--disaster={disaster}", "--seed=7")

    assert session.code == 0, session.output[-3000:]
    check_served(checkout)
    if disaster == "down":
        check_dead(checkout, session)
    assert checkout.summary()["provider"] == ARCHIVING[way].provider
    ready = {
        check["id"]: check for each in checkout.state().evidence["s00.ready"] for check in each["checks"]
    }
    # a service keeps the log and the copies itself: nothing of this machine's was asked for them
    service = ARCHIVING[way].provider in SERVICES
    assert ("base backup(s)" in ready["backups"]["actual"]) != service
    assert (f"{SERVICES.get(ARCHIVING[way].provider)} from " in ready["backups"]["actual"]) == service
    spaces = {ready["space_for_the_restore"]["verdict"], ready["space_for_the_safety_copy"]["verdict"]}
    assert spaces == {"not-applicable" if service else "pass"}
    told = ARCHIVING[way].simulated
    assert checkout.summary()["simulated"] == told
    assert told in session.output
    assert all(told in path.read_text() for path in (checkout.folder / "ticket").glob("*.md"))


def test_a_drill_goes_through_no_provider_it_did_not_make(checkout):
    """A repository named in the drill's file could be production's."""
    checkout.edit(
        'name = "basebackup" ', 'name = "pgbackrest"\n[provider.pgbackrest]\nstanza = "production"\n#'
    )

    assert checkout.run("--drill", "--seed=7").code == 4
    assert checkout.run("--drill", "--provider=nobody").code == 4
    dead = checkout.run("--drill", "--provider=rds", "--disaster=delete-down")
    assert (dead.code, "RB101 no drill through rds has the disaster delete-down" in dead.output) == (4, True)
    assert checkout.run("--provider=pgbackrest", "--target-time=latest").code == 4
