"""The runbook on every disaster: served, audited from outside, and nothing left behind."""

import xml.etree.ElementTree as ET

import pytest

from fixtures.drill.disasters import CATALOGUE
from fixtures.manifest import MANIFEST


@pytest.mark.parametrize("disaster", sorted(CATALOGUE))
def test_the_drill_restores_after(disaster, checkout):
    """Every step passes, the outside audit agrees, and the world is gone."""
    session = checkout.run("--drill", f"--disaster={disaster}", "--seed=7", "--junitxml=out/drill.xml")

    assert session.code == 0, session.output[-3000:]
    summary = checkout.summary()
    assert {step["status"] for step in summary["steps"]} == {"passed"}
    assert summary["protected"]["state"] == "PROTECTED"
    assert summary["rpo"]["verdict"] == "met"
    assert summary["rto"]["verdict"] == "met"
    audit = [check for check in summary["audit"] if check["verdict"] not in {"pass", "not-applicable"}]
    assert audit == []
    assert not checkout.world_folder().exists()
    suite = next(ET.parse(checkout.root / "out" / "drill.xml").iter("testsuite"))
    assert int(suite.get("tests")) == len(MANIFEST) + 1
    assert {suite.get(bad) for bad in ("failures", "errors", "skipped")} == {"0"}
