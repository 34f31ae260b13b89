"""
The code keeps to its rooms: who imports whom, who touches processes and the environment, what a step may hold.

Read from the source text, so that a lazy import inside a function counts as well.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from fixtures.checks import GROUPS
from fixtures.errors import CATALOGUE
from fixtures.manifest import MANIFEST, STEPS
from fixtures.plan import ACTIONS

ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "fixtures").rglob("*.py"))
REPORTS = sorted((ROOT / "reports").glob("*.py"))
STEP_FILES = sorted((ROOT / "runbook_tests").glob("test_*.py"))

#: rooms from the ground up; a room imports from lower floors only, never from its own floor
FLOORS = (
    ("fixtures.terminal",),
    ("fixtures.errors", "fixtures.files", "fixtures.interrupts", "fixtures.packages", "fixtures.times"),
    ("fixtures.evidence", "fixtures.settings", "fixtures.manifest", "fixtures.gates", "fixtures.lease"),
    ("fixtures.config", "fixtures.journal", "fixtures.command", "fixtures.progress", "fixtures.scratch"),
    ("fixtures.state", "fixtures.postgres", "fixtures.signatures"),
    ("fixtures.providers.access",),
    ("fixtures.adoption", "fixtures.screen", "fixtures.migrations", "fixtures.providers.base"),
    ("fixtures.providers.objects", "fixtures.providers.compare"),
    ("fixtures.providers.local", "fixtures.providers.remote"),
    # the adapters: none knows another; what they share are the value types of fixtures.providers.base,
    # and what is the same for every restored copy on this machine, or on a server elsewhere
    (
        "fixtures.app",
        "fixtures.checks",
        "fixtures.drill",
        "fixtures.monitoring",
        "fixtures.production",
        "fixtures.providers.barman",
        "fixtures.providers.basebackup",
        "fixtures.providers.command",
        "fixtures.providers.dump",
        "fixtures.providers.neon",
        "fixtures.providers.pgbackrest",
        "fixtures.providers.rds",
        "fixtures.providers.walg",
        "fixtures.tickets",
    ),
    ("fixtures.providers",),
    ("fixtures.context", "fixtures.options"),
    ("fixtures.measures", "fixtures.steps", "fixtures.actions.common"),
    ("fixtures.undo", "fixtures.allure_guard"),
    ("fixtures.rollback", "fixtures.stage"),
    ("fixtures.actions", "reports"),
    ("fixtures.outcome", "fixtures.runs"),
    ("fixtures.junit", "fixtures.plan", "reports.docs"),
    ("fixtures.attest", "fixtures.verbs"),
    ("fixtures.session",),
)
#: two modules, one room: step 1's actions and who asks for what they established (undo entries ask
#: too); the contract of an action and the run it is given, which name each other in their types
SHARED = {
    "fixtures.actions.incident": "fixtures.actions.common",
    "fixtures.action": "fixtures.context",
}
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
#: lines a file may have
LONGEST = 400
#: files past it, with the lines they may have: none may grow, none may join
LONGER = {
    "fixtures/actions/cutover.py": 460,
    "fixtures/command.py": 420,
    "fixtures/context.py": 490,
    "fixtures/providers/base.py": 450,
    "fixtures/providers/command/backend.py": 405,
    "fixtures/runs.py": 530,
}
STEP_LINES = 80
#: the only places that read the environment: settings of a run, a child's small copy of it, and a program
#: that stands alone and hands its own on
ENVIRONMENT = {"fixtures/config.py", "fixtures/command.py", "fixtures/drill/containers/shim.py"}
#: the only places that start, wait for or signal processes; a drill's world ends its own strays by pid,
#: and its broker passes a caller's signals on
PROCESSES = {"fixtures/command.py", "fixtures/drill/record.py", "fixtures/drill/containers/broker.py"}
#: what only those may use
FORBIDDEN = re.compile(
    r"subprocess\b|multiprocessing\b|asyncio\b|pty\b"
    r"|os\.(fork|forkpty|exec\w*|spawn\w*|posix_spawnp?|popen|system|kill|killpg|wait\w*)\b|time\.sleep\b"
)


@cache
def tree(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    """Return a file's module name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """Return the room a module lives in: the longest one that its name begins with."""
    module = SHARED.get(module, module)
    return max((room for room in FLOOR if f"{module}.".startswith(f"{room}.")), key=len, default="")


def imported(path: Path) -> Iterator[str]:
    """Yield the project's modules that a file imports, at its top or later."""
    known = {name_of(each) for each in (*LIBRARY, *REPORTS)}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def used(path: Path) -> Iterator[str]:
    """Yield every dotted name and imported name of a file: `os.kill`, `time.sleep`, `subprocess`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def shown(path: Path) -> str:
    """Return a path from the checkout."""
    return str(path.relative_to(ROOT))


# -- rooms -------------------------------------------------------------------------------------------


def test_every_module_has_a_room():
    """A new module is placed on a floor on purpose."""
    homeless = [shown(path) for path in (*LIBRARY, *REPORTS) if not room_of(name_of(path))]

    assert homeless in ([], ["fixtures/__init__.py"])


def test_every_room_is_lived_in():
    """The plan of the house names no room that is gone."""
    names = {name_of(path) for path in (*LIBRARY, *REPORTS)}

    assert sorted(FLOOR) == sorted(
        room for room in FLOOR if any(f"{n}.".startswith(f"{room}.") for n in names)
    )


def test_imports_point_downwards():
    """A room knows lower floors only; so no adapter knows another, and nothing below knows the session."""
    wrong = []
    for path in (*LIBRARY, *REPORTS):
        own = room_of(name_of(path))
        for module in imported(path):
            other = room_of(module)
            if other and own and other != own and FLOOR[other] >= FLOOR[own]:
                wrong.append(f"{shown(path)} imports {module}")

    assert wrong == []


def test_steps_stand_on_actions_alone():
    """A step file imports its actions and the step mark, nothing else."""
    wrong = [
        f"{path.name} imports {module}"
        for path in STEP_FILES
        for module in imported(path)
        if not module.startswith("fixtures.actions.") and module != "fixtures.steps"
    ]

    assert wrong == []


# -- doors -------------------------------------------------------------------------------------------


def test_only_the_configuration_reads_the_environment():
    """What a run depends on is read once, in one place."""
    found = {
        shown(path)
        for path in (*LIBRARY, *REPORTS, *STEP_FILES)
        if any(re.match(r"os\.(environb?|getenvb?|putenv|unsetenv)\b", name) for name in used(path))
    }

    assert found == ENVIRONMENT


def test_only_command_starts_processes_and_waits():
    """Every wait has its bound, and every child its minimal environment, because there is one door."""
    found = {
        shown(path)
        for path in (*LIBRARY, *REPORTS, *STEP_FILES)
        if any(FORBIDDEN.match(name) for name in used(path))
    }

    assert found == PROCESSES


def test_threads_are_only_in_the_drills_own_programs():
    """The runner has one thread: an interrupt finds it in one place."""
    found = {shown(path) for path in (*LIBRARY, *REPORTS) if "threading" in set(used(path))}

    assert {path for path in found if not path.startswith("fixtures/drill/")} == set()


def test_library_code_raises_and_never_asserts():
    """An assert in a plain module vanishes under -O and says nothing a person can act on."""
    found = [
        f"{shown(path)}:{node.lineno}"
        for path in (*LIBRARY, *REPORTS)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Assert)
    ]

    assert found == []


# -- steps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", STEP_FILES, ids=lambda path: path.stem)
def test_a_step_reads_like_the_runbook(path):
    """A step holds claims: no branch, loop, text of its own, and few lines."""
    nodes = list(ast.walk(tree(path)))
    docstrings = {
        ast.get_docstring(node, clean=False)
        for node in nodes
        if isinstance(node, ast.Module | ast.FunctionDef)
    }
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    branches = (
        ast.If,
        ast.IfExp,
        ast.For,
        ast.While,
        ast.Try,
        ast.With,
        ast.Match,
        ast.Lambda,
        ast.comprehension,
    )

    assert [type(node).__name__ for node in nodes if isinstance(node, branches)] == []
    assert texts - docstrings - set(MANIFEST) - set(GROUPS) <= {""}
    assert path.stem == "test_07_integrity" or len(path.read_text().splitlines()) <= STEP_LINES


@pytest.mark.parametrize("path", STEP_FILES, ids=lambda path: path.stem)
def test_a_step_says_what_it_needs_proves_and_undoes(path):
    """The file's docstring is the runbook's own text."""
    text = ast.get_docstring(tree(path)) or ""

    assert text.startswith(f"Step {int(path.stem[5:7])} - ")
    for label in ("Before:", "Proves:", "Undo:"):
        assert label in text


def test_step_files_are_the_manifest():
    """One step, one file, each test once, in the manifest's order."""
    names = [name for path in STEP_FILES for name, _ in _performed(path)]

    assert [path.stem for path in STEP_FILES] == [f"test_{step.number:02}_{step.name}" for step in STEPS]
    assert names == list(MANIFEST)


def test_the_plan_is_of_the_actions_that_run():
    """--plan asks the very actions the steps perform."""
    performed = {name: call for path in STEP_FILES for name, call in _performed(path) if call}
    planned = {
        name: f"{type(action).__name__}({getattr(action, 'group', '')})" for name, action in ACTIONS.items()
    }

    assert planned == performed


def _performed(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each test's manifest name and the action it performs, as `Name(argument)`."""
    for function in tree(path).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        mark = next(call for call in function.decorator_list if isinstance(call, ast.Call))
        calls = [
            node.args[0]
            for node in ast.walk(function)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "perform"
        ]
        action = "".join(
            f"{ast.unparse(call.func)}({', '.join(a.value for a in call.args)})" for call in calls
        )
        yield mark.args[0].value, action


# -- errors and sizes --------------------------------------------------------------------------------


def test_every_error_code_is_in_the_catalogue_and_used():
    """A code a person sees can be looked up, and the catalogue promises none that cannot be seen."""
    code = re.compile(r"RB\d{3}")
    raised = {
        found
        for path in (*LIBRARY, *REPORTS)
        if path.name != "errors.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for found in code.findall(node.value)
        if "Raises:" not in node.value
    }

    assert raised - set(CATALOGUE) == set()
    assert set(CATALOGUE) - raised == set()


def test_no_file_is_too_long_to_be_read():
    """A file that grows past the limit holds two subjects."""
    long = {
        shown(path): length
        for path in (*LIBRARY, *REPORTS, *STEP_FILES)
        if (length := len(path.read_text(encoding="utf-8").splitlines())) > LONGER.get(shown(path), LONGEST)
    }

    assert long == {}
