"""The command line: what it means, and what it refuses."""

import os
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from fixtures.errors import UsageError
from fixtures.options import CHOICES, DRILLS, NEWEST, add_options, parse_time, read_request
from fixtures.providers.base import TargetKind


class CommandLine:
    """What read_request needs of pytest's configuration: parsed options."""

    def __init__(self, *arguments):
        parser = pytest.Parser(_ispytest=True)
        add_options(parser)
        self.parsed = parser.parse(list(arguments))

    def getoption(self, name):
        """Return an option's value."""
        return getattr(self.parsed, name)


def read(*arguments):
    """Read a command line."""
    return read_request(CommandLine(*arguments))


def refusal(*arguments):
    """Return why a command line is refused."""
    with pytest.raises(UsageError) as caught:
        read(*arguments)

    assert caught.value.exit_code == 4
    return caught.value


@pytest.fixture
def here_is_plus_two(monkeypatch):
    """This machine's clock shows two hours more than UTC."""
    monkeypatch.setenv("TZ", "XXX-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# -- times -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2025-10-05T12:34:00Z", 12),
        ("2025-10-05T12:34:00+00:00", 12),
        ("2025-10-05T14:34:00+02:00", 12),
        ("2025-10-05 07:04:00-05:30", 12),
        (" 2025-10-05T12:34:00Z ", 12),
    ],
)
def test_a_time_with_an_offset_is_kept_in_utc(text, hour):
    """Whatever its offset, a time means one instant."""
    assert parse_time(text, option="--target-time") == datetime(2025, 10, 5, hour, 34, tzinfo=UTC)


def test_fractions_of_a_second_are_kept():
    """A target between two commits of the same second can be named."""
    assert parse_time("2025-10-05T12:34:00.123456Z", option="--t0").microsecond == 123456


@pytest.mark.usefixtures("here_is_plus_two")
def test_a_time_without_offset_is_refused_and_shown_both_ways():
    """The person sees what it would be as UTC and as this machine's time, as options to paste."""
    error = refusal("--target-time=2025-10-05T12:34:00")

    assert error.code == "RB102"
    assert error.where == "--target-time"
    assert error.hints[0].endswith("--target-time=2025-10-05T12:34:00Z")
    assert error.hints[1].endswith("--target-time=2025-10-05T12:34:00+02:00")


@pytest.mark.parametrize("text", ["yesterday", "12:34", "2025-13-05T12:34:00Z", "1759667640", "LATEST"])
def test_what_is_no_time_is_refused(text):
    """A time is ISO 8601 and nothing else."""
    assert refusal(f"--target-time={text}").code == "RB102"


@pytest.mark.parametrize("option", ["--target-time", "--damaged-at", "--detected-at", "--t0"])
def test_a_time_in_the_future_is_refused(option):
    """A wrong offset is caught before it becomes a wrong target."""
    ahead = (datetime.now(timezone(timedelta(hours=2))) + timedelta(minutes=5)).isoformat()
    arguments = [f"{option}={ahead}"] + ([] if option == "--target-time" else ["--target-time=latest"])

    error = refusal(*arguments)

    assert (error.code, error.where) == ("RB102", option)
    assert "future" in error.fact


# -- targets -----------------------------------------------------------------------------------------


def test_a_time_is_a_target():
    """The target keeps instant, text and direction."""
    request = read("--target-time=2025-10-05T14:34:00+02:00", "--exclusive")

    assert request.verb == "run"
    assert request.target.kind is TargetKind.TIME
    assert request.target.at == datetime(2025, 10, 5, 12, 34, tzinfo=UTC)
    assert request.target.value == "2025-10-05T12:34:00.000000+00:00"
    assert request.target.exclusive


@pytest.mark.parametrize(
    ("argument", "kind", "value"),
    [
        ("--target-time=latest", TargetKind.LATEST, ""),
        ("--target-lsn=0/3000148", TargetKind.LSN, "0/3000148"),
        ("--target-xid=745", TargetKind.XID, "745"),
        ("--target-name=before release 42", TargetKind.NAME, "before release 42"),
        ("--snapshot=snap-1", TargetKind.SNAPSHOT, "snap-1"),
    ],
)
def test_every_kind_of_target_is_read(argument, kind, value):
    """Each way to name the moment arrives as what it is."""
    target = read(argument).target

    assert (target.kind, target.value) == (kind, value)


@pytest.mark.parametrize(
    "argument",
    [
        "--target-lsn=300148",
        "--target-lsn=0/XYZ",
        "--target-lsn=0/1/2",
        "--target-xid=0",
        "--target-xid=-5",
        "--target-xid=12345678901",
        "--target-xid=7 5",
    ],
)
def test_a_malformed_target_is_refused(argument):
    """What PostgreSQL would misread is refused here."""
    assert refusal(argument).code == "RB102"


# -- what goes together ------------------------------------------------------------------------------


def test_nothing_asked_for_is_no_request():
    """Without a run there is no verb: pytest on other tests stays pytest."""
    assert read().verb == ""


@pytest.mark.parametrize(
    ("arguments", "verb", "run"),
    [
        (["--drill"], "run", NEWEST),
        (["--drill=embedded", "--seed=0", "--disaster=drop", "--scale=2"], "run", NEWEST),
        (["--drill=restore-only", "--config=p.toml", "--target-time=random", "--seed=0"], "run", NEWEST),
        (["--drill=restore-only", "--config=p.toml", "--snapshot=x", "--until=5"], "run", NEWEST),
        (["--target-time=latest", "--inspect", "--until=canary"], "run", NEWEST),
        (["--target-time=latest", "--plan"], "plan", NEWEST),
        (["--target-time=latest", "--break-glass=nobody else is awake"], "run", NEWEST),
        (["--resume"], "resume", NEWEST),
        (["--resume=R1", "--until=5", "--cutover"], "resume", "R1"),
        (["--rollback=R1"], "rollback", "R1"),
        (["--release"], "release", NEWEST),
        (["--status"], "status", NEWEST),
        (["--approve=cutover:abc", "--approver=Olga", "--typed=shop", "--run=R1"], "approve", "R1"),
        (["--note=called the Reviewer", "--run=R1"], "note", "R1"),
    ],
)
def test_a_command_line_means_one_thing(arguments, verb, run):
    """Each session is one run or one verb about one run."""
    request = read(*arguments)

    assert (request.verb, request.run) == (verb, run)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--target-time=latest", "--target-lsn=0/1"],
        ["--target-xid=7", "--target-name=x"],
        ["--target-time=latest", "--snapshot=x"],
        ["--target-time=latest", "--exclusive"],
        ["--target-name=x", "--exclusive"],
        ["--snapshot=x", "--exclusive"],
        ["--exclusive"],
        ["--exclusive", "--drill"],
        ["--inspect"],
        ["--inspect", "--drill", "--target-time=latest"],
        ["--target-time=random"],
        ["--target-time=random", "--drill"],
        ["--target-time=random", "--inspect"],
        ["--drill=restore-only"],
        ["--drill=restore-only", "--config=p.toml", "--target-time=random", "--exclusive"],
        ["--drill=restore-only", "--config=p.toml", "--seed=1"],
        ["--drill=restore-only", "--config=p.toml", "--seed=1", "--target-time=latest"],
        ["--drill=restore-only", "--config=p.toml", "--disaster=drop"],
        ["--drill=restore-only", "--config=p.toml", "--scale=2"],
        ["--drill=restore-only", "--config=p.toml", "--t0=2025-10-05T12:34:00Z"],
        ["--drill=restore-only", "--config=p.toml", "--damaged-at=2025-10-05T12:34:00Z"],
        ["--drill=restore-only", "--config=p.toml", "--break-glass=why"],
        ["--drill=restore-only", "--config=p.toml", "--inspect", "--target-time=latest"],
        ["--cutover"],
        ["--cutover", "--target-time=latest"],
        ["--cutover", "--rollback"],
        ["--disaster=drop"],
        ["--seed=0", "--target-time=latest"],
        ["--scale=2", "--target-time=latest"],
        ["--drill", "--scale=0"],
        ["--drill", "--scale=-1"],
        ["--resume", "--rollback"],
        ["--resume", "--status"],
        ["--release", "--rollback"],
        ["--approve=g:h", "--approver=Olga", "--note=x"],
        ["--resume", "--plan"],
        ["--rollback", "--plan"],
        ["--release", "--plan"],
        ["--resume", "--drill"],
        ["--rollback", "--target-time=latest"],
        ["--status", "--target-lsn=0/1"],
        ["--resume", "--inspect"],
        ["--resume", "--exclusive"],
        ["--resume", "--damaged-at=2025-10-05T12:34:00Z"],
        ["--rollback", "--detected-at=2025-10-05T12:34:00Z"],
        ["--release", "--t0=2025-10-05T12:34:00Z"],
        ["--rollback", "--until=5"],
        ["--status", "--until=5"],
        ["--target-time=latest", "--plan", "--until=5"],
        ["--rollback", "--break-glass=why"],
        ["--break-glass=why"],
        ["--approve=cutover:abc"],
        ["--approve=cutover", "--approver=Olga"],
        ["--approver=Olga", "--target-time=latest"],
        ["--typed=shop", "--resume"],
        ["--resume", "--run=R1"],
        ["--drill", "--run=R1"],
        ["--drill", "--until=nowhere"],
        ["--drill", "--until=12"],
    ],
)
def test_a_contradiction_is_refused_and_never_guessed(arguments):
    """An option that would not be listened to is an error, not a surprise."""
    error = refusal(*arguments)

    assert error.code == "RB101"
    assert error.hints != ()


def test_an_unknown_step_names_the_nearest():
    """A typing mistake in --until is answered with the step that was meant."""
    error = refusal("--drill", "--until=canery")

    assert "'canary'" in error.fact
    assert "9 cutover" in error.hints[0]


def test_an_unknown_drill_world_names_the_known():
    """What is not built is said, not approximated."""
    error = refusal("--drill=moonbase")

    assert error.code == "RB108"
    assert error.hints[0] == f"known: {', '.join(DRILLS)}"


def test_a_major_version_goes_with_containers():
    """The embedded drill has one version: asking it for another is refused, not ignored."""
    assert refusal("--drill=embedded", "--pg-major=15").code == "RB101"
    assert refusal("--target-time=2025-10-05T12:34:00Z", "--pg-major=15").code == "RB101"
    assert read("--drill=containers", "--pg-major=15").pg_major == 15


def test_a_stage_drill_restores_the_newest_unless_told_otherwise():
    """Without a target it is the latest; a random one is chosen when the backups are read."""
    assert read("--drill=restore-only", "--config=p.toml").target.kind is TargetKind.LATEST
    chosen = read("--drill=restore-only", "--config=p.toml", "--target-time=random")
    assert (chosen.random, chosen.target) == (True, None)


def test_every_choice_shown_to_a_lost_person_is_one():
    """The hints of a refused command line are themselves accepted."""
    named = {word.partition("=")[0].partition("[")[0] for line in CHOICES for word in line.split()}
    options = {word.strip("(),") for word in named if word.strip("(),").startswith("--")}

    known = vars(CommandLine().parsed)

    assert {option.removeprefix("--").replace("-", "_") for option in options} <= set(known)


def test_the_process_clock_is_untouched():
    """The test that moved this machine's clock moved it back."""
    assert os.environ.get("TZ") != "XXX-2"
