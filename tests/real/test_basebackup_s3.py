"""The provider `basebackup` on a real S3 server: what only a store of objects can do to a restore."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fixtures.command import JobRef, is_running, join, wait_for
from fixtures.errors import ProviderError
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.session import connect
from fixtures.progress import Tick
from fixtures.providers.base import InstanceRef, Target, TargetKind
from fixtures.providers.basebackup.backend import BaseBackupDirectory
from fixtures.providers.local.instance import Instance
from fixtures.settings import ObjectUrl
from tests.real.basebackup_s3_lab import BaseBackupS3Lab, flipped
from tests.real.restore_world import ROWS, World, production
from tests.real.s3_server import BUCKET, SECRET

ALL_ROWS = list(range(ROWS + 1))


@pytest.fixture(scope="module")
def world(public_dir: Path, binaries: Binaries) -> Iterator[World]:
    """Production after the damage, still running, with its store on S3."""
    with (
        BaseBackupS3Lab.surroundings(public_dir) as given,
        production(public_dir, partial(BaseBackupS3Lab, form="plain", **given), binaries) as made,
    ):
        yield made


def lab_of(world: World) -> BaseBackupS3Lab:
    """The world's lab."""
    assert isinstance(world.lab, BaseBackupS3Lab)
    return world.lab


def before_damage(world: World) -> Target:
    """Just before the damaging transaction."""
    return Target(kind=TargetKind.XID, value=str(world.damage.xid), exclusive=True)


def quiet(_: Tick) -> None:
    """Take progress and say nothing."""


def rows(ref: InstanceRef) -> list[int]:
    """Ids that are there."""
    with connect(ref.endpoint) as session:
        return [row for (row,) in session.rows("SELECT id FROM public.t ORDER BY id")]


def test_credentials_that_only_read_are_enough(world: World) -> None:
    """Credentials that can only list and read are enough; the plan names the objects, and no secret is anywhere."""
    provider = world.provider("reads")
    assert provider.check(before_damage(world)) == []
    plan = provider.plan(before_damage(world))
    assert plan.commands[0].startswith(f"download s3://{BUCKET}/")
    try:
        restored = provider.start(plan, quiet)

        assert rows(restored.ref) == ALL_ROWS
        assert provider._store.traces == (f"{BUCKET}/{lab_of(world).archive}",)
        root = Path(plan.instance.name).parent
        written = [path for path in (*root.glob("*"), *provider._site.logs.glob("*")) if path.is_file()]
        assert not [path for path in written if SECRET.encode() in path.read_bytes()]
        assert provider.promote(restored.ref).timeline == 2
        assert rows(restored.ref) == ALL_ROWS
    finally:
        provider.discard(plan.instance)


def test_a_wrong_place_or_secret_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another bucket, another prefix, another secret: each refused before anything is copied."""
    lab = lab_of(world)
    good = lab.settings()

    def findings(**changes: object) -> list[tuple[str, str]]:
        provider = BaseBackupDirectory(good.model_copy(update=changes), world.site("wrong"))
        found = provider.check(before_damage(world))
        return [(each.code, f"{each.fact} {' '.join(each.hints)}") for each in found]

    (bucket,) = findings(archive=ObjectUrl("nobodys-bucket", "archive"))
    assert bucket[0] == "RB309"
    assert "bucket's name" in bucket[1]
    (prefix,) = findings(archive=ObjectUrl(BUCKET, "elsewhere"))
    assert prefix[0] == "RB309"
    assert "holds no segment" in prefix[1]
    (backups,) = findings(base_backups=ObjectUrl(BUCKET, "elsewhere"))
    assert backups[0] == "RB301"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-0123456789")
    (secret,) = findings()
    assert secret[0] == "RB309"
    assert "AWS_SECRET_ACCESS_KEY" in secret[1]
    assert not (world.home / "restored" / "wrong").exists()


def test_a_lost_or_cut_off_object_is_refused_before_copying(world: World) -> None:
    """The listing is compared with the manifest; a flipped byte is found when the copy is proven."""
    lab = lab_of(world)
    victim = f"{lab.base_backups}/full/global/pg_filenode.map"
    content = lab.s3.read(victim)
    for harm in (content[:100], None):
        assert lab.s3.change("DELETE" if harm is None else "PUT", victim, harm or b"")

        (finding,) = world.provider("harmed").check(before_damage(world))

        assert finding.code == "RB301"
        assert "pg_filenode.map" in finding.where
    assert lab.s3.change("PUT", victim, flipped(content))
    provider = world.provider("harmed")
    plan = provider.plan(before_damage(world))
    with pytest.raises(ProviderError) as error:
        provider.start(plan, quiet)
    assert error.value.code == "RB301"
    assert lab.s3.change("PUT", victim, content)
    try:
        assert rows(provider.start(plan, quiet).ref) == ALL_ROWS
    finally:
        provider.discard(plan.instance)


def test_a_download_that_died_goes_on(world: World) -> None:
    """What was brought whole is not brought again, half an object is; no secret stands in an argument."""
    provider = world.provider("dies")
    plan = provider.plan(before_damage(world))
    instance = Instance.of(provider._site, plan.instance)
    job = provider.prefetch(plan)
    assert job is not None
    tree = instance.folder.root / "backup.partial" / "0-full"
    try:
        wait_for(
            lambda: (tree / "base").is_dir() and any(tree.glob("base/1/*")), timeout_s=60, what="it downloads"
        )
        assert SECRET[:10] not in "".join(Path(f"/proc/{job.pid}/cmdline").read_text().split("\0"))
        os.killpg(job.pid, signal.SIGKILL)
        wait_for(lambda: not is_running(job), timeout_s=20, what="it is dead")
        kept = {path: path.stat().st_ino for path in tree.glob("base/1/[0-9]*")}
        (tree / ".half.part").touch()
        (tree / "stranger").touch()

        restored = provider.start(plan, quiet)

        assert rows(restored.ref) == ALL_ROWS
        data = instance.folder.data
        same = [
            path for path, number in kept.items() if (data / path.relative_to(tree)).stat().st_ino == number
        ]
        assert len(same) >= len(kept) - 16
        assert not (data / "stranger").exists()
    finally:
        provider.discard(plan.instance)


def test_an_outage_is_loud_wherever_it_comes_and_can_be_resumed(world: World) -> None:
    """In the middle of the copy, and in the middle of the replay: never the end of the log."""
    lab = lab_of(world)
    provider = world.provider("outage")
    plan = provider.plan(before_damage(world))
    instance = Instance.of(provider._site, plan.instance)
    try:
        job = provider.prefetch(plan)
        assert job is not None
        lab.hide()
        if join(job, timeout_s=120, what="the copy", check=False) != 0:  # else it was faster
            with pytest.raises(ProviderError) as error:
                provider.start(plan, quiet)
            assert error.value.code == "RB309"
        lab.show()
        provider.start(plan, quiet)
        with connect(plan.instance.endpoint) as session:
            lab.hide()
            session.do("SELECT pg_wal_replay_resume()")
        wait_for(lambda: not instance.runs(), timeout_s=120, what="the server has ended")
        assert "archive unreadable" in instance.log_text()
        assert "archive recovery complete" not in instance.log_text()
        lab.show()

        assert rows(provider.start(plan, quiet).ref) == ALL_ROWS
        feeder = instance.load("feed", JobRef)
        assert feeder is not None
        provider.discard(plan.instance)
        assert not is_running(feeder)
    finally:
        lab.show()
        provider.discard(plan.instance)


def test_times_are_the_backups_own(world: World) -> None:
    """An upload's time is none of a backup: its end stands in the archive, else in its own manifest."""
    lab = lab_of(world)
    (told,) = world.provider("told").window().base_backups
    for name in ("backup_label", "backup_manifest"):
        lab.rewrite(f"{lab.base_backups}/full/{name}", bytes)  # uploaded anew, just now
    assert world.provider("again").window().base_backups == (told,)

    (ended,) = [path for path in lab.s3.walk(lab.archive) if path.endswith(".backup")]
    kept = lab.s3.read(ended)
    assert lab.s3.change("DELETE", ended)
    try:
        (bare,) = world.provider("bare").window().base_backups

        assert (bare.stop_lsn, bare.system_identifier) == (told.stop_lsn, told.system_identifier)
        assert bare.ended_at <= told.ended_at
        begins = Target(kind=TargetKind.LSN, value=str(bare.start_lsn))
        assert [finding.code for finding in world.provider("asks").check(begins)] == ["RB301"]
    finally:
        assert lab.s3.change("PUT", ended, kept)


def test_chains_and_packed_backups_come_from_objects_too(world: World) -> None:
    """A full backup packed as tar, and an incremental one on it: fetched, unpacked, combined, proven."""
    lab = lab_of(world)
    with connect(world.server.endpoint) as session:
        session.do("ALTER SYSTEM SET summarize_wal = on")
        session.do("SELECT pg_reload_conf()")
        kept = lab.take("tar", "-F", "tar")
        lab.take("inc", "--incremental", kept).unlink()
        session.do(
            "SELECT pg_logical_emit_message(false, 'rrb', 'a segment with nothing in it is not switched')"
        )
        last = session.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
        session.do("SELECT pg_switch_wal()")
        wait_for(
            lambda: session.value("SELECT last_archived_wal FROM pg_stat_archiver") >= last,
            timeout_s=60, what="the archiver is done",
        )  # fmt: skip
    provider = world.provider("chain")
    target = Target(kind=TargetKind.SNAPSHOT, value="inc")
    assert [each.id for each in provider.window().base_backups] == ["full", "tar", "inc"]
    assert provider.check(target) == []
    plan = provider.plan(target)
    assert plan.commands[0].startswith("pg_combinebackup s3://")
    try:
        restored = provider.start(plan, quiet)

        assert restored.backup_id == "inc"
        assert rows(restored.ref) == [100]
        assert not (instance_folder(plan.instance) / "backup.partial").exists()
    finally:
        provider.discard(plan.instance)


def instance_folder(ref: InstanceRef) -> Path:
    """The run's folder."""
    return Path(ref.name).parent
