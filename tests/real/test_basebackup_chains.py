"""Incremental chains and tar-format backups: found by what they say, combined, proven; refused before copying."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.command import end_job, run, wait_for
from fixtures.errors import ProviderError
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.session import connect
from fixtures.progress import Tick
from fixtures.providers.base import InstanceRef, Target, TargetKind
from fixtures.providers.local.backend import LocalProvider
from fixtures.providers.local.instance import Instance
from tests.missing import missing
from tests.real.restore_labs import BaseBackupLab, flip
from tests.real.restore_world import ROWS, World, production

ALL_ROWS = list(range(ROWS + 1))
PACKERS = {"base.tar.gz": "gzip", "base.tar.zst": "zstd", "base.tar.lz4": "lz4", "base.tar": ""}


@dataclass(frozen=True, kw_only=True)
class ChainLab(BaseBackupLab):
    """A full backup and two incremental ones, each with rows of its own between them."""

    def back_up(self) -> None:
        """Take them."""
        with connect(self.server.endpoint) as session:
            session.do("ALTER SYSTEM SET summarize_wal = on")
            session.do("SELECT pg_reload_conf()")
            session.do(
                "CREATE TABLE public.filled AS SELECT i AS id, repeat('x', 200) AS v FROM generate_series(1, 4000) i"
            )
            self._take("full")
            session.do("UPDATE public.filled SET v = 'one' WHERE id % 500 = 0")
            self._take("inc1", "--incremental", self.base_backups / "full" / "backup_manifest")
            session.do("UPDATE public.filled SET v = 'two' WHERE id % 700 = 0")
            self._take("inc2", "--incremental", self.base_backups / "inc1" / "backup_manifest")

    def _take(self, name: str, *options: str | Path, form: str = "plain") -> None:
        run(
            [
                self.server.binaries.tool("pg_basebackup"), "-h", self.server.sockets, "-p", str(self.server.port),
                "-U", "postgres", "-D", self.base_backups / name, "-c", "fast", "-X", "none", "-F", form, *options,
            ],
            timeout_s=60, user=self.server.binaries.user,
        )  # fmt: skip

    def pack(self) -> "ChainLab":
        """Take a chain in tar format beside the plain one, each member packed otherwise."""
        manifest = None
        for number, (archive, program) in enumerate(sorted(PACKERS.items())):
            name = f"tar{number}"
            self._take(name, *(["--incremental", manifest] if manifest else []), form="tar")
            manifest = self.base_backups / name / "backup_manifest"
            if program:
                plain = self.base_backups / name / "base.tar"
                run(
                    ["sh", "-c", '"$1" -qc "$2" >"$3"', "pack", program, plain, plain.with_name(archive)],
                    timeout_s=60,
                )
                plain.unlink()
            assert (self.base_backups / name / archive).is_file()
        return self


@pytest.fixture(scope="module")
def world(public_dir: Path, binaries: Binaries) -> Iterator[World]:
    """Production after the damage, still running."""
    with production(public_dir, ChainLab, binaries) as made:
        yield made


@pytest.fixture
def restored(world: World) -> Iterator[Callable[..., LocalProvider]]:
    """Make providers for runs of their own; what they restored is discarded."""
    made: list[LocalProvider] = []

    def make(name: str, **changes: object) -> LocalProvider:
        made.append(world.provider(name, **changes))
        return made[-1]

    yield make
    for provider in made:
        provider.discard(provider.plan(before_damage(world)).instance)


def before_damage(world: World) -> Target:
    """Just before the damaging transaction."""
    return Target(kind=TargetKind.XID, value=str(world.damage.xid), exclusive=True)


def snapshot(name: str) -> Target:
    """A backup's own end."""
    return Target(kind=TargetKind.SNAPSHOT, value=name)


def quiet(_: Tick) -> None:
    """Take progress and say nothing."""


def rows(ref: InstanceRef) -> list[int]:
    """Ids that are there."""
    with connect(ref.endpoint) as session:
        return [row for (row,) in session.rows("SELECT id FROM public.t ORDER BY id")]


def filled(ref: InstanceRef) -> dict[str, int]:
    """How many rows hold which value, long ones as x."""
    with connect(ref.endpoint) as session:
        return dict(session.rows("SELECT left(v, 3), count(*) FROM public.filled GROUP BY 1"))


def test_a_chain_is_one_backup_that_restores(world: World, restored: Callable[..., LocalProvider]) -> None:
    """The plan says what is combined; every block of every member is there, the replay goes on from it."""
    provider = restored("chain")
    base = world.lab.places[1]
    assert [backup.id for backup in provider.window().base_backups] == ["full", "inc1", "inc2"]
    assert provider.check(before_damage(world)) == []

    plan = provider.plan(before_damage(world))

    assert plan.commands[0] == f"pg_combinebackup {base}/full {base}/inc1 {base}/inc2 -o {plan.instance.name}"
    one = provider.start(plan, quiet)
    assert one.backup_id == "inc2"
    assert rows(one.ref) == ALL_ROWS
    assert filled(one.ref) == {"xxx": 3988, "one": 7, "two": 5}
    assert sorted(path.name for path in Path(one.ref.name).parent.glob("*.partial")) == []


def test_a_member_serves_by_itself(restored: Callable[..., LocalProvider]) -> None:
    """The end of an incremental backup in the middle of the chain."""
    provider = restored("middle")

    one = provider.start(provider.plan(snapshot("inc1")), quiet)

    assert rows(one.ref) == [0]
    assert filled(one.ref) == {"xxx": 3992, "one": 8}


def test_a_missing_link_is_refused_with_the_nearest_usable(
    world: World, restored: Callable[..., LocalProvider]
) -> None:
    """The incremental alone is refused; a moment behind it is served by the older backup."""
    lab = world.lab.clone("lost")
    shutil.rmtree(lab.place / "base" / "inc1")
    provider = restored("lost", lab=lab)

    (finding,) = provider.check(snapshot("inc2"))

    assert finding.code == "RB301"
    assert "inc2 cannot be restored" in finding.fact
    assert finding.nearest == snapshot("full")
    assert provider.check(before_damage(world)) == []
    one = provider.start(provider.plan(before_damage(world)), quiet)
    assert (one.backup_id, rows(one.ref)) == ("full", ALL_ROWS)
    assert filled(one.ref) == {"xxx": 3988, "one": 7, "two": 5}


@pytest.mark.parametrize("harm", ["cut manifest", "lost file", "stranger"])
def test_a_broken_link_is_refused_before_copying(world: World, harm: str) -> None:
    """A manifest that is cut off, a file that is gone, a full backup of another cluster."""
    lab = world.lab.clone(f"broken-{harm[:3]}")
    inc1, full = (lab.place / "base" / name for name in ("inc1", "full"))
    if harm == "cut manifest":
        manifest = inc1 / "backup_manifest"
        manifest.write_bytes(manifest.read_bytes()[:5000])
    elif harm == "lost file":
        max((full / "base").rglob("[0-9]*"), key=lambda path: path.stat().st_size).unlink()
    else:
        control = full / "global" / "pg_control"
        control.write_bytes(b"12345678" + control.read_bytes()[8:])
    provider = world.provider("broken", lab=lab)

    findings = provider.check(snapshot("inc2"))

    assert findings[0].code == "RB301"
    assert not (world.home / "restored" / "broken").exists()


@pytest.mark.parametrize("member", ["full", "inc2"])
def test_a_damaged_member_is_found_before_it_is_combined(world: World, member: str) -> None:
    """Combining takes blocks as they are and writes a manifest that fits: each member is proven first."""
    lab = world.lab.clone(f"rot-{member}")
    flip(max((lab.place / "base" / member / "base").rglob("*[0-9]*"), key=lambda path: path.stat().st_size))
    provider = world.provider("rot", lab=lab)
    plan = provider.plan(before_damage(world))

    with pytest.raises(ProviderError) as error:
        provider.start(plan, quiet)

    assert error.value.code == "RB301"
    assert not Instance.of(provider._site, plan.instance).folder.data.exists()
    provider.discard(plan.instance)


def test_a_killed_combination_is_done_again(world: World, restored: Callable[..., LocalProvider]) -> None:
    """What a dead one left is not taken for a backup; the members are not written to."""
    provider = restored("cut")
    plan = provider.plan(before_damage(world))
    job = provider.prefetch(plan)
    assert job is not None
    end_job(job)
    instance = Instance.of(provider._site, plan.instance)
    shutil.rmtree(instance.folder.data, ignore_errors=True)
    before = _prints(world.lab.places[1])

    assert rows(provider.start(plan, quiet).ref) == ALL_ROWS
    assert _prints(world.lab.places[1]) == before


def test_a_packed_chain_restores(world: World, restored: Callable[..., LocalProvider]) -> None:
    """Tar format, its members unpacked, or packed with gzip, lz4 and zstd: read, unpacked, combined, proven."""
    if not all(shutil.which(program) for program in PACKERS.values() if program):
        missing("gzip, lz4 and zstd")
    lab = world.lab
    assert isinstance(lab, ChainLab)
    with connect(world.server.endpoint) as session:
        lab.pack()
        session.do("SELECT pg_switch_wal()")
        stop = session.value("SELECT pg_walfile_name(pg_current_wal_lsn() - 17000000)")
        wait_for(
            lambda: session.value("SELECT last_archived_wal FROM pg_stat_archiver") >= stop,
            timeout_s=30, what="the archiver is done",
        )  # fmt: skip
    try:
        provider = restored("packed")
        ids = [backup.id for backup in provider.window().base_backups]
        assert ids == ["full", "inc1", "inc2", "tar0", "tar1", "tar2", "tar3"]
        target = snapshot("tar3")
        assert provider.check(target) == []

        one = provider.start(provider.plan(target), quiet)

        assert rows(one.ref) == [100]
        assert filled(one.ref) == {"xxx": 3988, "one": 7, "two": 5}
    finally:
        for number in range(len(PACKERS)):
            shutil.rmtree(lab.base_backups / f"tar{number}", ignore_errors=True)


def _prints(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }
