"""Sessions that must be refused, as a person types them: each ends before anything is created."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from fixtures.manifest import MANIFEST

#: options that would break the order, completeness or privacy of the steps
BREAKING = (
    ("-k", "canary"),
    ("-m", "slow"),
    ("--deselect", "runbook_tests/test_07_integrity.py"),
    ("-x",),
    ("--pdb",),
    ("--trace",),
    ("--setup-only",),
    ("--setup-plan",),
    ("--setup-show",),
    ("--showlocals",),
    ("--runxfail",),
    ("--stepwise",),
    ("--last-failed",),
    ("--continue-on-collection-errors",),
    ("-p", "no:fixtures.allure_guard"),
)


@pytest.fixture
def untouched(checkout):
    """A copy of the checkout; whatever a test does with it, no run may be created in it."""
    before = created(checkout)
    yield checkout

    assert created(checkout) == before


def created(checkout):
    """Return what a session could create: runs, leases, tickets, a history."""
    reports = checkout.root / "reports"
    return {path for name in ("runs", "leases", "tickets") for path in (reports / name).glob("*")} | set(
        reports.glob("history*")
    )


def refused(session):
    """Assert that a session was refused as a usage error, without a stack; return what it said."""
    assert session.code == 4, session.output[-2000:]
    assert "Traceback" not in session.output
    assert " passed" not in session.output
    return session.output


# -- nothing starts by itself ------------------------------------------------------------------------


def test_pytest_alone_names_the_choices(untouched):
    """Without a target, a drill or a verb there is nothing to run."""
    output = refused(untouched.run())

    assert "RB101" in output
    for choice in ("--target-time=", "--drill", "--resume", "--status", "--rollback", "--release"):
        assert choice in output


@pytest.mark.parametrize("path", [".", "runbook_tests", "runbook_tests/test_07_integrity.py"])
def test_a_step_is_never_run_for_its_own_sake(path, untouched):
    """Neither one step, nor the folder, nor everything at once starts the runbook."""
    assert "RB101" in refused(untouched.run(path))


def test_other_tests_never_start_the_runbook(untouched):
    """A session on the project's own tests is an ordinary pytest session."""
    tests = untouched.root / "tests"
    tests.mkdir()
    (tests / "test_own.py").write_text('"""Own."""\n\ndef test_own():\n    assert True\n')

    session = untouched.run("tests", "-x", "-k", "own")

    assert session.code == 0, session.output
    assert "1 passed" in session.output


def test_other_tests_beside_the_runbook_are_refused(untouched):
    """What is not of the runbook has no place in its session."""
    tests = untouched.root / "tests"
    tests.mkdir()
    (tests / "test_own.py").write_text('"""Own."""\n\ndef test_own():\n    assert True\n')

    assert "not of the runbook test_own" in refused(
        untouched.run("--drill", "--seed=1", "tests", "runbook_tests")
    )


def test_collecting_starts_nothing(untouched):
    """--collect-only lists all tests, with and without a run."""
    for arguments in (("--collect-only", "-q"), ("--drill", "--collect-only", "-q")):
        session = untouched.run(*arguments)

        assert session.code == 0, session.output
        assert f"{len(MANIFEST)} tests collected" in session.output


@pytest.mark.parametrize("option", ["--help", "--fixtures"])
def test_asking_pytest_something_starts_nothing(option, untouched):
    """An informative option beside --drill informs and runs nothing."""
    session = untouched.run("--drill", "--seed=1", option)

    assert session.code == 0, session.output[-2000:]
    assert "drill:" not in session.output


# -- options that break the guarantees ---------------------------------------------------------------


def test_options_that_break_the_steps_are_refused(untouched):
    """Skipping, stopping, repeating or stepping into steps is refused, each by name."""
    output = refused(untouched.run("--drill", "--seed=1", *(word for words in BREAKING for word in words)))

    assert "RB104" in output
    missing = [words for words in BREAKING if words[0] not in output and " ".join(words) not in output]
    assert missing == []


@pytest.mark.parametrize(
    "breaking", ["-x", "-n2", "--pdb", "--setup-plan", "--deselect=runbook_tests/test_08_canary.py"]
)
def test_one_such_option_is_enough(breaking, untouched):
    """A single one is refused as well as many."""
    assert "RB104" in refused(untouched.run("--drill", "--seed=1", breaking))


def test_an_incident_is_guarded_like_a_drill(untouched):
    """The guards come before the configuration is even read."""
    assert "RB104" in refused(untouched.run("--target-time=latest", "--config=no-such.toml", "-x"))


def test_options_from_the_environment_count(untouched):
    """PYTEST_ADDOPTS is a command line too."""
    assert "-x/--maxfail" in refused(untouched.run("--drill", "--seed=1", env={"PYTEST_ADDOPTS": "-x"}))


@pytest.mark.parametrize("spread", [("-n", "2"), ("--reruns=2",)])
def test_spreading_and_repeating_are_refused(spread, untouched):
    """Xdist and reruns are refused, and unknown where they are not installed."""
    assert re.search("RB104|unrecognized arguments", refused(untouched.run("--drill", "--seed=1", *spread)))


@pytest.mark.parametrize("plugin", ["dependency", "allure_pytest"])
def test_a_missing_plugin_is_refused(plugin, untouched):
    """Without gating or without results there is no runbook."""
    assert "Missing required plugins" in refused(untouched.run("--drill", "--seed=1", "-p", f"no:{plugin}"))


def test_optimised_python_is_refused(untouched):
    """Python -O takes every assert away."""
    session = subprocess.run(
        [sys.executable, "-O", "-m", "pytest", "--drill", "--seed=1"],
        cwd=untouched.root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
    )

    assert session.returncode == 4, session.stdout + session.stderr
    assert "python -O" in session.stdout + session.stderr


# -- incomplete and altered runbooks -----------------------------------------------------------------


def test_a_deleted_step_is_missed(untouched):
    """A runbook without its canary is none."""
    (untouched.root / "runbook_tests" / "test_08_canary.py").unlink()

    assert "missing s08.canary" in refused(untouched.run("--drill", "--seed=1"))


def test_an_ignored_step_is_missed(untouched):
    """--ignore takes a step away as well as deleting it."""
    output = refused(
        untouched.run("--drill", "--seed=1", "--ignore=runbook_tests/test_03_pre_restore_backup.py")
    )

    assert "missing s03.safety_copy" in output


def test_a_doubled_step_is_noticed(untouched):
    """Two tests of one name are a mistake, whatever their files are called."""
    steps = untouched.root / "runbook_tests"
    shutil.copy(steps / "test_08_canary.py", steps / "test_08_canary_again.py")

    assert "doubled s08.canary" in refused(untouched.run("--drill", "--seed=1"))


def test_a_foreign_test_among_the_steps_is_noticed(untouched):
    """A test without a place in the manifest proves nothing the report could show."""
    (untouched.root / "runbook_tests" / "test_extra.py").write_text('"""Extra."""\n\ndef test_extra(): ...\n')

    assert "not of the runbook test_extra" in refused(untouched.run("--drill", "--seed=1"))


def test_a_broken_step_file_is_refused(untouched):
    """What cannot be collected is an error before anything is touched."""
    (untouched.root / "runbook_tests" / "test_08_canary.py").write_text("import nothing_of_that_name\n")

    session = untouched.run("--drill", "--seed=1")

    assert session.code in {2, 4}, session.output[-2000:]
    assert "nothing_of_that_name" in session.output


# -- values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--drill", "--disaster=drup"), "RB702"),
        (("--drill", "--until=canery"), "'canary'"),
        (("--resume", "--plan"), "RB101"),
        (("--drill", "--config=no-such.toml"), "RB105"),
        (("--target-time=2025-10-05T12:34:00",), "RB102"),
        (("--target-time=2025-10-05T12:34:00Z",), "RB107"),
        (("--target-time=2025-10-05T12:34:00Z", "--plan"), "RB107"),
        (("--target-time=2025-10-05T12:34:00Z", "--config=no-such.toml"), "RB105"),
        (("--resume",), "RB203"),
        (("--rollback=nothing",), "RB203"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_refused_with_a_hint(arguments, told, untouched):
    """Unknown names, contradictions and missing runs are told by code, and say what to do."""
    output = refused(untouched.run(*arguments))

    assert told in output
    assert "HINT:" in output
