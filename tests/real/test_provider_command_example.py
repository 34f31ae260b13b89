"""The documented example command, run against real PostgreSQL, and its harmful variations."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fixtures.command import wait_for
from fixtures.errors import ProviderError
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.lsn import Lsn
from fixtures.postgres.server import Server, control_data, free_port
from fixtures.postgres.session import answers, connect
from fixtures.progress import Tick
from fixtures.providers.base import (
    Capture,
    Cluster,
    InstanceRef,
    RestoredInstance,
    Site,
    Target,
    TargetKind,
)
from fixtures.providers.command.backend import TeamCommand
from fixtures.settings import CommandProvider
from tests.limits import small_files

PAGE = Path(__file__).parents[2] / "docs" / "providers" / "command.md"


@dataclass(frozen=True)
class World:
    """A production with a cold copy, an archive, and two known commits."""

    home: Path
    production: Server
    identifier: str
    first: tuple[datetime, Lsn]
    second: tuple[datetime, Lsn]


@pytest.fixture(scope="module")
def world(public_dir: Path, binaries: Binaries) -> Iterator[World]:
    """Copy a stopped cluster, then commit twice with archiving on."""
    home = Path(tempfile.mkdtemp(prefix="cmd-", dir=public_dir))
    home.chmod(0o755)
    for name in ("archive", "backup", "restored", "backup/kept"):
        (home / name).mkdir()
    binaries.own(home)
    server = Server(binaries, home / "prod", free_port(), home, "postgres", home / "logs")
    server.initdb()
    server.wait_ready(server.start({"fsync": "off"}))
    with connect(server.endpoint) as session:
        session.do("CREATE TABLE public.t (n int)")
    server.stop()
    begun = datetime.now(UTC)
    shutil.copytree(server.data, home / "backup" / "data")
    control = control_data(binaries, server.data)
    position = control["Latest checkpoint location"]
    description = {
        "id": "cold-1", "started_at": begun.isoformat(), "ended_at": datetime.now(UTC).isoformat(),
        "start_lsn": position, "stop_lsn": position, "timeline": 1, "size_bytes": 1,
        "system_identifier": control["Database system identifier"], "major": 18,
    }  # fmt: skip
    (home / "backup" / "backup.json").write_text(json.dumps(description))
    job = server.start(
        {
            "fsync": "off",
            "track_commit_timestamp": "on",
            "archive_mode": "on",
            "archive_command": f"cp %p {home}/archive/%f",
        },
        name="prod-again",
    )
    server.wait_ready(job)
    commits = []
    with connect(server.endpoint) as session:
        for number in (1, 2, 3):
            session.do("INSERT INTO public.t VALUES (%s)", (number,))
            at, position = session.row(
                "SELECT max(pg_xact_commit_timestamp(xmin)), pg_current_wal_lsn()::text FROM public.t"
            )
            commits.append((at, Lsn.parse(position)))
        segment = session.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
        session.rows("SELECT pg_switch_wal()")
    wait_for((home / "archive" / segment).exists, timeout_s=30, what="the segment is archived")
    yield World(home, server, description["system_identifier"], commits[0], commits[1])
    server.kill(job)
    shutil.rmtree(home)


@pytest.fixture
def team(
    world: World, binaries: Binaries, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., TeamCommand]]:
    """Make a provider around the documented script; discards what it restored."""
    monkeypatch.setenv("TEAM_BACKUP", str(world.home / "backup"))
    monkeypatch.setenv("TEAM_ARCHIVE", str(world.home / "archive"))
    made: list[TeamCommand] = []
    example = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[-1]
    run_id = f"run-{free_port()}"
    logs = Path(tempfile.mkdtemp(dir=world.home))
    logs.chmod(0o755)

    def make(
        *, edits: tuple[tuple[str, str], ...] = (), cluster: Cluster | None = None, run: str = run_id
    ) -> TeamCommand:
        text = example
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        script = world.home / f"{run_id}.py"
        script.write_text(text)
        site = Site(
            run_id=run,
            directory=world.home / "restored",
            host="127.0.0.1",
            port=made[0]._site.port if made and run == run_id else free_port(),
            sockets=world.home,
            logs=logs,
            binaries=binaries,
            cluster=cluster
            or Cluster(
                system_identifier=world.identifier,
                timeline=1,
                data_directory=str(world.production.data),
                port=world.production.port,
            ),
            timeout_s=60,
            settings={"fsync": "off"},
        )
        settings = CommandProvider.model_validate(
            {"argv": ["python3", str(script)], "env": ["TEAM_BACKUP", "TEAM_ARCHIVE"]}
        )
        made.append(TeamCommand(settings, site))
        return made[-1]

    yield make
    cleaner = make()
    ref = InstanceRef(
        run_id=run_id,
        name=str(world.home / "restored" / run_id / "data"),
        host=str(world.home),
        port=cleaner._site.port,
        user="postgres",
    )
    cleaner._calls.ask("discard", {"instance": {**_wire(ref)}})
    assert not Path(ref.name).exists()


def _wire(ref: InstanceRef) -> dict[str, object]:
    return {"name": ref.name, "host": ref.host, "port": ref.port, "user": ref.user}


def to_time(at: datetime, **changes: object) -> Target:
    return replace(
        Target(kind=TargetKind.TIME, value=at.isoformat(timespec="microseconds"), at=at), **changes
    )


def rows(restored: RestoredInstance) -> list[int]:
    with connect(restored.ref.endpoint) as session:
        return [number for (number,) in session.rows("SELECT n FROM public.t ORDER BY n")]


def restore(provider: TeamCommand, target: Target, ticks: list[Tick] | None = None) -> RestoredInstance:
    seen: list[Tick] = [] if ticks is None else ticks
    return provider.start(provider.plan(target), seen.append)


def test_the_documented_example_restores_advances_and_serves(
    world: World, team: Callable[..., TeamCommand]
) -> None:
    """Every verb of the example does what the contract says, on a real cluster."""
    provider = team()
    target = to_time(world.first[0])
    assert provider.check(target) == []
    assert provider.window().base_backups[0].system_identifier == world.identifier

    plan = provider.plan(target)
    ticks: list[Tick] = []
    prefetched = provider.prefetch(plan)
    restored = provider.start(plan, ticks.append, prefetched=prefetched)
    assert (restored.paused, restored.last_commit_at, rows(restored)) == (True, world.first[0], [1])
    assert [tick.phase for tick in ticks] == ["copy"]
    assert all(finding.holds for finding in provider.isolation(restored.ref))

    # a new process: the same start goes on where the last one stopped, and finds it done
    again = team()
    assert again.start(plan, ticks.append).stopped_at == restored.stopped_at
    assert again.attach(restored.ref).last_commit_at == restored.last_commit_at

    later = again.plan(Target(kind=TargetKind.LSN, value=str(world.second[1])))
    advanced = again.advance(restored.ref, later, ticks.append)
    assert rows(advanced) == [1, 2]

    promoted = again.promote(restored.ref)
    assert promoted.paused is False
    assert again.promote(restored.ref).paused is False

    again.discard(restored.ref)
    again.discard(restored.ref)
    assert not answers(restored.ref.endpoint)
    assert answers(world.production.endpoint)


def test_a_full_disk_is_the_disks_fault_and_not_the_commands(
    world: World, team: Callable[..., TeamCommand]
) -> None:
    """A copy that finds no room ends without an answer: it is called that, and goes on when there is some."""
    provider = team()
    target = to_time(world.first[0])
    with small_files(512 * 1024), pytest.raises(ProviderError) as error:
        restore(provider, target)

    assert (error.value.code, "File too large" in error.value.where) == ("RB308", True)
    assert "--resume" in error.value.hints[0]
    assert rows(restore(provider, target)) == [1]


def test_two_restores_at_once_do_not_meet(world: World, team: Callable[..., TeamCommand]) -> None:
    """Each run has a place of its own, discards only that, and leaves a folder alone that nobody's run made."""
    target = to_time(world.first[0])
    first, second, third = team(), team(run="second"), team(run="third")
    one, two = restore(first, target), restore(second, target)
    first.discard(one.ref)
    assert not answers(one.ref.endpoint)
    assert rows(two) == [1]
    second.discard(two.ref)

    plan = third.plan(target)
    folder = Path(plan.instance.name).parent
    folder.mkdir()
    (folder / "precious").touch()
    for touch in (lambda: third.start(plan, lambda _: None), lambda: third.discard(plan.instance)):
        with pytest.raises(ProviderError) as error:
            touch()
        assert error.value.code == "RB312"
    assert [path.name for path in folder.iterdir()] == ["precious"]


def test_the_examples_safety_copy_is_asked_for_again(world: World, team: Callable[..., TeamCommand]) -> None:
    """A base backup of production: it stands until a byte of it differs, and not when it is gone."""
    provider = team()

    kept = provider.safety_copy("snapshot")

    assert team().safety_copy("snapshot") == kept
    assert provider.safety_copy_stands("snapshot", kept) == ""
    folder = world.home / "backup" / "kept" / kept
    (folder / "PG_VERSION").write_text("81\n")
    assert "is not what was written" in provider.safety_copy_stands("snapshot", kept)
    shutil.rmtree(folder)
    assert "is gone" in provider.safety_copy_stands("snapshot", kept)
    silent = team(edits=(('VERB == "safety_copy_stands"', 'VERB == "unheard_of"'),))
    with pytest.raises(ProviderError, match="this command has no safety_copy_stands"):
        silent.safety_copy_stands("snapshot", kept)


def test_commissioning_is_asked_of_the_server(
    world: World, binaries: Binaries, team: Callable[..., TeamCommand]
) -> None:
    """Durable and archived where claimed, unprotected without a base backup; isolated again after."""
    provider = team(edits=(('**SITE["settings"], **ISOLATED', "**ISOLATED"),))
    restored = restore(provider, to_time(world.first[0]))
    provider.promote(restored.ref)
    archive = Path(tempfile.mkdtemp(dir=world.home))
    binaries.own(archive)

    served = provider.admit(
        restored.ref, Capture(), archive=archive, base_backups=None, supervisor=None, allowed={}
    )

    assert (served.host, served.durable) == ("127.0.0.1", True)
    assert (archive / served.archived_segment).exists()
    assert served.unprotected_since is not None
    provider.isolate(restored.ref)
    assert rows(restored) == [1]


def test_a_claimed_durability_is_refuted(world: World, team: Callable[..., TeamCommand]) -> None:
    """Fsync = off is not durable, whatever the command says."""
    provider = team()
    restored = restore(provider, to_time(world.first[0]))
    provider.promote(restored.ref)

    with pytest.raises(ProviderError, match="fsync") as caught:
        provider.admit(restored.ref, Capture(), archive=None, base_backups=None, supervisor=None, allowed={})

    assert caught.value.code == "RB313"


@pytest.mark.parametrize(
    ("edit", "subject"),
    [
        (('"archive_mode": "off"', '"archive_mode": "on", "archive_command": "cp %p /x/%f"'), "archive_mode"),
        (('"listen_addresses": ""', '"listen_addresses": "*"'), "listen_addresses"),
    ],
    ids=["archives", "listens"],
)
def test_a_copy_that_is_not_isolated_is_refused(
    edit: tuple[str, str], subject: str, world: World, team: Callable[..., TeamCommand]
) -> None:
    """RB311 names what is open."""
    with pytest.raises(ProviderError) as caught:
        restore(team(edits=(edit,)), to_time(world.first[0]))

    assert (caught.value.code, caught.value.fact.partition(":")[0]) == ("RB311", subject)


def test_an_answer_that_names_production_is_refused(world: World, team: Callable[..., TeamCommand]) -> None:
    """The instance behind the answer is production itself: told by its data directory, RB312."""
    edits = (
        ('"port": SITE["port"]', f'"port": {world.production.port}'),
        ('refuse("RB312", "this run restored nothing")', "answer(**state())"),
    )
    provider = team(edits=edits)
    plan = provider.plan(to_time(world.first[0]))

    with pytest.raises(ProviderError) as caught:
        provider.attach(plan.instance)

    assert (caught.value.code, caught.value.fact.split()[0]) == ("RB312", "data_directory")


def test_a_copy_of_another_cluster_is_refused(world: World, team: Callable[..., TeamCommand]) -> None:
    """The system identifier must be production's."""
    other = Cluster(system_identifier="1", data_directory=str(world.production.data))
    with pytest.raises(ProviderError) as caught:
        restore(team(cluster=other), to_time(world.first[0]))

    assert caught.value.code == "RB312"


def test_a_copy_that_ran_past_its_target_is_refused(world: World, team: Callable[..., TeamCommand]) -> None:
    """A command that stops a commit too late, inclusive instead of exclusive, is found out."""
    edit = ('"off" if target["exclusive"] else "on"', '"on"')
    with pytest.raises(ProviderError, match="after the target") as caught:
        restore(team(edits=(edit,)), to_time(world.second[0], exclusive=True))

    assert caught.value.code == "RB314"


def test_a_pause_that_is_none_is_refused(world: World, team: Callable[..., TeamCommand]) -> None:
    """`paused` is asked, not believed."""
    edits = (
        ('"recovery_target_action": "pause"', '"recovery_target_action": "promote"'),
        (
            'ask("SELECT pg_get_wal_replay_pause_state()") == "paused"',
            'ask("SELECT pg_is_in_recovery()") == "f"',
        ),
        ('"paused": paused == "t"', '"paused": True'),
    )
    with pytest.raises(ProviderError, match="promoted") as caught:
        restore(team(edits=edits), to_time(world.first[0]))

    assert caught.value.code == "RB314"


def test_a_target_the_archive_does_not_hold_ends_as_the_commands_error(
    team: Callable[..., TeamCommand],
) -> None:
    """The server's refusal becomes the command's RB310, not a hang."""
    with pytest.raises(ProviderError) as caught:
        restore(team(), Target(kind=TargetKind.LSN, value="F/0"))

    assert caught.value.code == "RB310"
