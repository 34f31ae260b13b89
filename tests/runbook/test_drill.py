"""The runbook on every disaster: served, audited from outside, and nothing left behind."""

import shutil
import xml.etree.ElementTree as ET

import pytest

from fixtures.drill.archiving import ARCHIVING
from fixtures.drill.disasters import CATALOGUE
from fixtures.drill.neon_simulator.description import OBTAINED
from fixtures.manifest import MANIFEST
from tests.missing import missing


@pytest.mark.parametrize("disaster", sorted(CATALOGUE))
def test_the_drill_restores_after(disaster, checkout):
    """Every step passes, the outside audit agrees, and the world is gone."""
    session = checkout.run("--drill", f"--disaster={disaster}", "--seed=7", "--junitxml=out/drill.xml")

    assert session.code == 0, session.output[-3000:]
    check_served(checkout)
    suite = next(ET.parse(checkout.root / "out" / "drill.xml").iter("testsuite"))
    assert int(suite.get("tests")) == len(MANIFEST) + 1
    assert {suite.get(bad) for bad in ("failures", "errors", "skipped")} == {"0"}


@pytest.mark.parametrize("way", sorted(set(ARCHIVING) - {"basebackup"}))
def test_the_drill_restores_through(way, checkout):
    """The same runbook, with production backed up for another provider, and served into its new place."""
    lacking = [tool for tool in ARCHIVING[way].tools if shutil.which(tool) is None]
    if lacking:
        missing(f"{', '.join(lacking)} for a drill through {way}")
    if way == "neon" and not OBTAINED.is_file():
        missing("the API description of Neon (make neon-api)")
    session = checkout.run("--drill", f"--provider={way}", "--disaster=drop", "--seed=7")

    assert session.code == 0, session.output[-3000:]
    check_served(checkout)
    assert checkout.summary()["provider"] == ARCHIVING[way].provider


def test_a_drill_goes_through_no_provider_it_did_not_make(checkout):
    """A repository named in the drill's file could be production's."""
    checkout.edit(
        'name = "basebackup" ', 'name = "pgbackrest"\n[provider.pgbackrest]\nstanza = "production"\n#'
    )

    assert checkout.run("--drill", "--seed=7").code == 4
    assert checkout.run("--drill", "--provider=nobody").code == 4
    assert checkout.run("--provider=pgbackrest", "--target-time=latest").code == 4


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
