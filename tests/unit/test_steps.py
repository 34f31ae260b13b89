"""Steps as pytest items: the ledger that decides green, order, completeness, exit codes, registries."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.action import Mode
from fixtures.errors import ExitCode, UsageError
from fixtures.manifest import CLOSE_OUT, INSPECTED, MANIFEST, STAGED, STEPS, depends_on, step_of
from fixtures.outcome import exit_code
from fixtures.plan import ACTIONS
from fixtures.steps import Ledger, order_items
from fixtures.undo import HANDLERS

ROOT = Path(__file__).resolve().parents[2]
#: a session with the real ledger around test files of its own; `run` records evidence when told to
CONFTEST = """
import json
from types import SimpleNamespace
import pytest
from fixtures.context import Mode, Recorded
from fixtures.errors import StepError, SuspendedError
from fixtures.steps import Ledger, StepsPlugin, step

NOTES = []
RUN = SimpleNamespace(
    recorded=Recorded(), options=SimpleNamespace(mode=Mode.DRILL, until=None), say=lambda line: None,
    say_headline=lambda: None, interrupted_by="", note=lambda kind, **data: NOTES.append([kind, data]), run_id="r",
)
LEDGER = Ledger()

def pytest_configure(config):
    config.pluginmanager.register(StepsPlugin(RUN, LEDGER))

def pytest_sessionfinish(session):
    (session.config.rootpath / "ledger.json").write_text(json.dumps(
        {"outcomes": LEDGER.outcomes, "reasons": LEDGER.reasons, "stop": LEDGER.stop,
         "suspended": LEDGER.suspended, "notes": NOTES}))

@pytest.fixture
def proves():
    RUN.recorded.evidence.append("something")

@pytest.fixture
def broken_setup():
    raise OSError("the disk is gone")

@pytest.fixture
def broken_teardown(proves):
    yield
    raise OSError("the disk is gone")
"""
HEAD = (
    "import pytest\nfrom fixtures.steps import step\nfrom fixtures.errors import StepError, SuspendedError\n"
)
NEXT = '\n@step("s01.declared")\ndef test_next(proves):\n    pass\n'


@pytest.fixture
def session(pytester: pytest.Pytester) -> Any:
    """Run one step's body under the real ledger, and another step after it; return what it holds."""
    pytester.makeconftest(CONFTEST)

    def run(body: str, *, fixtures: str = "proves") -> dict[str, Any]:
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        pytester.makepyfile(f'{HEAD}\n@step("s00.ready")\ndef test_first({fixtures}):\n{lines}\n{NEXT}')
        pytester.runpytest_inprocess("-p", "no:cacheprovider")
        loaded: dict[str, Any] = json.loads((pytester.path / "ledger.json").read_text())
        return loaded

    return run


def test_a_step_that_proves_something_is_green(session: Any) -> None:
    """Evidence and three passed phases: the next step runs."""
    ledger = session("pass")

    assert ledger["outcomes"] == {"s00.ready": "passed", "s01.declared": "passed"}
    assert ledger["stop"] == ""


def test_a_step_without_evidence_fails(session: Any) -> None:
    """A test that recorded nothing proved nothing, however well it ended."""
    ledger = session("pass", fixtures="")

    assert ledger["outcomes"] == {"s00.ready": "failed", "s01.declared": "skipped"}
    assert "RB902" in ledger["reasons"]["s00.ready"]
    assert ledger["reasons"]["s01.declared"] == "s00.ready failed"


@pytest.mark.parametrize(
    ("body", "fixtures", "outcome", "reason"),
    [
        ("assert 1 == 2", "proves", "failed", "assert 1 == 2"),
        ('raise StepError("RB211", "it is gone")', "proves", "failed", "RB211 it is gone"),
        ("1 / 0", "proves", "broken", "ZeroDivisionError"),
        ("raise SystemExit(0)", "proves", "broken", "SystemExit"),
        ('pytest.skip("not today")', "proves", "skipped", "not today"),
        ('pytest.xfail("known")', "proves", "broken", "known"),
        ("pass", "proves, broken_setup", "broken", "the disk is gone"),
        ("pass", "broken_teardown", "broken", "the disk is gone"),
    ],
    ids=["assert", "runbook", "bug", "exit", "skip", "xfail", "setup", "teardown"],
)
def test_whatever_is_not_a_pass_stops_everything_after_it(
    body: str, fixtures: str, outcome: str, reason: str, session: Any
) -> None:
    """All three phases count, and a skip or an expected failure is red."""
    ledger = session(body, fixtures=fixtures)

    assert ledger["outcomes"] == {"s00.ready": outcome, "s01.declared": "skipped"}
    assert reason in ledger["reasons"]["s00.ready"]
    assert ledger["stop"].startswith("s00.ready ")
    assert ledger["reasons"]["s01.declared"] == ledger["stop"]
    assert ledger["suspended"] is False
    results = [data["status"] for kind, data in ledger["notes"] if kind == "result"]
    assert results == [outcome, "skipped"]


@pytest.mark.parametrize("mark", ['skip(reason="no")', 'skipif(True, reason="no")', 'xfail(reason="no")'])
def test_a_mark_does_not_make_a_step_green(mark: str, pytester: pytest.Pytester) -> None:
    """A skipped or excused step stops the runbook, also when it was marked and not called."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        f'{HEAD}\n@pytest.mark.{mark}\n@step("s00.ready")\ndef test_first(proves):\n    assert False\n{NEXT}'
    )

    pytester.runpytest_inprocess("-p", "no:cacheprovider")

    ledger = json.loads((pytester.path / "ledger.json").read_text())
    assert ledger["outcomes"]["s00.ready"] != "passed"
    assert ledger["outcomes"]["s01.declared"] == "skipped"


def test_a_suspension_is_neither_a_failure_nor_a_pass(session: Any) -> None:
    """A gate nobody could pass skips the step and everything after it, and can be resumed."""
    ledger = session('raise SuspendedError("RB206", "gate waits")')

    assert ledger["suspended"] is True
    assert ledger["outcomes"] == {"s00.ready": "skipped", "s01.declared": "skipped"}
    assert ledger["stop"] == "stopped at s00.ready: gate waits"


def test_the_ledger_is_green_only_when_every_test_passed() -> None:
    """A test that did not run is not green."""
    ledger = Ledger(outcomes={"s00.ready": "passed", "s01.declared": "skipped"})

    assert ledger.green(("s00.ready",))
    assert not ledger.green(("s00.ready", "s01.declared"))
    assert not ledger.green(("s00.ready", "s02.lock_proven"))
    assert ledger.failed() == []


# -- order and completeness --------------------------------------------------------------------------


def item(name: str, *, fixtures: tuple[str, ...] = ()) -> Any:
    """Return what `order_items` looks at of an item."""
    mark = SimpleNamespace(kwargs={"name": name}) if name else None
    return SimpleNamespace(
        name=f"test_{name}", get_closest_marker=lambda _: mark, fixturenames=list(fixtures)
    )


def test_items_come_in_the_manifests_order() -> None:
    """Files and plug-ins may hand them over in any order."""
    ordered = order_items([item(name) for name in reversed(MANIFEST)])

    assert [each.name for each in ordered] == [f"test_{name}" for name in MANIFEST]


@pytest.mark.parametrize(
    ("names", "fact"),
    [
        ([name for name in MANIFEST if name != "s07.moment"], "missing s07.moment"),
        ([*MANIFEST, "s02.lock_proven"], "doubled s02.lock_proven"),
        ([*MANIFEST, ""], "not of the runbook test_"),
        ([*MANIFEST, "s99.stranger"], "not of the runbook test_s99.stranger"),
        ([], "missing s00.ready"),
    ],
    ids=["missing", "doubled", "foreign", "unknown", "none"],
)
def test_an_incomplete_runbook_is_refused(names: list[str], fact: str) -> None:
    """RB103 names what is missing, doubled or foreign."""
    with pytest.raises(UsageError) as caught:
        order_items([item(name) for name in names])

    assert caught.value.code == "RB103"
    assert fact in caught.value.fact


def test_a_step_with_subtests_is_refused() -> None:
    """A failing subtest leaves its test passed, so a step may have none."""
    items = [
        item(name, fixtures=("run", "subtests") if name == "s07.moment" else ("run",)) for name in MANIFEST
    ]

    with pytest.raises(UsageError) as caught:
        order_items(items)

    assert "with subtests test_s07.moment" in caught.value.fact


def test_every_test_depends_on_what_comes_before_it() -> None:
    """The first test of a step on every test of the step before, each other one on its neighbour."""
    for number, name in enumerate(MANIFEST):
        before = depends_on(name)
        if name == CLOSE_OUT or number == 0:
            assert before == []
        elif step_of(name).tests[0] == name:
            assert before == list(STEPS[step_of(name).number - 1].tests)
        else:
            assert before == [MANIFEST[number - 1]]
    assert depends_on("s04.target_reachable", part=INSPECTED) == list(STEPS[1].tests)
    assert depends_on("s05.restored", part=STAGED) == ["s04.target_reachable"]
    assert depends_on("s05.opened", part=STAGED) == ["s05.restored"]
    assert depends_on("s07.identity", part=STAGED) == ["s06.ledger_aligned"]


# -- exit codes --------------------------------------------------------------------------------------

WANTED = tuple(name for name in MANIFEST if name != CLOSE_OUT)
GREEN = dict.fromkeys(MANIFEST, "passed")
FAILED_7 = {**dict.fromkeys(MANIFEST[:15], "passed"), "s07.moment": "failed"}
WATCHED = {**dict.fromkeys(WANTED, "passed"), "s11.closed": "failed", CLOSE_OUT: "failed"}


def a_run(*, changed: bool = True, interrupted: str = "", mode: Mode = Mode.DRILL, **state: Any) -> Any:
    """Return what `exit_code` looks at of a run."""
    intents = [SimpleNamespace(kind="intent", data={"action": "open ticket"})] if changed else []
    inherited = SimpleNamespace(kind="intent", data={"action": "inherit maintenance_off from r"})
    return SimpleNamespace(
        state=SimpleNamespace(
            **{"rolled_back": None, "closed": False, "switched": False, "released": False, **state}
        ),
        journal=SimpleNamespace(events=[inherited, *intents]),
        interrupted_by=interrupted,
        options=SimpleNamespace(mode=mode),
    )


@pytest.mark.parametrize(
    ("code", "run", "ledger"),
    [
        (ExitCode.SERVED, a_run(closed=True), Ledger(outcomes=GREEN)),
        (ExitCode.REPORT_FAILED, a_run(closed=True), Ledger(outcomes={**GREEN, CLOSE_OUT: "failed"})),
        (ExitCode.REPORT_FAILED, a_run(), Ledger(outcomes=WATCHED)),
        (ExitCode.FAILED, a_run(rolled_back=True), Ledger(outcomes=FAILED_7)),
        (ExitCode.PERSON_MUST_ACT, a_run(rolled_back=False), Ledger(outcomes=FAILED_7)),
        (ExitCode.PERSON_MUST_ACT, a_run(rolled_back=False, closed=True), Ledger(outcomes=GREEN)),
        (ExitCode.PERSON_MUST_ACT, a_run(), Ledger(outcomes=FAILED_7)),
        (ExitCode.PERSON_MUST_ACT, a_run(), Ledger(outcomes={"s00.ready": "passed"})),
        (ExitCode.USAGE, a_run(changed=False), Ledger(outcomes={"s00.ready": "failed"})),
        (ExitCode.INTERNAL, a_run(changed=False), Ledger()),
        (ExitCode.SUSPENDED, a_run(), Ledger(outcomes={"s00.ready": "passed"}, suspended=True)),
        (ExitCode.SUSPENDED, a_run(changed=False), Ledger(suspended=True)),
        (ExitCode.INTERRUPTED, a_run(rolled_back=True, interrupted="SIGTERM"), Ledger()),
        (ExitCode.INTERRUPTED, a_run(changed=False, interrupted="SIGINT"), Ledger()),
        (ExitCode.FAILED, a_run(rolled_back=True, interrupted="SIGTERM"), Ledger(outcomes=FAILED_7)),
        (ExitCode.PERSON_MUST_ACT, a_run(interrupted="SIGTERM"), Ledger()),
        (ExitCode.PERSON_MUST_ACT, a_run(rolled_back=False, interrupted="SIGTERM"), Ledger()),
    ],
)
def test_the_exit_code_says_what_was_proven(code: ExitCode, run: Any, ledger: Ledger) -> None:
    """Worst first; what is not on record as rolled back is a person's to decide."""
    assert exit_code(run, ledger) is code


@pytest.mark.parametrize("outcome", ["skipped", "failed", "broken", None])
def test_one_test_that_is_not_green_is_never_served(outcome: str | None) -> None:
    """0 needs every test; 12 needs users served, watched, and everything before it green."""
    codes = {}
    for test in WANTED:
        outcomes = {name: found for name, found in {**GREEN, test: outcome}.items() if found is not None}
        codes[test] = exit_code(a_run(closed=True), Ledger(outcomes=outcomes))

    assert codes.pop("s11.closed") is ExitCode.REPORT_FAILED
    assert set(codes.values()) == {ExitCode.PERSON_MUST_ACT}


# -- registries --------------------------------------------------------------------------------------


def calls(folder: Path, name: str) -> Iterator[ast.Call]:
    """Yield every call of `name` below a folder."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                yield node


def test_every_undo_entry_has_a_handler() -> None:
    """Names are written in the calls, and the registry holds exactly these (and those of the tests' past)."""
    given = [
        keyword.value
        for call in calls(ROOT / "fixtures", "Undo")
        for keyword in call.keywords
        if keyword.arg == "name"
    ]
    names = {node.value for node in given if isinstance(node, ast.Constant)}
    computed = [ast.unparse(node) for node in given if not isinstance(node, ast.Constant)]

    assert names == set(HANDLERS)
    # entries read back from a journal or a lease keep the name they were written with
    assert set(computed) <= {'entry["name"]', "entry['name']"}


def test_the_plan_holds_what_the_steps_perform() -> None:
    """--plan shows the same actions that the step files run, test by test."""
    performed: dict[str, str] = {}
    for path in sorted((ROOT / "runbook_tests").glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            marks = [mark.args[0].value for mark in node.decorator_list if isinstance(mark, ast.Call)]  # type: ignore[attr-defined]
            wanted = [
                ast.unparse(call.args[0])
                for call in ast.walk(node)
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "run.perform"
            ]
            assert len(marks) == 1
            assert len(wanted) == (0 if marks == [CLOSE_OUT] else 1)
            performed.update(dict.fromkeys(marks, *wanted) if wanted else {})
    planned = {
        test: f"CheckGroup('{test.partition('.')[2]}')"
        if type(action).__name__ == "CheckGroup"
        else f"{type(action).__name__}()"
        for test, action in ACTIONS.items()
    }

    assert performed == planned
    assert set(performed) | {CLOSE_OUT} == set(MANIFEST)


def test_every_action_has_a_key_of_its_own() -> None:
    """Two actions under one key would take each other's result for theirs on a resume."""
    keys = [action.key for action in ACTIONS.values()]

    assert len(set(keys)) == len(keys)
    assert {action.key for action in ACTIONS.values() if action.until_switch} >= {
        "canary",
        "approved",
        "check_group.moment",
    }
    assert all(action.repeat for action in ACTIONS.values() if action.until_switch)
