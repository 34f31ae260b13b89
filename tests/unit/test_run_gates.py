"""A gate or a change in a run: who is told, what the journal keeps, and what the screen makes of it."""

from pathlib import Path

import pytest

from fixtures.context import RunContext
from fixtures.gates import Gate
from fixtures.journal import Journal, Undo, When
from fixtures.options import Request
from fixtures.providers.base import Target, TargetKind
from fixtures.runs import rehearse
from fixtures.screen import writable
from fixtures.state import LOCKING, fold

CUTOVER = Gate(name="cutover", shown=("users move",), owner_types="stampcard", reviewer=True)


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """The file escalations go to."""
    return tmp_path / "told"


@pytest.fixture
def begin(tmp_path: Path, told: Path):
    """Make a run that lives in memory and escalates to a file; its Owner answers at the terminal."""
    example = Path(__file__).resolve().parents[2] / "reports" / "templates" / "example.toml"
    kept, *_ = example.read_text(encoding="utf-8").partition("[[notify]]")
    path = tmp_path / "runbook.toml"
    path.write_text(f'{kept}\n[[notify]]\nkind = "file"\npath = "{told}"\n', encoding="utf-8")

    def make(break_glass: str) -> RunContext:
        target = Target(kind=TargetKind.LATEST)
        request = Request(verb="plan", config=path, target=target, break_glass=break_glass)
        run = rehearse(request, root=tmp_path, say=lambda _line: None)
        run.ask = lambda question: "stampcard" if "owner" in question else "yes"
        return run

    return make


def test_the_reviewer_is_paged_when_one_person_passes_a_gate_for_two(begin, told: Path):
    """Break-glass is told to people at once, and is in the journal."""
    run = begin("the Reviewer is on a plane")

    people = run.gate(CUTOVER)

    assert "reviewer" not in people
    assert "BREAK-GLASS on stampcard" in told.read_text(encoding="utf-8")
    assert [event.data["channels"] for event in run.journal.events if event.kind == "break-glass"] == [
        ["file"]
    ]


def test_nobody_is_paged_when_both_approve(begin, told: Path):
    """Two answers are an ordinary approval."""
    people = begin("").gate(CUTOVER)

    assert {"owner", "reviewer"} == set(people)
    assert not told.exists()


def test_a_confirmed_lock_is_on_screen_at_once(begin, tmp_path: Path):
    """The state that is moved on as things happen says what the journal says, not one change less."""
    run = begin("")
    folder = tmp_path / "20260301T120000Z-abcd"
    folder.mkdir()
    run.journal = Journal(folder)
    run.journal.open()

    with run.change(LOCKING, undo=Undo(name="production_open", args={}, when=When.RELEASE)):
        assert writable(run.state) == "production or neither: its lock was interrupted"

    assert writable(run.state) == "neither; production is fenced"
    assert writable(fold(run.journal.events)) == writable(run.state)
    run.journal.close()
