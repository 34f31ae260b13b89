"""Gates: who may say yes, to what, and for how long."""

from datetime import UTC, datetime, timedelta

import pytest

from fixtures.errors import StepError, SuspendedError
from fixtures.gates import Approvals, Gate, pass_gate

GATE = Gate(name="cutover", shown=("move users", "target x"), owner_types="shop", reviewer=True)


def approvals(*on_file, ask=None, drill=False, break_glass="", expiry=timedelta(minutes=30)):
    """Approvals of a run with Olga as Owner and Rita as Reviewer."""
    return Approvals(
        run_id="R1",
        owner="Olga",
        reviewer="Rita",
        expiry=expiry,
        on_file=on_file,
        ask=ask,
        drill=drill,
        break_glass=break_glass,
    )


def on_file(approver, *, typed="", gate=GATE, age=timedelta(0), run="R1"):
    """An approval as the journal keeps it."""
    return {
        "gate": gate.name,
        "hash": gate.hash(run),
        "approver": approver,
        "typed": typed,
        "at": datetime.now(UTC) - age,
    }


def test_both_on_file_pass():
    """Owner with the typed name and Reviewer, from another terminal."""
    people = pass_gate(GATE, approvals(on_file("Olga", typed="shop"), on_file("Rita")))

    assert {"owner", "reviewer"} == set(people)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param([], id="nobody"),
        pytest.param([on_file("Olga", typed="shop")], id="owner only"),
        pytest.param([on_file("Rita")], id="reviewer only"),
        pytest.param([on_file("Olga", typed="ship"), on_file("Rita")], id="wrong name typed"),
        pytest.param([on_file("Olga", typed="shop"), on_file("Rita", age=timedelta(hours=1))], id="expired"),
        pytest.param([on_file("Olga", typed="shop"), on_file("Rita", run="R2")], id="another run"),
        pytest.param([on_file("Olga", typed="shop"), on_file("Mallory")], id="somebody else"),
    ],
)
def test_anything_less_stops_the_run_resumably(given):
    """Without both approvals on file and without a terminal the run is suspended."""
    with pytest.raises(SuspendedError) as caught:
        pass_gate(GATE, approvals(*given))
    assert caught.value.code == "RB206"
    assert any("--approve=cutover:" in hint for hint in caught.value.hints)


def test_an_approval_binds_to_what_was_shown():
    """Changed words void it."""
    shown_then = Gate(name="cutover", shown=("move users", "target y"), owner_types="shop", reviewer=True)

    with pytest.raises(SuspendedError):
        pass_gate(
            GATE, approvals(on_file("Olga", typed="shop", gate=shown_then), on_file("Rita", gate=shown_then))
        )


def test_the_terminal_answers_for_both():
    """The name typed back and a yes pass."""
    answers = iter(["shop", "yes"])

    assert "at the terminal" in pass_gate(GATE, approvals(ask=lambda _question: next(answers)))["reviewer"]


def test_a_no_is_not_a_suspension():
    """A wrong answer fails the step."""
    with pytest.raises(StepError) as caught:
        pass_gate(GATE, approvals(ask=lambda _question: "no"))
    assert caught.value.code == "RB207"


def test_break_glass_needs_one_person_and_stays_visible():
    """One person passes, and the reason is part of the answer."""
    people = pass_gate(GATE, approvals(on_file("Olga", typed="shop"), break_glass="Rita is on a plane"))

    assert people["break_glass"] == "Rita is on a plane"
    assert "reviewer" not in people


def test_a_drill_says_so():
    """The drill's approver is recorded as such."""
    assert pass_gate(GATE, approvals(drill=True))["owner"] == "drill (Olga)"
