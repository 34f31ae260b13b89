"""The contract with a team's own provider command: what fits, and every way to break it."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest

from fixtures.command import exit_status, is_running, wait_for
from fixtures.errors import ProviderError, UnsupportedError
from fixtures.evidence import redact
from fixtures.postgres.lsn import Lsn
from fixtures.progress import Tick
from fixtures.providers.base import (
    BaseBackup,
    Cluster,
    Gap,
    InstanceRef,
    RestorePlan,
    RestoreWindow,
    Site,
    Target,
    TargetKind,
)
from fixtures.providers.command.backend import TeamCommand
from fixtures.providers.command.call import Calls
from fixtures.providers.command.schema import contract_schema, schema_text
from fixtures.providers.command.window import against_window
from fixtures.settings import CommandProvider

ROOT = Path(__file__).parents[2]
NOON = datetime(2025, 10, 5, 12, tzinfo=UTC)
#: answers every verb from a file beside it: {"verb": {"status": 0, "stdout": {...}, "stderr": "..."}}
SCRIPT = """
import json, os, pathlib, sys, time
here = pathlib.Path(__file__).parent
verb, request = sys.argv[-1], json.load(sys.stdin)
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([verb, request, dict(os.environ), os.getpid()]) + "\\n")
play = json.loads((here / "play.json").read_text())[verb]
sys.stderr.write(play.get("stderr", ""))
sys.stderr.flush()
while play.get("until") and not pathlib.Path(play["until"]).exists():
    time.sleep(0.02)
out = play.get("stdout", {"contract": 1})
sys.stdout.write(out if isinstance(out, str) else json.dumps(out))
sys.exit(play.get("status", 0))
"""
ABLE = {"contract": 1, "targets": ["time"], "pauses": True}
INSTANCE = {"name": "/restored/data", "host": "/sockets", "port": 5433, "user": "postgres"}

Team = Callable[..., TeamCommand]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(
        run_id="run-1",
        directory=tmp_path / "restored",
        host="127.0.0.1",
        port=5433,
        sockets=tmp_path,
        logs=tmp_path / "logs",
        binaries=None,
        cluster=Cluster(system_identifier="7", data_directory="/prod/data", port=5432),
        timeout_s=60,
    )


@pytest.fixture
def team(tmp_path: Path, site: Site) -> Team:
    """Make a provider whose command plays given answers."""

    def make(play: dict[str, object], **changes: object) -> TeamCommand:
        (tmp_path / "script.py").write_text(SCRIPT)
        (tmp_path / "play.json").write_text(json.dumps({"capabilities": {"stdout": ABLE}, **play}))
        parts = {"argv": [sys.executable, str(tmp_path / "script.py")], **changes}
        return TeamCommand(CommandProvider.model_validate(parts), site)

    return make


def calls(folder: Path) -> list[list[object]]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def plan_for(site: Site, *, at: datetime = NOON) -> RestorePlan:
    return RestorePlan(
        target=Target(kind=TargetKind.TIME, value=at.isoformat(), at=at),
        backup=None,
        instance=InstanceRef(run_id=site.run_id, **INSTANCE),
        timeline=1,
        commands=("cp",),
    )


def test_the_published_schema_is_the_codes() -> None:
    """docs/providers/command.schema.json is generated; renew it with `make docs`."""
    assert (ROOT / "docs" / "providers" / "command.schema.json").read_text() == schema_text()


def test_requests_satisfy_the_published_schema(team: Team, tmp_path: Path) -> None:
    """What the command receives is what was published."""
    provider = team({"plan": {"stdout": {"contract": 1, "instance": INSTANCE, "commands": ["cp"]}}})
    provider.plan(Target(kind=TargetKind.TIME, value=NOON.isoformat(), at=NOON))

    schema = contract_schema()
    for verb, request, _, _ in calls(tmp_path):
        chosen = {**schema["x-verbs"][verb]["request"], "$defs": schema["$defs"]}
        jsonschema.validate(request, chosen)
    assert [call[0] for call in calls(tmp_path)] == ["plan", "capabilities"]


def test_a_window_comes_back_in_utc(team: Team) -> None:
    """Offsets are converted, positions are numbers."""
    answer = {
        "contract": 1, "earliest": "2025-10-05T14:00:00+02:00", "latest": None, "latest_lsn": "0/3000060"
    }  # fmt: skip
    window = team({"window": {"stdout": answer}}).window()

    assert window.earliest == NOON
    assert window.earliest.utcoffset() == timedelta(0)
    assert window.latest_lsn == Lsn(0x3000060)


@pytest.mark.parametrize(
    ("play", "fact"),
    [
        ({"status": 2}, "with status 2"),
        ({"stdout": "done"}, "does not fit"),
        ({"stdout": ""}, "does not fit"),
        ({"stdout": {"contract": 2, "earliest": None, "latest": None}}, "contract"),
        ({"stdout": {"contract": 1, "earliest": None}}, "latest: Field required"),
        ({"stdout": {"contract": 1, "earliest": None, "latest": None, "latset": 1}}, "latset"),
        ({"stdout": {"contract": 1, "earliest": "2025-10-05T12:00:00", "latest": None}}, "earliest"),
        ({"stdout": {"contract": 1, "earliest": None, "latest": None, "latest_lsn": "3"}}, "latest_lsn"),
        ({"status": 1, "stdout": {"contract": 1, "code": "RB999", "fact": "x"}}, "without a proper error"),
        ({"status": 1, "stdout": "sorry"}, "without a proper error"),
    ],
    ids=["status", "text", "empty", "version", "missing", "unknown", "naive", "lsn", "code", "no error"],
)
def test_a_broken_contract_is_told_precisely(play: dict[str, object], fact: str, team: Team) -> None:
    """RB314 names what does not fit."""
    with pytest.raises(ProviderError) as caught:
        team({"window": play}).window()

    assert caught.value.code == "RB314"
    assert fact in caught.value.fact


def test_the_commands_own_error_reaches_the_operator_redacted(team: Team) -> None:
    """Code, fact and hints are the team's; its standard error is quoted without secrets."""
    error = {"contract": 1, "code": "RB309", "fact": "vault closed for bob@example.com", "hints": ["open it"]}
    play = {"status": 1, "stdout": error, "stderr": "GET https://bob:pass-word@vault\n"}
    with pytest.raises(ProviderError) as caught:
        team({"window": play}).window()

    assert (caught.value.code, caught.value.hints) == ("RB309", ("open it",))
    assert "vault closed" in caught.value.fact
    assert not any(word in str(caught.value) for word in ("bob@", "pass-word"))


def test_a_verb_that_hangs_is_ended(team: Team, tmp_path: Path) -> None:
    """Past `timeout` the command is gone and the error names the bound."""
    with pytest.raises(ProviderError, match=r"within 0\.5 s") as caught:
        team({"window": {"until": str(tmp_path / "never")}}, timeout="500ms").window()

    assert caught.value.code == "RB314"


def test_the_command_sees_only_named_variables(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named ones are passed and masked; others never reach it."""
    monkeypatch.setenv("VAULT_TOKEN", "very-secret-token")
    monkeypatch.setenv("OTHER", "x")
    team({}, env=["VAULT_TOKEN"]).capabilities()

    seen = calls(tmp_path)[0][2]
    assert seen["VAULT_TOKEN"] == "very-secret-token"
    assert "OTHER" not in seen
    assert "very-secret" not in redact("token very-secret-token")


def test_a_plan_over_production_is_refused(team: Team, site: Site) -> None:
    """The command may not name production's data directory."""
    instance = {**INSTANCE, "name": "/prod/../prod/data"}
    provider = team({"plan": {"stdout": {"contract": 1, "instance": instance, "commands": ["cp"]}}})
    with pytest.raises(ProviderError) as caught:
        provider.plan(plan_for(site).target)

    assert caught.value.code == "RB312"


def test_another_runs_instance_is_not_touched(team: Team, site: Site, tmp_path: Path) -> None:
    """`discard` refuses before the command is called."""
    with pytest.raises(ProviderError) as caught:
        team({}).discard(replace(plan_for(site).instance, run_id="run-2"))

    assert caught.value.code == "RB312"
    assert not (tmp_path / "calls").exists()


def test_an_answer_for_another_instance_is_refused(team: Team, site: Site) -> None:
    """`start` must answer for the plan's instance."""
    other = {"contract": 1, "instance": {**INSTANCE, "port": 5432}, "backup_id": "b", "paused": True}
    with pytest.raises(ProviderError) as caught:
        team({"start": {"stdout": other}}).start(plan_for(site), lambda _tick: None)

    assert caught.value.code == "RB312"


def test_a_target_kind_it_cannot_do_is_found_without_asking_more(team: Team) -> None:
    """RB108, with what it can do."""
    found = team({}).check(Target(kind=TargetKind.XID, value="755"))

    assert [finding.code for finding in found] == ["RB108"]
    assert "time" in found[0].hints[0]


def test_our_refusals_stand_beside_the_commands(team: Team) -> None:
    """A command that finds nothing does not overrule the window."""
    play = {
        "window": {"stdout": {"contract": 1, "earliest": "2025-10-05T13:00:00Z", "latest": None}},
        "check": {"stdout": {"contract": 1, "findings": [{"code": "RB308", "fact": "disk is full"}]}},
    }
    found = team(play).check(Target(kind=TargetKind.TIME, value=NOON.isoformat(), at=NOON))

    assert [finding.code for finding in found] == ["RB301", "RB308"]


def test_a_safety_copy_is_made_only_where_offered(team: Team) -> None:
    """The id comes back; an unknown kind is RB108."""
    able = {**ABLE, "safety_copies": ["snapshot"]}
    provider = team(
        {"capabilities": {"stdout": able}, "safety_copy": {"stdout": {"contract": 1, "id": "snap-1"}}}
    )

    assert provider.safety_copy("snapshot") == "snap-1"
    with pytest.raises(UnsupportedError):
        provider.safety_copy("branch")


def test_a_safety_copy_stands_only_where_the_command_says_so(team: Team, tmp_path: Path) -> None:
    """Its reason is told, redacted; an answer that leaves it out and a command without the verb are no pass."""
    asked = {"contract": 1, "stands": True}
    provider = team({"safety_copy_stands": {"stdout": asked}})

    assert provider.safety_copy_stands("snapshot", "snap-1") == ""
    (_, request, _, _) = calls(tmp_path)[-1]
    assert (request["mode"], request["id"]) == ("snapshot", "snap-1")
    gone = {**asked, "stands": False, "reason": "deleted by bob@example.com"}
    said = team({"safety_copy_stands": {"stdout": gone}}).safety_copy_stands("snapshot", "snap-1")
    assert "deleted by" in said
    assert "bob@" not in said
    assert team({"safety_copy_stands": {"stdout": {**gone, "reason": ""}}}).safety_copy_stands(
        "snapshot", "s"
    )
    unknown = {"contract": 1, "code": "RB108", "fact": "this command has no safety_copy_stands"}
    for play, code in (({"stdout": {"contract": 1}}, "RB314"), ({"status": 1, "stdout": unknown}, "RB108")):
        with pytest.raises(ProviderError) as caught:
            team({"safety_copy_stands": play}).safety_copy_stands("snapshot", "snap-1")
        assert caught.value.code == code


def test_nothing_is_prefetched_where_nothing_can_be(team: Team, site: Site) -> None:
    """None, without a job."""
    assert team({}).prefetch(plan_for(site)) is None


def test_a_long_verb_reports_progress_and_hides_its_files(team: Team, site: Site) -> None:
    """Progress lines become ticks; request and output are for their owner."""
    ticks: list[Tick] = []
    line = json.dumps({"progress": {"phase": "copy", "done": 1, "total": 4}})
    provider = team({"start": {"stderr": f"hello\n{line}\n", "stdout": {"contract": 1}}})
    with pytest.raises(ProviderError, match="does not fit"):
        provider.start(plan_for(site), ticks.append)

    assert ticks == [Tick("copy", 1, 4)]
    files = sorted(path.name for path in site.logs.iterdir() if path.stat().st_mode & 0o077)
    assert files == ["command-start.pid", "command-start.rc"]


def test_a_broken_progress_line_is_a_broken_contract(team: Team, site: Site) -> None:
    """Progress that cannot be shown is not passed over."""
    with pytest.raises(ProviderError, match="progress line") as caught:
        team({"start": {"stderr": '{"progress": 7}\n'}}).start(plan_for(site), lambda _tick: None)

    assert caught.value.code == "RB314"


def test_a_new_process_joins_what_a_dead_one_began(team: Team, site: Site, tmp_path: Path) -> None:
    """The same request finds the same job; another one is refused while it works."""
    go = tmp_path / "go"
    provider = team({"prefetch": {"until": str(go)}, "capabilities": {"stdout": {**ABLE, "prefetch": True}}})
    first = provider.prefetch(plan_for(site))
    assert first is not None
    again = team({"prefetch": {"until": str(go)}, "capabilities": {"stdout": {**ABLE, "prefetch": True}}})

    try:
        assert again.prefetch(plan_for(site)) == first
        with pytest.raises(ProviderError) as caught:
            again.prefetch(plan_for(site, at=NOON + timedelta(hours=1)))
        assert caught.value.code == "RB208"
    finally:
        go.touch()
    wait_for(lambda: exit_status(first) == 0, timeout_s=30, what="the job ended")


def test_a_later_attempt_does_not_read_an_earlier_answer(team: Team, site: Site) -> None:
    """Output of a failed attempt is gone when the verb is called again."""
    with pytest.raises(ProviderError, match="status 9"):
        team({"start": {"status": 9, "stdout": "garbage"}}).start(plan_for(site), lambda _tick: None)
    refusal = {"contract": 1, "code": "RB308", "fact": "disk is full"}
    with pytest.raises(ProviderError) as caught:
        team({"start": {"status": 1, "stdout": refusal}}).start(plan_for(site), lambda _tick: None)

    assert caught.value.code == "RB308"


def test_a_long_verb_past_its_bound_is_ended(team: Team, site: Site, tmp_path: Path) -> None:
    """RB315, and no process is left."""
    provider = team({"start": {"until": str(tmp_path / "never")}}, long_timeout="1s")
    with pytest.raises(ProviderError) as caught:
        provider.start(plan_for(site), lambda _tick: None)

    assert caught.value.code == "RB315"
    wait_for(lambda: not _alive(int(calls(tmp_path)[-1][3])), timeout_s=10, what="the command ended")


def test_an_interrupt_leaves_the_job_at_work(team: Team, site: Site, tmp_path: Path) -> None:
    """Long work outlives the runner."""
    go = tmp_path / "go"
    line = json.dumps({"progress": {"phase": "copy", "done": 1}})
    provider = team({"start": {"until": str(go), "stderr": line + "\n"}})

    def interrupt(_tick: Tick, /) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        provider.start(plan_for(site), interrupt)
    found = Calls(provider._calls.settings, site)._found("command-start")
    assert found is not None
    assert is_running(found[0])
    go.touch()
    wait_for(lambda: not is_running(found[0]), timeout_s=30, what="the job ended")


def backup(hour: int, **changes: object) -> BaseBackup:
    known: dict[str, object] = {
        "id": f"b{hour}",
        "started_at": NOON.replace(hour=hour),
        "ended_at": NOON.replace(hour=hour, minute=5),
        "start_lsn": Lsn(hour * 100),
        "stop_lsn": Lsn(hour * 100 + 5),
        "timeline": 1,
        "size_bytes": 1,
        "system_identifier": "7",
        "major": 18,
    }
    return BaseBackup(**{**known, **changes})


WINDOW = RestoreWindow(
    earliest=NOON.replace(hour=2, minute=5),
    latest=NOON.replace(hour=20),
    latest_lsn=Lsn(2000),
    timeline=1,
    gaps=(Gap(first_missing="seg", segments=2, after=NOON.replace(hour=6), before=NOON.replace(hour=7)),),
    base_backups=(backup(2), backup(10)),
)


def at(hour: int, minute: int = 0) -> Target:
    when = NOON.replace(hour=hour, minute=minute)
    return Target(kind=TargetKind.TIME, value=when.isoformat(), at=when)


def lsn(value: int) -> Target:
    return Target(kind=TargetKind.LSN, value=str(Lsn(value)))


@pytest.mark.parametrize(
    ("target", "codes"),
    [
        (at(12), []),
        (at(5), []),
        (at(2, 4), ["RB301"]),
        (at(8), ["RB302"]),
        (at(21), ["RB303"]),
        (lsn(1500), []),
        (lsn(100), ["RB301"]),
        (lsn(2001), ["RB303"]),
        (lsn(1901), ["RB304"]),
        (Target(kind=TargetKind.LATEST), ["RB304"]),
        (Target(kind=TargetKind.LATEST, not_beyond=Lsn(1900)), []),
        (Target(kind=TargetKind.SNAPSHOT, value="b10"), []),
        (Target(kind=TargetKind.SNAPSHOT, value="b11"), ["RB301"]),
    ],
)
def test_targets_are_held_against_the_window(target: Target, codes: list[str]) -> None:
    """Too early, behind a gap, too late, beyond the lock: each has its code; good ones have none."""
    lock = None if target == lsn(2001) else Lsn(1900)
    found = against_window(target, WINDOW, Cluster(system_identifier="7"), lock_lsn=lock)

    assert [finding.code for finding in found] == codes


def test_backups_of_another_cluster_are_refused() -> None:
    """RB305 names both clusters."""
    found = against_window(at(12), WINDOW, Cluster(system_identifier="8"), lock_lsn=None)

    assert [finding.code for finding in found] == ["RB305"]


def test_no_backup_at_all_is_refused() -> None:
    """An empty window is RB301."""
    empty = RestoreWindow(earliest=None, latest=None, latest_lsn=None, timeline=None)

    assert [each.code for each in against_window(at(12), empty, Cluster(), lock_lsn=None)] == ["RB301"]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
