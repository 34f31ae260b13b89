"""Switches and workers: turned, proven, and never believed without a question."""

import os
from pathlib import Path

import pytest

from fixtures.app import switches, workers
from fixtures.errors import StepError
from fixtures.settings import Switch, Worker


def flag(path: Path) -> Switch:
    return Switch(kind="file", path=path)


def commands(state: Path, **changes: object) -> Switch:
    parts: dict[str, object] = {
        "kind": "command",
        "on": ["sh", "-c", f"echo on > {state}"],
        "off": ["sh", "-c", f"echo off > {state}"],
        "status": ["sh", "-c", f"cat {state} 2>/dev/null || echo off"],
        "timeout": "10s",
    }
    return Switch.model_validate({**parts, **changes})


@pytest.mark.parametrize("make", [flag, commands], ids=["file", "command"])
def test_a_switch_turns_on_and_off_and_repeats_quietly(make: object, tmp_path: Path) -> None:
    """Turning changes once, says so, and a repetition changes nothing."""
    switch = make(tmp_path / "state")

    assert switches.is_on(switch) is False
    assert switches.turn_on(switch) is True
    assert switches.turn_on(switch) is False
    assert switches.is_on(switch) is True
    assert switches.turn_off(switch) is True
    assert switches.turn_off(switch) is False


def test_a_flag_is_readable_whatever_the_umask(tmp_path: Path) -> None:
    """The application's user must be able to see the flag."""
    before = os.umask(0o077)
    try:
        switches.turn_on(flag(tmp_path / "flag"))
    finally:
        os.umask(before)

    assert (tmp_path / "flag").stat().st_mode & 0o777 == 0o644


def test_a_missing_folder_is_not_taken_for_off(tmp_path: Path) -> None:
    """A volume that is not mounted is unknown, not off."""
    with pytest.raises(StepError) as caught:
        switches.is_on(flag(tmp_path / "gone" / "flag"))

    assert caught.value.code == "RB601"


def test_a_folder_in_the_flags_place_is_refused(tmp_path: Path) -> None:
    """Only a regular file is a flag."""
    with pytest.raises(StepError):
        switches.is_on(flag(tmp_path))


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"on": ["true"]}, "does not say so"),
        ({"on": ["false"]}, "ended with status 1"),
        ({"status": ["echo", "perhaps"]}, "neither"),
        ({"status": ["sleep", "60"], "timeout": "100ms"}, "did not end within"),
    ],
    ids=["lies", "fails", "unclear", "hangs"],
)
def test_a_command_that_does_not_act_is_found_out(
    changes: dict[str, object], fact: str, tmp_path: Path
) -> None:
    """Exit 0 without acting, an unclear answer and silence are all RB601."""
    with pytest.raises(StepError) as caught:
        switches.turn_on(commands(tmp_path / "state", **changes))

    assert caught.value.code == "RB601"
    assert fact in caught.value.fact


def test_workers_are_listed_paused_and_come_back(tmp_path: Path) -> None:
    """The inventory tells each worker's state; pause and resume act on one."""
    team = [
        Worker(name=name, pause=flag(tmp_path / name), stage=number)
        for name, number in (("mail", 2), ("sum", 1))
    ]

    assert workers.pause(team[0]) is True

    assert [state.paused for state in workers.inventory(team)] == [True, False]
    assert workers.resume(team[0]) is True
    assert not any(state.paused for state in workers.inventory(team))


def test_stages_ascend_and_one_holding_worker_holds_its_stage(tmp_path: Path) -> None:
    """Workers of one stage come back together; a person confirms where any of them asks for it."""
    rows = (("mail", 3, False), ("sum", 1, False), ("bill", 3, True))
    team = [
        Worker(name=name, pause=flag(tmp_path / name), stage=stage, holds=holds)
        for name, stage, holds in rows
    ]

    found = workers.stages(team)

    assert [(stage.number, stage.names, stage.holds) for stage in found] == [
        (1, ("sum",), False),
        (3, ("mail", "bill"), True),
    ]


def test_a_worker_that_cannot_be_paused_is_named(tmp_path: Path) -> None:
    """The error is RB602 and says which worker."""
    with pytest.raises(StepError) as caught:
        workers.pause(Worker(name="mail", pause=commands(tmp_path / "s", on=["true"])))

    assert caught.value.code == "RB602"
    assert "worker mail" in caught.value.fact


def test_a_switch_left_half_way_is_turned_again(tmp_path: Path) -> None:
    """Turning off may stop before anything noticed: the flag is gone, the status still says on."""
    flag_file, said = tmp_path / "flag", tmp_path / "said"
    switch = commands(said, on=["sh", "-c", f"touch {flag_file}; echo on > {said}"])
    said.write_text("on")

    assert switches.turn_on(switch) is False
    assert not flag_file.exists()
    assert switches.turn_on(switch, again=True) is False
    assert flag_file.exists()
