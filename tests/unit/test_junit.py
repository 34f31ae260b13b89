"""pytest's JUnit file of a run: nothing secret in it, and never greener than the exit code."""

import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from fixtures.errors import ExitCode
from fixtures.junit import RUN, clean
from fixtures.outcome import MEANING

ROOT = Path(__file__).parents[2]
NEEDLES = ("correct-horse-battery", "hunter2hunter2", "jane.doe")
LEAKING = """
import logging, sys
import pytest
from fixtures.evidence import Secret

Secret("correct-horse-battery")
ALL = "correct-horse-battery postgresql://app:hunter2hunter2@db/x jane.doe@example.org"

@pytest.fixture
def breaking():
    yield
    raise RuntimeError(ALL)

def test_failing(record_property):
    record_property("about", ALL)
    print(ALL)
    print(ALL, file=sys.stderr)
    logging.getLogger().warning(ALL)
    assert ALL == ""

def test_skipped():
    pytest.skip(ALL)

def test_broken_behind_it(breaking):
    pass
"""
#: the session is a run, as far as the plug-in can see
A_RUN = """
from fixtures.options import Request
from fixtures.steps import REQUEST

pytest_plugins = ["fixtures.junit"]

def pytest_configure(config):
    config.stash[REQUEST] = Request(verb={verb!r})

def pytest_sessionfinish(session):
    session.exitstatus = {code}
"""


@pytest.fixture
def junit_of(pytester, monkeypatch):
    """Run tests as a run that ends with a code; return the JUnit file's text."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(
        code: int, *, verb: str = "run", body: str = "def test_green():\n    pass\n", logging: str = "no"
    ) -> str:
        pytester.makeconftest(A_RUN.format(verb=verb, code=code))
        pytester.makepyfile(textwrap.dedent(body))
        result = pytester.runpytest_subprocess(
            "--junitxml=out/here.xml", "-o", f"junit_logging={logging}", "-p", "no:allure_pytest"
        )
        assert "generated xml file: " in result.stdout.str()
        assert "here.xml" in result.stdout.str()
        return (pytester.path / "out" / "here.xml").read_text()

    return run


def cases(text):
    """Return name -> tags inside, per test case."""
    return {case.get("name"): {child.tag for child in case} for case in ET.fromstring(text).iter("testcase")}


def test_nothing_secret_reaches_the_file(junit_of, pytester):
    """Messages, traces, captured output, logs and properties are redacted; the host's name is nobody's business."""
    text = junit_of(1, body=LEAKING, logging="all")

    assert [needle for needle in NEEDLES if needle in text] == []
    assert {"failure", "properties"} <= cases(text)["test_failing"]
    assert 'hostname="operator-host"' in text
    assert [path.name for path in (pytester.path / "out").iterdir()] == ["here.xml"]


def test_the_file_is_not_greener_than_the_run(junit_of):
    """Every test passed, and the run did not end well: the file says so."""
    text = junit_of(12)
    suite = next(ET.fromstring(text).iter("testsuite"))

    assert cases(text) == {"test_green": set(), RUN: {"failure"}}
    assert MEANING[ExitCode.REPORT_FAILED] in text
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


def test_a_run_that_ended_well_is_green(junit_of):
    """The case for the run itself is there, and passes."""
    assert cases(junit_of(0)) == {"test_green": set(), RUN: set()}


def test_other_sessions_keep_pytests_own_file(junit_of):
    """The project's own tests are no run."""
    assert cases(junit_of(0, verb="")) == {"test_green": set()}


def test_a_code_of_pytests_own_is_told():
    """An exit code the runbook does not have is a failure too."""
    root = ET.fromstring('<testsuites><testsuite tests="0" failures="0"/></testsuites>')

    clean(root, 5)

    assert "exit code 5" in root.find(".//failure").get("message")
