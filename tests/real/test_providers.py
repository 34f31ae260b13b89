"""
The contract of every provider of local copies, against real servers: window, refusals, targets, isolation,
commissioning, and what must never look like a restore that went well.
"""

import os
import re
import resource
import shlex
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from fixtures.command import JobRef, end_job, run, spawn, start_ticks, wait_for
from fixtures.errors import ConfigError, ProviderError, UnsupportedError
from fixtures.postgres.lsn import Lsn, segment_name
from fixtures.postgres.session import connect
from fixtures.production.capture import capture
from fixtures.progress import Tick
from fixtures.providers import REGISTRY
from fixtures.providers.base import (
    Capture,
    InstanceRef,
    RestoredInstance,
    ServiceEndpoint,
    Target,
    TargetKind,
)
from fixtures.providers.basebackup.backend import BaseBackupDirectory
from fixtures.providers.local.backend import LocalProvider
from fixtures.providers.local.instance import Instance
from fixtures.providers.local.replay import start_server
from fixtures.settings import BaseBackupProvider
from tests.limits import full_disk, small_files
from tests.real.barman_cloud_lab import BarmanCloudLab
from tests.real.basebackup_s3_lab import BaseBackupS3Lab
from tests.real.lab import Lab
from tests.real.recycling import recycle_first
from tests.real.restore_labs import LABS, VARIANTS, WITHOUT_LAB
from tests.real.restore_world import ROWS, World, production
from tests.real.s3_server import BUCKET, S3
from tests.real.session_tokens import Issued, SessionTokens, session_tokens

ALL_ROWS = list(range(ROWS + 1))
#: objects of a base backup that are read when it is copied
COPIED = re.compile(r"/base\.tar|/data\.tar|/pg_data/|/bundle/")
#: bytes: less than the run's own records, than a backup's largest file, and than a segment of the log
NEXT_TO_NOTHING, SMALL, HALF_A_SEGMENT = 64, 512 * 1024, 8 * 1024 * 1024


def asked_of(labs: Iterable[str]) -> pytest.MarkDecorator:
    """Ask a claim of some labs only."""
    return pytest.mark.parametrize("world", sorted(labs), indirect=True, scope="module")


#: the labs whose copies are production's own files, and so replay a log
PHYSICAL = {name for name, (kind, _) in LABS.items() if kind.physical}
#: the labs whose provider logs in to a service of objects
ON_S3 = {name for name, (kind, _) in LABS.items() if kind.lent is not Lab.lent}
#: for what is about the copy and not about the store: one lab per provider
about_the_copy = asked_of(set(LABS) - set(VARIANTS))
#: for what is about a log that is replayed; which labs have none is proven below, not claimed
replays_a_log = asked_of(PHYSICAL)
about_the_replaying_copy = asked_of(PHYSICAL - set(VARIANTS))


@pytest.fixture(scope="module", params=sorted(LABS))
def world(public_dir: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """Production after the damage, still running, with a store of each provider's kind."""
    kind, binaries = LABS[request.param]
    programs = binaries(public_dir)
    with (
        kind.surroundings(public_dir) as given,
        production(public_dir, partial(kind, **given), programs) as made,
    ):
        yield made


@pytest.fixture
def fresh(world: World, request: pytest.FixtureRequest) -> Iterator[LocalProvider]:
    """A provider for this test's own run; what it restored is discarded."""
    run_id = f"run-{abs(hash(request.node.name)) % 10**8}"
    provider = world.provider(run_id)
    yield provider
    provider.discard(provider.plan(latest()).instance)


def latest(world: World | None = None) -> Target:
    """Everything, or everything before the lock."""
    return Target(kind=TargetKind.LATEST, not_beyond=world.lock_lsn if world else None)


def before_damage(world: World) -> Target:
    """Just before the damaging transaction."""
    return world.lab.last_good(world.damage.xid)


def quiet(_: Tick) -> None:
    """Take progress and say nothing."""


def rows(ref: InstanceRef) -> list[int]:
    """Ids that are there."""
    with connect(ref.endpoint) as session:
        return [row for (row,) in session.rows("SELECT id FROM public.t ORDER BY id")]


def codes(provider: LocalProvider, target: Target, *, lock_lsn: Lsn | None = None) -> list[str]:
    """Codes of all findings."""
    return [finding.code for finding in provider.check(target, lock_lsn=lock_lsn)]


def captured(world: World) -> Capture:
    """Production's own settings, rules and roles, as the write lock captures them."""
    return capture(world.server.endpoint)


def targets() -> list[str]:
    """Every kind, inclusive and exclusive."""
    return [
        "time", "time-exclusive", "lsn", "lsn-exclusive", "xid", "xid-exclusive", "name", "latest",
        "latest-locked", "snapshot",
    ]  # fmt: skip


def target_and_rows(world: World, case: str) -> tuple[Target, list[int]]:
    """What to ask for and what must be there."""
    second = world.commits[1]
    kind, _, exclusive = case.partition("-")
    number = 2 - bool(exclusive)
    end = Target(kind=TargetKind(kind), exclusive=bool(exclusive))
    match kind:
        case "time":
            return replace(end, value=second.at.isoformat(), at=second.at), ALL_ROWS[: number + 1]
        case "xid":
            return replace(end, value=str(second.xid)), ALL_ROWS[: number + 1]
        case "lsn":
            # the position behind the second commit: the next record is the segment switch
            return replace(end, value=str(second.end)), ALL_ROWS[:3]
        case "name":
            return replace(end, value="before damage"), ALL_ROWS
        case "snapshot":
            return replace(end, value=world.provider("ask").window().base_backups[0].id), [0]
        case _:
            return (latest(world) if exclusive else latest()), [world.after.row]


def test_every_provider_is_under_this_contract() -> None:
    """A new line in the registry needs a lab, or a reason."""
    assert set(REGISTRY) == {*(VARIANTS.get(lab, lab) for lab in LABS), *WITHOUT_LAB}


@about_the_copy
def test_what_a_provider_is_not_asked_follows_from_what_its_copies_are(
    world: World, fresh: LocalProvider
) -> None:
    """Claims about a log are left out only where the copy is provably another cluster than production."""
    able = fresh.capabilities()
    ref = fresh.start(fresh.plan(before_damage(world)), quiet).ref
    with connect(ref.endpoint) as session:
        identifier = str(session.value("SELECT system_identifier FROM pg_control_system()"))

    assert able.physical == world.lab.physical == (identifier == world.system_identifier)
    assert able.physical or not able.pauses
    assert able.physical or not able.targets & {TargetKind.XID, TargetKind.LSN, TargetKind.NAME}


@replays_a_log
def test_the_window_shows_what_can_be_restored(world: World) -> None:
    """An unbroken archive reaches from the backup's end to the last commit."""
    window = world.provider("window").window()

    assert len(window.base_backups) == 1
    assert window.base_backups[0].system_identifier == world.system_identifier
    assert window.gaps == ()
    assert window.earliest == window.base_backups[0].ended_at
    assert window.latest is not None
    assert window.latest >= world.after.at
    assert window.timeline == 1


@replays_a_log
def test_the_window_shows_a_gap_with_its_times(world: World) -> None:
    """A missing segment ends what can be reached; the commits around it are named."""
    lab = world.lab.clone("gap")
    missing = world.commits[2].segment
    lab.lose(missing)

    window = world.provider("gap", lab=lab).window()

    assert [(gap.first_missing, gap.segments) for gap in window.gaps] == [(missing, 1)]
    assert window.gaps[0].after == world.commits[1].at
    assert window.gaps[0].before == world.commits[3].at
    assert window.latest == world.commits[1].at


@replays_a_log
@pytest.mark.parametrize("case", targets())
def test_a_good_target_has_no_finding(world: World, case: str) -> None:
    """No refusal fires on a target that can be restored."""
    target, _ = target_and_rows(world, case)

    assert world.provider("good").check(target, lock_lsn=world.lock_lsn) == []


@replays_a_log
def test_a_target_before_the_backups_end_is_refused(world: World) -> None:
    """PostgreSQL would stop later than asked, without a word."""
    provider = world.provider("early")
    backup = provider.window().base_backups[0]

    assert codes(provider, Target(kind=TargetKind.TIME, at=backup.ended_at)) == ["RB301"]
    assert codes(provider, Target(kind=TargetKind.LSN, value=str(backup.start_lsn))) == ["RB301"]


@replays_a_log
def test_a_target_beyond_the_archive_is_refused(world: World) -> None:
    """The nearest target that can be reached is named, and that waiting helps."""
    provider = world.provider("beyond")
    last = provider.window().latest
    assert last is not None
    beyond = Target(kind=TargetKind.TIME, at=last + timedelta(hours=1))

    (finding,) = provider.check(beyond)

    assert finding.code == "RB303"
    assert finding.waiting_helps
    assert finding.nearest == latest()
    for target in (
        Target(kind=TargetKind.TIME, at=last),
        Target(kind=TargetKind.LSN, value="7F/0"),
        Target(kind=TargetKind.XID, value="99999"),
        Target(kind=TargetKind.NAME, value="nobody made this"),
    ):
        assert codes(provider, target) == ["RB303"]


@replays_a_log
def test_a_target_beyond_the_lock_is_refused(world: World) -> None:
    """What was committed after the lock must not come back with the copy."""
    provider = world.provider("locked")
    lock = world.commits[1].end

    assert codes(provider, before_damage(world), lock_lsn=lock) == ["RB304"]
    assert codes(provider, Target(kind=TargetKind.TIME, at=world.commits[2].at), lock_lsn=lock) == ["RB304"]
    assert codes(provider, Target(kind=TargetKind.NAME, value="before damage"), lock_lsn=lock) == ["RB304"]
    assert codes(provider, Target(kind=TargetKind.LSN, value=str(world.lock_lsn)), lock_lsn=lock) == ["RB304"]
    assert codes(provider, Target(kind=TargetKind.TIME, at=world.commits[1].at), lock_lsn=lock) == []
    assert codes(provider, latest(), lock_lsn=lock) == []


@replays_a_log
def test_a_gap_and_a_cut_off_segment_are_refused(world: World) -> None:
    """A target behind a hole in the log is refused, one before it is not; latest would lose rows."""
    lab = world.lab.clone("cut")
    lab.cut(world.commits[2].segment)
    provider = world.provider("cut", lab=lab)

    assert codes(provider, before_damage(world)) == ["RB303", "RB302"]
    assert codes(provider, Target(kind=TargetKind.TIME, at=world.damage.at)) == ["RB302"]
    assert codes(provider, latest()) == ["RB302"]
    assert codes(provider, Target(kind=TargetKind.XID, value=str(world.commits[0].xid))) == []

    lab.lose(world.commits[2].segment)

    assert codes(world.provider("cut", lab=lab), Target(kind=TargetKind.TIME, at=world.damage.at)) == [
        "RB302"
    ]


@replays_a_log
def test_rescued_segments_fill_the_archive_up(world: World) -> None:
    """What production had not archived yet is found in the rescued folder, also by the server."""
    lab = world.lab.clone("short")
    rescued = world.home / "rescued"
    rescued.mkdir()
    shutil.copy(world.server.data / "pg_wal" / world.damage.segment, rescued)
    lab.lose(world.damage.segment)
    world.server.binaries.own(rescued)
    provider = world.provider("short", lab=lab)
    assert codes(provider, Target(kind=TargetKind.XID, value=str(world.damage.xid))) == ["RB303"]
    assert codes(provider, latest(), lock_lsn=world.lock_lsn) == ["RB303"]
    assert provider.check(latest(), lock_lsn=world.lock_lsn, rescued_wal=rescued) == []

    plan = provider.plan(before_damage(world), rescued_wal=rescued)
    try:
        restored = provider.start(plan, quiet)

        assert rows(restored.ref) == ALL_ROWS
    finally:
        provider.discard(plan.instance)


@replays_a_log
def test_another_cluster_and_timeline_are_refused(world: World) -> None:
    """A backup of somebody else's database is not restored, nor one that is no ancestor."""
    target = before_damage(world)
    lab = world.lab.clone("forked")
    lab.add_history("00000003.history", "2\t0/1000000\tno recovery target specified\n")

    assert codes(world.provider("other", system_identifier="1"), target) == ["RB305"]
    assert "RB306" in codes(world.provider("line", lab=lab, timeline=3), target)
    assert codes(world.provider("unknown", lab=lab, timeline=9), target) == ["RB302"]


@replays_a_log
def test_what_a_timeline_holds_behind_the_point_it_was_left_is_not_replayed(world: World) -> None:
    """An old primary that went on archiving after a failover: its segments fit by name, and are another history."""
    lab = world.lab.clone("left")
    left = world.commits[2].end
    lab.add_history("00000002.history", f"1\t{left}\tno recovery target specified\n")
    provider = world.provider("left", lab=lab, timeline=2)

    window = provider.window()
    assert (window.latest, window.latest_lsn, window.gaps) == (world.commits[2].at, left, ())
    assert codes(provider, Target(kind=TargetKind.XID, value=str(world.damage.xid))) == ["RB303"]
    assert codes(provider, Target(kind=TargetKind.TIME, at=world.commits[2].at)) == ["RB303"]
    assert provider.check(latest()) == []
    plan = provider.plan(latest())
    try:
        assert rows(provider.start(plan, quiet).ref) == ALL_ROWS[:4]
        provider.promote(plan.instance)
        assert rows(plan.instance) == ALL_ROWS[:4]
    finally:
        provider.discard(plan.instance)


@about_the_copy
def test_a_copy_that_does_not_fit_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Space is asked for before the copy."""
    monkeypatch.setattr("fixtures.providers.local.check.SPACE_FACTOR", 1e9)

    assert codes(world.provider("space"), before_damage(world)) == ["RB308"]


@about_the_replaying_copy
@pytest.mark.parametrize("case", targets())
def test_each_target_restores_exactly_its_rows(world: World, fresh: LocalProvider, case: str) -> None:
    """Inclusive and exclusive targets of every kind hold the rows they name, paused."""
    target, expected = target_and_rows(world, case)

    restored = fresh.start(fresh.plan(target), quiet)

    assert rows(restored.ref) == expected
    assert restored.paused
    assert restored.stop_reason
    if case.startswith(("xid", "time")):
        mark = world.commits[expected[-1] - 1]
        assert (restored.last_commit_xid, restored.last_commit_at) == (mark.xid, mark.at)
    if case.startswith("latest-locked"):
        assert restored.last_commit_xid == world.after.xid


@replays_a_log
def test_the_plan_prints_what_runs(
    world: World, fresh: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy's job is given all the plan's first line names, the server every setting of its last."""
    jobs: list[str] = []

    def watched(argv: Sequence[str | Path], **rest: Any) -> JobRef:
        files = [Path(word) for word in map(str, argv) if word.startswith("/") and Path(word).is_file()]
        jobs.append("\n".join([*map(str, argv), *(path.read_text(errors="replace") for path in files)]))
        return spawn(argv, **rest)

    monkeypatch.setattr("fixtures.providers.local.copy.spawn", watched)
    plan = fresh.plan(before_damage(world))

    ref = fresh.start(plan, quiet).ref

    copy, isolation, server = (shlex.split(line, comments=True) for line in plan.commands[-3:])
    named = [word for word in copy if word.startswith(("/", "-", "s3://"))]
    # a copy has a name of its own until it is whole; a bucket's prefix and objects are told one by one
    told = jobs[0].replace(".partial", "")
    parts = [
        [word] if word[0] != "s" else re.split("[/*]+", word.partition(f"{BUCKET}/")[2]) for word in named
    ]
    assert len(named) > 1
    assert [part for part in chain(*parts) if part not in told] == []
    assert "isolation" in isolation
    planned = dict(word.removeprefix("-c").split("=", 1) for word in server if word.startswith("-c"))
    with connect(ref.endpoint) as session:
        actual = {name: session.value("SELECT pg_catalog.current_setting(%s)", [name]) for name in planned}
    assert len(planned) > 2
    assert actual == planned


@about_the_replaying_copy
def test_a_paused_copy_moves_forward_only(world: World, fresh: LocalProvider) -> None:
    """Advance reaches the later target without a new copy; backward is refused; promote ends it."""
    first = fresh.plan(Target(kind=TargetKind.XID, value=str(world.commits[0].xid)))
    later = fresh.plan(before_damage(world))
    restored = fresh.start(first, quiet)
    assert rows(restored.ref) == ALL_ROWS[:2]

    moved = fresh.advance(restored.ref, later, quiet)

    assert rows(moved.ref) == ALL_ROWS
    with pytest.raises(ProviderError) as error:
        fresh.advance(restored.ref, first, quiet)
    assert error.value.code == "RB303"

    promoted = fresh.promote(moved.ref)

    assert (promoted.paused, promoted.timeline) == (False, 2)
    assert fresh.promote(moved.ref) == promoted
    assert fresh.attach(moved.ref) == promoted
    assert fresh.start(later, quiet) == promoted
    with pytest.raises(ProviderError):
        fresh.advance(moved.ref, fresh.plan(latest()), quiet)
    assert not [finding for finding in fresh.isolation(moved.ref) if not finding.holds]


@replays_a_log
def test_a_new_process_joins_what_a_dead_one_began(world: World, fresh: LocalProvider) -> None:
    """Prefetch is joined, a running instance attached, a killed one started again, a stub redone."""
    plan = fresh.plan(before_damage(world))
    job = fresh.prefetch(plan)
    assert job is not None
    assert fresh.prefetch(plan) in {job, None}
    ticks: list[Tick] = []
    restored = fresh.start(plan, ticks.append, prefetched=job)
    assert {"copy", "replay"} <= {tick.phase for tick in ticks}

    again = world.lab.provider(fresh._site)

    assert again.start(plan, quiet).stopped_at == restored.stopped_at
    instance = Instance.of(fresh._site, restored.ref)
    feeder, pid = instance.load("feed", JobRef), instance.server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    if feeder is not None:
        end_job(feeder, first=signal.SIGKILL)
    with pytest.raises(ProviderError) as error:
        again.attach(restored.ref)
    assert error.value.code == "RB312"
    assert rows(again.start(plan, quiet).ref) == ALL_ROWS

    instance.stop(mode="immediate")
    instance.folder.data.rename(instance.folder.partial)
    (instance.folder.partial / "PG_VERSION").unlink()

    assert rows(again.start(plan, quiet).ref) == ALL_ROWS


def test_a_damaged_base_backup_is_found_while_copying(world: World) -> None:
    """The manifest's checksums are compared before anything is replayed."""
    lab = world.lab.clone("bitrot")
    lab.damage_backup()
    provider = world.provider("bitrot", lab=lab)
    plan = provider.plan(before_damage(world))

    with pytest.raises(ProviderError) as error:
        provider.start(plan, quiet)

    assert error.value.code == "RB301"
    provider.discard(plan.instance)


@replays_a_log
def test_an_unreachable_store_is_not_the_end_of_the_log(world: World) -> None:
    """A store that goes away between check and replay is a loud failure, and can be resumed."""
    lab = world.lab.clone("away")
    provider = world.provider("away", lab=lab)
    plan = provider.plan(before_damage(world))
    assert plan.backup is not None
    instance = Instance.of(provider._site, plan.instance)
    gone = False

    def vanish(tick: Tick) -> None:
        nonlocal gone
        if tick.phase == "copy" and tick.done == tick.total and not gone:
            lab.hide()
            gone = True

    with pytest.raises(ProviderError) as error:
        provider.start(plan, vanish)
    assert error.value.code in {"RB302", "RB309"}
    lab.show()

    restored = provider.start(plan, quiet)

    assert rows(restored.ref) == ALL_ROWS
    target = instance.folder.root / "segment"

    def ask(name: str) -> int:
        return run(["/bin/sh", instance.folder.script, name, target], timeout_s=20, check=False).returncode

    first = segment_name(1, plan.backup.start_lsn.segment())
    assert ask(first) == 0
    assert ask("0000000100000000000000FF") == 1
    lab.hide()
    assert ask("0000000100000000000000FF") == 255
    lab.show()
    provider.discard(plan.instance)


@replays_a_log
def test_a_damaged_segment_is_not_replayed(world: World) -> None:
    """What was harmed in the store after the check stops the server; it is not the end of the log."""
    lab = world.lab.clone("harmed")
    provider = world.provider("harmed", lab=lab)
    plan = provider.plan(before_damage(world))
    lab.cut(world.commits[2].segment)

    with pytest.raises(ProviderError) as error:
        provider.start(plan, quiet)

    assert error.value.code in {"RB302", "RB303"}  # found before or while it is replayed
    assert "archive recovery complete" not in Instance.of(provider._site, plan.instance).log_text()
    provider.discard(plan.instance)


def test_a_killed_copy_is_taken_up_again(world: World, fresh: LocalProvider) -> None:
    """A copy that died half-way is neither opened nor trusted; the next start completes it."""
    plan = fresh.plan(before_damage(world))
    job = fresh.prefetch(plan)
    assert job is not None
    end_job(job, first=signal.SIGKILL)
    instance = Instance.of(fresh._site, plan.instance)
    shutil.rmtree(instance.folder.data, ignore_errors=True)  # it may have been done already

    assert rows(world.lab.provider(fresh._site).start(plan, quiet).ref) == ALL_ROWS


def test_a_full_disk_is_called_that_and_can_be_freed(
    world: World, fresh: LocalProvider, public_dir: Path
) -> None:
    """In the copy, where the log is read, and in its replay: never a damaged backup; with room, it goes on."""
    plan = fresh.plan(before_damage(world))
    assert plan.backup is not None
    unpacks = isinstance(world.lab, BaseBackupS3Lab | BarmanCloudLab)

    def told(provider: LocalProvider, full: AbstractContextManager[None]) -> None:
        with full, pytest.raises(ProviderError) as error:
            provider.start(plan, quiet)
        assert (error.value.code, bool(error.value.where)) == ("RB308", True), error.value
        assert any("free space" in hint and "--resume" in hint for hint in error.value.hints), error.value

    told(fresh, full_disk(NEXT_TO_NOTHING, public_dir))
    told(fresh, full_disk(SMALL, public_dir))
    if unpacks:
        told(fresh, full_disk(SMALL, public_dir, only=("tar",)))
    if world.lab.physical:
        fresh._store.finish_copy(Instance.of(fresh._site, plan.instance), plan.backup, quiet)
        told(world.lab.provider(fresh._site), full_disk(HALF_A_SEGMENT, public_dir))
        told(fresh, full_for_the_server(public_dir))

    assert rows(fresh.start(plan, quiet).ref) == ALL_ROWS


@contextmanager
def full_for_the_server(home: Path) -> Iterator[None]:
    """Only the restored server, and what feeds it, finds the disk full."""

    def limited(*args: Any, **options: Any) -> JobRef:
        with small_files(HALF_A_SEGMENT):
            return spawn(*args, **options)

    with full_disk(resource.RLIM_INFINITY, home), pytest.MonkeyPatch.context() as patch:
        for starter in ("fixtures.postgres.server", "fixtures.providers.local.feed"):
            patch.setattr(f"{starter}.spawn", limited)
        yield


def test_two_restores_at_once_do_not_meet(world: World) -> None:
    """Two runs restore from one store at the same time, each into its own place."""
    providers = [world.provider(name) for name in ("one", "two")]
    plans = [provider.plan(before_damage(world)) for provider in providers]
    jobs = [provider.prefetch(plan) for provider, plan in zip(providers, plans, strict=True)]

    for provider, plan, job in zip(providers, plans, jobs, strict=True):
        assert rows(provider.start(plan, quiet, prefetched=job).ref) == ALL_ROWS
    for provider, plan in zip(providers, plans, strict=True):
        provider.discard(plan.instance)


@replays_a_log
def test_the_server_itself_fails_loudly_when_the_archive_goes(world: World) -> None:
    """Replay that loses its archive half-way ends with a FATAL, not with a promotion."""
    lab = world.lab.clone("mid")
    provider = world.provider("mid", lab=lab)
    plan = provider.plan(Target(kind=TargetKind.XID, value=str(world.commits[0].xid)))
    restored = provider.start(plan, quiet)
    lab.hide()

    with connect(restored.ref.endpoint) as session:
        session.do("SELECT pg_wal_replay_resume()")
    instance = Instance.of(provider._site, restored.ref)
    wait_for(lambda: not instance.runs(), timeout_s=30, what="the server has ended")

    assert "archive unreadable" in instance.log_text()
    assert "archive recovery complete" not in instance.log_text()
    provider.discard(plan.instance)


@about_the_copy
def test_isolation_is_red_for_a_copy_started_wrongly(world: World, fresh: LocalProvider) -> None:
    """A copy with production's files and settings is seen for what it is."""
    restored = fresh.start(fresh.plan(before_damage(world)), quiet)
    assert not [finding for finding in fresh.isolation(restored.ref) if not finding.holds]
    fresh.promote(restored.ref)
    instance = Instance.of(fresh._site, restored.ref)
    instance.stop()
    data = instance.folder.data
    instance.folder.write(
        data / "postgresql.auto.conf",
        f"archive_mode = 'on'\narchive_command = '{world.lab.archive_command}'\nprimary_conninfo = 'host=x'\n"
        "listen_addresses = '127.0.0.1'\n",
    )
    instance.folder.write(data / "pg_hba.conf", "local all all trust\nhost all all 0.0.0.0/0 reject\n")
    job = instance.server.start()
    instance.server.wait_ready(job)
    with connect(restored.ref.endpoint) as session:
        session.do("CREATE FOREIGN DATA WRAPPER w")
        session.do("CREATE SERVER far FOREIGN DATA WRAPPER w OPTIONS (host '127.0.0.1', port '1')")
        session.do("SELECT pg_create_physical_replication_slot('left')")

    broken = {finding.subject for finding in fresh.isolation(restored.ref) if not finding.holds}

    assert "foreign servers" not in broken
    with connect(restored.ref.endpoint) as session:
        session.do(
            sql.SQL("CREATE SERVER near FOREIGN DATA WRAPPER w OPTIONS (host {}, port {})").format(
                str(world.server.sockets), str(world.server.port)
            )
        )
    broken |= {finding.subject for finding in fresh.isolation(restored.ref) if not finding.holds}
    assert "foreign servers" in broken
    assert {
        "archive_mode", "archive_command", "primary_conninfo", "listen_addresses", "replication slots",
        "log-in rules", "production's archive", "socket's mode",
        "isolation survives a restart (postgresql.auto.conf)",
    } <= broken  # fmt: skip
    instance.server.kill(job)


@about_the_copy
def test_isolation_outlives_a_restart_without_options(world: World, fresh: LocalProvider) -> None:
    """The isolation stands in the files: a bare restart does not bring production's settings back."""
    restored = fresh.start(fresh.plan(before_damage(world)), quiet)
    fresh.promote(restored.ref)
    instance = Instance.of(fresh._site, restored.ref)
    instance.stop()

    job = instance.server.start()
    instance.server.wait_ready(job)

    assert not [finding for finding in fresh.isolation(restored.ref) if not finding.holds]
    instance.server.kill(job)


@about_the_copy
def test_settings_that_break_the_isolation_are_refused(world: World) -> None:
    """[restore] settings are for memory, not for archive_mode."""
    provider = world.provider("settings")
    provider._site = replace(provider._site, settings={"archive_mode": "on"})
    plan = provider.plan(before_damage(world))

    with pytest.raises(ConfigError):
        provider.start(plan, quiet)

    provider.discard(plan.instance)


@about_the_copy
def test_a_copy_becomes_fit_to_be_production_and_back(
    world: World, fresh: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Durable, production's settings, archived and read back, backed up, kept alive; then closed again."""
    restored = _promoted(fresh, world)
    archive, base_backups = world.home / f"a-{restored.ref.run_id}", world.home / f"b-{restored.ref.run_id}"

    def admit() -> ServiceEndpoint:
        return fresh.admit(
            restored.ref,
            captured(world),
            archive=archive,
            base_backups=base_backups,
            supervisor=None,
            allowed={},
        )

    waited = recycle_first(monkeypatch)

    service = admit()

    assert (len(waited), service.archived_segment) == (2, waited[-1])
    assert service.durable
    assert service.differences == ()
    assert service.unprotected_since is None
    assert (archive / service.archived_segment).stat().st_size == 16 * 1024 * 1024
    assert (base_backups / service.base_backup / "backup_manifest").is_file()
    assert any(line.startswith("archive_command: ") for line in service.allowed)
    assert any(line.startswith("subscription postgres.feed: ") for line in service.allowed)
    assert admit() == service

    instance = Instance.of(fresh._site, restored.ref)
    assert (instance.folder.data / "pg_tblspc").stat().st_mode & 0o777 == 0o700
    pid = instance.server.pid()
    assert pid is not None
    with connect(restored.ref.endpoint) as session:
        shown = session.row(
            "SELECT current_setting('work_mem'), current_setting('maintenance_work_mem'),"
            " current_setting('temp_buffers')"
        )
        assert shown == ("5MB", "33MB", "8MB")
        assert session.value("SELECT count(*) FROM pg_hba_file_rules WHERE 'app' = ANY(user_name)") == 1
        assert session.value("SELECT count(*) FROM pg_subscription WHERE subenabled") == 0
        session.do("INSERT INTO public.t VALUES (50, 'served')")
    os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: instance.server.pid() not in {None, pid} and instance.answers(),
        timeout_s=60,
        what="the keeper restarted the server",
    )
    assert rows(restored.ref) == [*ALL_ROWS, 50]

    # a process that knows nothing but the reference
    other = world.lab.provider(fresh._site)
    other.isolate(restored.ref)
    other.isolate(restored.ref)

    assert rows(restored.ref) == [*ALL_ROWS, 50]
    assert not [finding for finding in other.isolation(restored.ref) if not finding.holds]
    with connect(restored.ref.endpoint) as session:
        assert (
            session.value("SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_read_only'")
            == "on"
        )
        assert session.value("SELECT count(*) FROM pg_hba_file_rules WHERE user_name = ARRAY['all']") == 0
        ended = session.value("SELECT pg_walfile_name(pg_switch_wal())")
    _restores_itself(world, archive, base_backups, restored)

    again = admit()

    assert again.durable
    assert again.differences == ()
    # what was written meanwhile is in no archive: the first backup leads up to it and no further
    assert again.unprotected_since is not None
    assert any(f"segment {ended} ended while archiving was off" in line for line in again.allowed)


@about_the_copy
def test_without_new_places_the_copy_is_unprotected(world: World, fresh: LocalProvider) -> None:
    """It serves, and says since when nothing protects it; a setting production lacks is a difference."""
    restored = _promoted(fresh, world)
    wanted = captured(world)
    wanted.settings["max_connections"] = "77"
    wanted.settings["no_such.thing"] = "x"
    wanted.roles["gone"] = "LOGIN"
    wanted.roles["app"] += " CREATEDB"

    service = fresh.admit(
        restored.ref, wanted, archive=None, base_backups=None, supervisor=None,
        allowed={"work_mem": "smaller machine"},
    )  # fmt: skip

    assert service.unprotected_since is not None
    assert service.archived_segment == service.base_backup == ""
    assert service.differences == (
        "role app: none, production has CREATEDB",
        "role gone: production has it, the copy has not",
    )
    with connect(restored.ref.endpoint) as session:
        assert session.value("SELECT current_setting('max_connections')") == "77"
        assert session.value("SELECT current_setting('archive_mode')") == "off"


@about_the_copy
def test_the_teams_own_supervisor_takes_over(
    world: World, fresh: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command starts the server from PGDATA; isolating does not depend on it."""
    monkeypatch.setattr("fixtures.providers.local.commission.COMES_BACK_S", 0.2)
    restored = _promoted(fresh, world)
    binaries = world.server.binaries
    become = f"setpriv --reuid {binaries.user} --init-groups" if binaries.user else ""
    start = f'{become} {binaries.tool("pg_ctl")} -D "$PGDATA" -W -l "$PGDATA/../own.log" start'

    service = fresh.admit(
        restored.ref,
        captured(world),
        archive=None,
        base_backups=None,
        supervisor=("sh", "-c", start),
        allowed={},
    )

    assert service.durable
    assert service.differences == ()
    assert service.supervisor.startswith("sh -c")

    fresh.isolate(restored.ref)

    assert not [finding for finding in fresh.isolation(restored.ref) if not finding.holds]


@about_the_copy
def test_the_old_archive_is_never_the_new_one(world: World, fresh: LocalProvider) -> None:
    """Two timelines in one archive lose commits, and a filled folder is somebody's."""
    restored = _promoted(fresh, world)
    filled = world.home / "filled"
    filled.mkdir(exist_ok=True)
    (filled / "something").touch()

    for archive in (*world.lab.places, world.lab.places[0] / "below", filled, world.server.data / "x"):
        with pytest.raises(ProviderError) as error:
            fresh.admit(
                restored.ref, Capture(), archive=archive, base_backups=None, supervisor=None, allowed={}
            )
        assert error.value.code == "RB313"

    assert not [finding for finding in fresh.isolation(restored.ref) if not finding.holds]


@about_the_replaying_copy
def test_a_paused_copy_is_not_admitted(world: World, fresh: LocalProvider) -> None:
    """Commissioning asks for a promoted instance."""
    restored = fresh.start(fresh.plan(before_damage(world)), quiet)

    with pytest.raises(ProviderError) as error:
        fresh.admit(restored.ref, Capture(), archive=None, base_backups=None, supervisor=None, allowed={})

    assert error.value.code == "RB313"


@about_the_copy
def test_discard_removes_its_own_and_nothing_else(world: World) -> None:
    """Twice is quiet, a folder without our marker is refused, so is another place."""
    provider = world.provider("mine")
    plan = provider.plan(before_damage(world))
    restored = provider.start(plan, quiet)
    pid = Instance.of(provider._site, restored.ref).server.pid()
    assert pid is not None
    marker = Path(restored.ref.name).parent / ".restore-runbook-mine"
    kept = marker.rename(marker.with_name("elsewhere"))

    with pytest.raises(ProviderError) as error:
        provider.discard(restored.ref)
    assert error.value.code == "RB312"
    assert start_ticks(pid) is not None

    kept.rename(marker)
    with pytest.raises(ProviderError):
        provider.discard(replace(restored.ref, name=str(world.server.data)))
    provider.discard(restored.ref)
    provider.discard(restored.ref)

    assert start_ticks(pid) is None
    assert not Path(restored.ref.name).parent.exists()
    assert all(place.is_dir() for place in world.lab.places)


@about_the_copy
def test_a_foreign_folder_is_not_restored_into(world: World) -> None:
    """A run folder somebody filled is left alone."""
    provider = world.provider("foreign")
    plan = provider.plan(before_damage(world))
    folder = Path(plan.instance.name).parent
    folder.mkdir(parents=True)
    (folder / "precious").touch()

    for refused in (lambda: provider.prefetch(plan), lambda: provider.start(plan, quiet)):
        with pytest.raises(ProviderError) as error:
            refused()
        assert error.value.code == "RB312"

    assert (folder / "precious").exists()


@about_the_copy
def test_a_restore_folder_inside_production_is_refused(world: World) -> None:
    """Nothing is ever restored into production's data, archive or backups."""
    provider = world.provider("inside")
    for place in (world.server.data, world.lab.places[0] / "x", *world.lab.places):
        inside = world.lab.provider(replace(provider._site, directory=place))

        assert codes(inside, before_damage(world)) == ["RB311"]
        with pytest.raises(ProviderError) as error:
            inside.start(inside.plan(before_damage(world)), quiet)
        assert error.value.code == "RB311"

    assert not (world.server.data / "inside").exists()


@about_the_copy
def test_it_offers_no_safety_copy(world: World) -> None:
    """The safety copy is taken from production."""
    with pytest.raises(UnsupportedError):
        world.provider("none").safety_copy("branch")
    with pytest.raises(UnsupportedError):
        world.provider("none").safety_copy_stands("branch", "b-1")


def _promoted(provider: LocalProvider, world: World) -> RestoredInstance:
    restored = provider.start(provider.plan(before_damage(world)), quiet)
    return provider.promote(restored.ref)


def _restores_itself(world: World, archive: Path, base_backups: Path, restored: RestoredInstance) -> None:
    """The new archive and the new backup serve a restore of their own, on the new timeline."""
    site = world.site(f"{restored.ref.run_id}-2", timeline=restored.timeline)
    provider = BaseBackupDirectory(BaseBackupProvider(base_backups=base_backups, archive=archive), site)
    plan = provider.plan(Target(kind=TargetKind.SNAPSHOT, value=f"after-{restored.ref.run_id}"))
    try:
        assert rows(provider.start(plan, quiet).ref) == ALL_ROWS
    finally:
        provider.discard(plan.instance)


# -- credentials that expire ---------------------------------------------------------------------------


@pytest.fixture
def tokens(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[World, SessionTokens]]:
    """The world's store behind a double of S3's rules for temporary credentials."""
    s3: S3 = world.lab.s3  # type: ignore[attr-defined]
    for name in (
        "fixtures.providers.local.feed.PATIENCE_S",
        "fixtures.providers.basebackup.bucket.PATIENCE_S",
    ):
        monkeypatch.setattr(name, 1.0)
    with session_tokens(s3) as double:
        yield world.of(world.lab.lent(double)), double


def expired(told: str, hints: Iterable[str], issued: Issued) -> bool:
    """Whether an error says so, with what to renew, and without the token."""
    text = f"{told} {' '.join(hints)}"
    return (
        "ExpiredToken" in told and any(word in text for word in ("log in again", "renew"))
    ) and issued.token not in text


@asked_of(ON_S3)
def test_a_token_that_expired_before_the_run_is_named(
    tokens: tuple[World, SessionTokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is copied; a token that holds is enough, and one that nobody issued is told apart."""
    world, double = tokens
    issued = double.issue()
    world.lab.use(issued, monkeypatch)
    assert world.provider("token").check(before_damage(world)) == []

    issued.expired = True

    (finding,) = world.provider("token").check(before_damage(world))
    assert finding.code == "RB309"
    assert expired(f"{finding.fact} {finding.where}", finding.hints, issued)
    double.issued.clear()
    (finding,) = world.provider("token").check(before_damage(world))
    assert (finding.code, "InvalidToken" in finding.fact) == ("RB309", True)
    assert not (world.home / "restored" / "token").exists()


@asked_of(ON_S3)
def test_a_token_that_expires_on_the_way_is_an_outage(
    tokens: tuple[World, SessionTokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    In the copy, in the replay, before the promotion and in it: never the end of the log, never damage.

    It stops loudly, and a new login goes on with what is there; a copy that stands at its target is left alone.
    """
    world, double = tokens
    site = world.site("expires")
    commits = [world.lab.object(mark.segment) for mark in (world.commits[2], world.damage)]

    def logged_in() -> tuple[LocalProvider, Issued]:
        issued = double.issue()
        world.lab.use(issued, monkeypatch)
        made = world.lab.provider(site)
        assert isinstance(made, LocalProvider)
        return made, issued

    def stopped(issued: Issued, act: Callable[[], object], *, answers: bool) -> None:
        with pytest.raises(ProviderError) as error:
            act()
        assert error.value.code == "RB309"
        assert expired(f"{error.value.fact} {error.value.where}", error.value.hints, issued)
        assert instance.answers() == answers
        assert "archive recovery complete" not in instance.log_text()
        for path in (instance.log, *site.logs.rglob("*")):
            assert not path.is_file() or issued.token not in path.read_text()

    provider, issued = logged_in()
    first = provider.plan(Target(kind=TargetKind.XID, value=str(world.commits[0].xid)))
    whole = provider.plan(before_damage(world))
    instance = Instance.of(site, whole.instance)
    try:
        issued.ends_at = lambda method, path: method == "GET" and bool(COPIED.search(path))
        stopped(issued, lambda: provider.start(first, quiet), answers=False)

        provider, issued = logged_in()
        ref = provider.start(first, quiet).ref
        assert rows(ref) == ALL_ROWS[:2]
        with ends_in_replay(issued, commits[0]):
            stopped(issued, lambda: provider.advance(ref, whole, quiet), answers=False)

        provider, issued = logged_in()
        assert rows(provider.start(whole, quiet).ref) == ALL_ROWS
        issued.expired = True
        stopped(issued, lambda: provider.promote(ref), answers=True)

        provider, issued = logged_in()
        issued.ends_at = lambda method, path: method == "GET" and commits[1] in path
        stopped(issued, lambda: provider.promote(ref), answers=False)

        provider, issued = logged_in()
        assert rows(provider.start(whole, quiet).ref) == ALL_ROWS
        assert instance.in_recovery()
        assert provider.promote(ref).timeline == 2
        assert rows(ref) == ALL_ROWS
    finally:
        provider.discard(whole.instance)


@contextmanager
def ends_in_replay(issued: Issued, lost: str) -> Iterator[None]:
    """Let a token expire at an object, asked for by the feeder, or by the server where there is none."""

    def ends(begin: Callable[..., JobRef], *given: object, **named: object) -> JobRef:
        issued.ends_at = lambda method, path: method == "GET" and lost in path
        return begin(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        # the runner's own questions are behind it by then
        patch.setattr("fixtures.providers.local.feed.spawn", partial(ends, spawn))
        patch.setattr("fixtures.providers.local.start.start_server", partial(ends, start_server))
        yield
