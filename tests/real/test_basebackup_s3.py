"""The provider `basebackup` on a real S3 server: what only a store of objects can do to a restore."""

import os
import signal
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from tarfile import TarError

import pytest

from fixtures.command import JobRef, is_running, join, run, wait_for
from fixtures.errors import ProviderError
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.session import connect
from fixtures.production.capture import capture
from fixtures.progress import Tick
from fixtures.providers.base import InstanceRef, ServiceEndpoint, Target, TargetKind
from fixtures.providers.basebackup.backend import BaseBackupDirectory
from fixtures.providers.local import uploader
from fixtures.providers.local.bucket_protect import Uploader, look, on_objects
from fixtures.providers.local.instance import Instance
from fixtures.providers.objects.client import s3_client
from fixtures.settings import ObjectPlace, ObjectUrl
from tests.real.basebackup_s3_lab import BaseBackupS3Lab, flipped
from tests.real.recycling import recycle_first
from tests.real.restore_world import ROWS, World, production
from tests.real.s3_server import BUCKET, KEY, READER, READER_SECRET, SECRET

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


def test_a_new_prefix_protects_the_copy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its segment reads back, its backup is proven, both restore on the new timeline; no secret in a setting."""
    lab = lab_of(world)
    provider = world.provider("prefix")
    plan = provider.plan(before_damage(world))
    wanted = capture(world.server.endpoint)

    def admit(archive: ObjectPlace, base_backups: ObjectPlace) -> ServiceEndpoint:
        return provider.admit(
            plan.instance, wanted, archive=archive, base_backups=base_backups, supervisor=None, allowed={}
        )

    def refused(archive: ObjectPlace, base_backups: ObjectPlace) -> str:
        with pytest.raises(ProviderError) as error:
            admit(archive, base_backups)
        assert error.value.code == "RB313"
        return f"{error.value.fact} {error.value.where}"

    new = lab.new_place("new/archive"), lab.new_place("new/base")
    try:
        provider.promote(provider.start(plan, quiet).ref)
        assert "overlaps" in refused(lab.new_place(f"{lab.archive}/below"), new[1])
        assert "overlaps" in refused(new[0], new[0])
        assert lab.s3.change("PUT", "filled/archive/000000010000000000000001", b"somebody's")
        filled = lab.new_place("filled/archive")
        assert "not of this run" in refused(filled, new[1])
        looked = on_objects(filled, new[1]), on_objects(*new)
        assert looked[0] is not None
        assert looked[1] is not None
        with pytest.raises(ProviderError, match="not of this run"):
            look(looked[0], world.server.binaries, run_id="step-0")
        look(looked[1], world.server.binaries, run_id="step-0")
        reading = [lab.new_place(each.url.prefix, key=READER, secret=READER_SECRET) for each in new]
        assert "AccessDenied" in refused(reading[0], reading[1])
        assert not list(lab.s3.walk("new"))

        waited = recycle_first(monkeypatch)

        service = admit(*new)

        assert service.unprotected_since is None
        assert (len(waited), service.archived_segment) == (2, waited[-1])
        assert service.archived_segment.startswith("00000002")
        assert any("schedule base backups" in line for line in service.allowed)
        assert admit(*new) == service
        stored = lab.s3.read(f"new/archive/{service.archived_segment}")
        with connect(plan.instance.endpoint) as session:
            command = session.value("SELECT current_setting('archive_command')")
        assert f"{KEY}.ini" in command
        assert SECRET not in command
        told = [
            path
            for path in instance_folder(plan.instance).rglob("*")
            if path.suffix in {".json", ".conf", ".sh"}
        ]
        assert not [path for path in told if SECRET in path.read_text(errors="replace")]
        program = Uploader(
            folder=instance_folder(plan.instance) / "uploader", new=looked[1],
            run_id=plan.instance.run_id, binaries=world.server.binaries,
        )  # fmt: skip
        other = lab.home / "other"
        for content, status in ((stored, 0), (stored[:-1] + b"x", 1), (stored[:-1], 1), (stored + b"x", 1)):
            other.write_bytes(content)
            world.server.binaries.own(other)
            assert program.ask("segment", other, service.archived_segment).returncode == status
        assert lab.s3.read(f"new/archive/{service.archived_segment}") == stored
        _restores(world, service.base_backup)
    finally:
        provider.discard(plan.instance)
    assert f"new/base/{service.base_backup}/backup_label" in set(lab.s3.walk("new/base"))


def _restores(world: World, backup: str) -> None:
    """Restore what the new prefixes hold, and nothing else."""
    lab = lab_of(world)
    settings = lab.settings().model_copy(
        update={"archive": ObjectUrl(BUCKET, "new/archive"), "base_backups": ObjectUrl(BUCKET, "new/base")}
    )
    own = BaseBackupDirectory(settings, world.site("prefix-2", timeline=2))
    target = Target(kind=TargetKind.SNAPSHOT, value=backup)
    assert own.check(target) == []
    plan = own.plan(target)
    try:
        assert rows(own.start(plan, quiet).ref) == ALL_ROWS
    finally:
        own.discard(plan.instance)


class _Losing(uploader.Place):
    """Takes an empty object, and has none."""

    def put(self, kind: str, name: str, content: bytes) -> None:
        """Write a small object, but no empty one."""
        if content:
            super().put(kind, name, content)


class _Harming(uploader.Place):
    """A store that keeps one object with a flipped byte."""

    def put(self, kind: str, name: str, content: bytes) -> None:
        super().put(kind, name, flipped(content) if name.endswith("/global/pg_control") else content)


def test_a_backup_counts_only_when_all_of_it_is_proven(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A failed or cut-off backup, an object that reads back otherwise, a lost segment: no label, so no backup."""
    lab = lab_of(world)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    packed, status = tmp_path / "packed.tar", tmp_path / "status"
    run(
        [
            "sh", "-c", '"$@" >"$0"', packed, world.server.binaries.tool("pg_basebackup"), "-h",
            world.server.sockets, "-p", str(world.server.port), "-U", "postgres", "-D", "-", "-F", "tar", "-c",
            "fast", "-X", "none", "--manifest-checksums=SHA256",
        ],
        timeout_s=60,
    )  # fmt: skip
    whole = packed.read_bytes()
    place = uploader.Place(
        client=s3_client(lab.settings().s3.model_dump(mode="json")), marker=".", run_id="proof",
        places={
            "archive": {"bucket": BUCKET, "prefix": lab.archive},
            "base_backups": {"bucket": BUCKET, "prefix": "proof/base"},
        },
        segment_bytes=16 * 1024 * 1024,
    )  # fmt: skip
    harming = _Harming(**{each.name: getattr(place, each.name) for each in fields(place)})
    elsewhere = replace(
        place, places={**place.places, "archive": {"bucket": BUCKET, "prefix": "proof/archive"}}
    )
    read = BaseBackupDirectory(
        lab.settings().model_copy(update={"base_backups": ObjectUrl(BUCKET, "proof/base")}),
        world.site("proof"),
    )

    def failed(by: uploader.Place, content: bytes, ended: str) -> str:
        status.write_text(ended)
        with pytest.raises((uploader.UploadError, TarError)) as error:
            uploader.back_up(by, BytesIO(content), status)
        return str(error.value)

    # the manifest is the last of its members, behind it are at most tar's own two closing blocks
    cut = whole[: whole.rindex(b"backup_manifest\0")]
    assert "no whole manifest" in failed(place, cut, "0")
    assert "status 1" in failed(place, whole, "1")
    assert "pg_control reads back otherwise" in failed(harming, whole, "0")
    losing = _Losing(**{each.name: getattr(place, each.name) for each in fields(place)})
    assert "reads back otherwise" in failed(losing, whole, "0")
    assert "is not there" in failed(elsewhere, whole, "0")
    assert read._store.backups() == []
    assert not [path for path in lab.s3.walk("proof") if path.endswith("backup_label")]

    status.write_text("0\n")
    name = uploader.back_up(place, BytesIO(whole), status)

    assert [each.id for each in read._store.backups()] == [name]
    assert name not in {"after-proof", "after-proof-2", "after-proof-3", "after-proof-4", "after-proof-5"}


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
