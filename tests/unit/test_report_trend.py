"""The history of drills: its trend, and when the last green one is too old."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from fixtures.errors import RunbookError
from reports.__main__ import main
from reports.history import Line
from reports.trend import refuse_old, trend

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def line(
    days: float, *, code: int = 0, mode: str = "drill", rto: float | None = 20.0, rpo: float | None = 0.1
) -> Line:
    """A run that finished so many days ago."""
    at = NOW - timedelta(days=days)
    return Line(
        run_id=f"{at:%Y%m%dT%H%M%SZ}-ab12", at=at, mode=mode, disaster="drop", production="p", provider="basebackup",
        exit_code=code, verdict="", rto_s=rto, rpo_s=rpo, step_seconds={"s05.restored": 9.0, "s07.content": 1.0},
    )  # fmt: skip


def shown(*lines: Line) -> str:
    """The trend as text."""
    return "\n".join(trend(lines, now=NOW))


def test_the_trend_compares_the_last_drills_with_those_before():
    """Medians of green drills, and the change between them."""
    before = [line(20 - number, rto=20.0) for number in range(5)]
    after = [line(10 - number, rto=30.0) for number in range(5)]

    text = shown(*before, *after)

    assert "10 drill(s), 10 green; the last green drill is 6.0 days old" in text
    assert "RTO of the last 5 green: median 30.0 s, from 30.0 s to 30.0 s; 5 before: 20.0 s (+50%)" in text
    assert "▁▁▁▁▁█████" in text
    assert "slowest tests of the last green: s05.restored 9.0 s" in text


def test_only_green_drills_count_as_figures():
    """A failed drill stands in the list, with its code, and in no median."""
    text = shown(line(3, rto=20.0), line(2, code=1, rto=900.0), line(1, code=12, rto=None))

    assert "3 drill(s), 1 green" in text
    assert "code 1 " in text
    assert "code 12" in text
    assert "median 20.0 s, from 20.0 s to 20.0 s" in text


def test_incidents_are_no_drills():
    """What was restored in earnest proves no rehearsal."""
    assert shown(line(1, mode="incident"), line(1, mode="inspect")).startswith("no drill has finished yet")


@pytest.mark.parametrize(
    ("lines", "days"),
    [
        ([], 7),
        ([line(8)], 7),
        ([line(8), line(1, code=1)], 7),
        ([line(8), line(1, mode="incident")], 7),
        ([line(1), line(8)], 0.5),
    ],
)
def test_a_green_drill_that_is_too_old_is_refused(lines, days):
    """Failed drills, incidents and none at all are no green drill."""
    with pytest.raises(RunbookError) as caught:
        refuse_old(lines, days=days, now=NOW, where="history.jsonl")

    assert (caught.value.code, caught.value.exit_code) == ("RB804", 1)
    assert caught.value.hints[0] == "run one now: make drill"


@pytest.mark.parametrize("lines", [[line(6.9)], [line(1), line(0.5, code=1)], [line(3), line(30)]])
def test_a_green_drill_that_is_young_enough_passes(lines):
    """A failure after it does not take its proof away; the order of lines does not matter."""
    refuse_old(lines, days=7, now=NOW, where="history.jsonl")


def test_the_command_ends_with_1_when_it_is_too_old(tmp_path, capsys):
    """The trend is shown either way, and the exit code is CI's."""
    runs = tmp_path / "runs"
    fresh = line(0).model_copy(update={"at": datetime.now(UTC)})
    history = tmp_path / "history.jsonl"
    history.write_text(
        json.dumps(
            line(0).model_copy(update={"at": datetime.now(UTC) - timedelta(days=9)}).model_dump(mode="json")
        )
        + "\n"
    )

    assert main([f"--runs={runs}", "--trend"]) == 0
    assert main([f"--runs={runs}", "--trend", "--max-age=7"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("RB804 no green drill for 7 days: the last green drill is 9.0 days old")
    assert said.out.count("1 drill(s), 1 green") == 2

    with history.open("a") as file:
        file.write(json.dumps(fresh.model_dump(mode="json")).replace(fresh.run_id, "another") + "\n")
    assert main([f"--runs={runs}", "--max-age=7"]) == 0


def test_drills_on_the_real_backup_have_a_figure_of_their_own(tmp_path, capsys):
    """They have no RTO; a green one is a green drill, and one kind can be asked for alone."""
    stage = line(1, mode="stage", rto=None, rpo=None).model_copy(
        update={"at": datetime.now(UTC), "restore_and_verify_s": 90.0, "bindings": "restore-only"}
    )
    (tmp_path / "history.jsonl").write_text(json.dumps(stage.model_dump(mode="json")) + "\n")
    asked = (f"--runs={tmp_path}/runs", "--trend", "--max-age=7")

    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "restore-only" in said
    assert "restore and verify of the last 1 green: median 1 min 30 s" in said
    assert main([*asked, "--kind=stage"]) == 0
    assert main([*asked, "--kind=drill"]) == 1


@pytest.mark.parametrize("age", ["0", "-1", "soon", "nan"])
def test_an_age_that_means_nothing_is_refused(tmp_path, age):
    """It would be a check that always passes, or never."""
    with pytest.raises(SystemExit):
        main([f"--runs={tmp_path}", f"--max-age={age}"])
