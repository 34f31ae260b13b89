"""The runbook on every disaster: served, audited from outside, and nothing left behind."""

import xml.etree.ElementTree as ET

import pytest

from fixtures.drill.disasters import CATALOGUE
from fixtures.manifest import MANIFEST
from tests.runbook.endings import check_dead, check_served


@pytest.mark.parametrize("disaster", sorted(CATALOGUE))
def test_the_drill_restores_after(disaster, checkout):
    """Every step passes, the outside audit agrees, and the world is gone."""
    session = checkout.run("--drill", f"--disaster={disaster}", "--seed=7", "--junitxml=out/drill.xml")

    assert session.code == 0, session.output[-3000:]
    check_served(checkout)
    if CATALOGUE[disaster].kills:
        check_dead(checkout, session)
    suite = next(ET.parse(checkout.root / "out" / "drill.xml").iter("testsuite"))
    assert int(suite.get("tests")) == len(MANIFEST) + 1
    assert {suite.get(bad) for bad in ("failures", "errors", "skipped")} == {"0"}
