"""The provider `barman`: what lies in a catalogue, and what Barman would rather not be asked for."""

import gzip
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.command import end_job, run, spawn, wait_for
from fixtures.errors import ProviderError
from fixtures.postgres.lsn import Lsn, segment_name
from fixtures.postgres.session import connect
from fixtures.production.capture import capture
from fixtures.progress import Tick
from fixtures.providers.barman.backend import BarmanServer
from fixtures.providers.base import Finding, InstanceRef, Site, Target, TargetKind
from fixtures.providers.local.instance import Instance
from fixtures.settings import BarmanProvider
from tests.real.barman_lab import SERVER, BarmanLab, with_barman
from tests.real.recycling import recycle_first
from tests.real.restore_world import ROWS, World, production

ALL_ROWS = list(range(ROWS + 1))
NEWEST = Target(kind=TargetKind.LATEST)


@pytest.fixture(scope="module")
def world(public_dir: Path) -> Iterator[World]:
    """Production with a catalogue, after the damage."""
    with production(public_dir, BarmanLab, with_barman(public_dir)) as made:
        yield made


@pytest.fixture
def site(world: World, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The site of this test's own run; what was restored there is discarded."""
    made = world.site(f"run-{abs(hash(request.node.name)) % 10**8}")
    yield made
    ref = InstanceRef(
        run_id=made.run_id, name=str(made.directory / made.run_id / "data"), host=str(made.sockets),
        port=made.port, user=made.cluster.superuser,
    )  # fmt: skip
    world.lab.provider(made).discard(ref)


def lab_of(world: World, name: str) -> BarmanLab:
    """A catalogue of this test's own, to be harmed."""
    made = world.lab.clone(name)
    assert isinstance(made, BarmanLab)
    return made


def opened(lab: BarmanLab, site: Site, **changes: object) -> BarmanServer:
    """The provider over a catalogue; `changes` replace its settings."""
    settings = {"server": SERVER, "catalogue": lab.catalogue, "config": lab.config, **changes}
    return BarmanServer(BarmanProvider.model_validate(settings), site)


def only(findings: list[Finding]) -> Finding:
    """The one finding."""
    (found,) = findings
    return found


def quiet(_: Tick) -> None:
    """Take progress and say nothing."""


def rows(ref: InstanceRef) -> list[int]:
    """Ids that are there."""
    with connect(ref.endpoint) as session:
        return [row for (row,) in session.rows("SELECT id FROM public.t ORDER BY id")]


def before_damage(world: World) -> Target:
    """Just before the damaging transaction."""
    return Target(kind=TargetKind.XID, value=str(world.damage.xid), exclusive=True)


def repacked(world: World, lab: BarmanLab, program: str) -> None:
    """Pack the log as another setting of Barman's would, name by name as it was."""
    for path in lab.catalogue.glob("wals/*/*"):
        content = gzip.decompress(path.read_bytes())
        path.write_bytes(content)
        if program:
            run(["sh", "-c", f'{program} -c <"$1" >"$1.new" && mv "$1.new" "$1"', "pack", path], timeout_s=60)
        world.server.binaries.own(path)


@pytest.mark.parametrize("program", ["", "bzip2", "xz"])
def test_a_log_is_read_however_it_is_packed(world: World, site: Site, program: str) -> None:
    """A file's name does not say how it is packed; its first bytes do."""
    lab = lab_of(world, f"packed-{program or 'not'}")
    repacked(world, lab, program)

    window = opened(lab, site).window()

    assert window.gaps == ()
    assert window.latest is not None
    assert window.latest >= world.after.at


def test_snappy_is_not_supported(world: World, site: Site) -> None:
    """Said before anything is copied, with what to do."""
    lab = lab_of(world, "snappy")
    lab.segment(world.damage.segment).write_bytes(b"\xff\x06\x00\x00sNaPpY" + bytes(100))

    found = only(opened(lab, site).check(NEWEST))

    assert (found.code, bool(found.hints)) == ("RB108", True)
    assert "snappy" in found.fact


def test_what_barman_has_not_filed_yet_counts(world: World, site: Site) -> None:
    """Segments wait for Barman's cron job; part of one is none where others follow that are finished."""
    lab = lab_of(world, "waiting")
    wanted = opened(lab, site).window().latest
    filed = lab.segment(world.damage.segment)
    content = gzip.decompress(filed.read_bytes())
    filed.unlink()
    incoming, streaming = lab.catalogue / "incoming", lab.catalogue / "streaming"
    before = opened(lab, site).window().latest
    assert before is not None
    assert wanted is not None
    assert before < wanted

    for folder in (incoming, streaming):
        (folder / world.damage.segment).write_bytes(content)
        assert opened(lab, site).window().latest == wanted
        (folder / world.damage.segment).unlink()

    middle = lab.segment(world.commits[2].segment)
    (streaming / f"{middle.name}.partial").write_bytes(gzip.decompress(middle.read_bytes()))
    middle.unlink()
    assert [gap.first_missing for gap in opened(lab, site).window().gaps] == [middle.name]


def test_what_was_received_of_the_last_segment_is_restored(world: World, site: Site) -> None:
    """Production died while Barman streamed: its newest commits are nowhere else. No more is claimed to be there."""
    lab, server = lab_of(world, "streamed"), world.server
    receiver = spawn(
        [
            server.binaries.tool("pg_receivewal"), "-D", lab.catalogue / "streaming", "-h", server.sockets,
            "-p", str(server.port), "-U", "postgres", "--no-loop", "--synchronous",
        ],
        name="receiver", folder=world.home / "logs", user=server.binaries.user,
    )  # fmt: skip
    try:
        with connect(server.endpoint) as session:
            session.do("CREATE TABLE public.streamed AS SELECT 7 AS id")
            wanted = session.value("SELECT pg_current_wal_insert_lsn()")
            received = "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= %s::pg_lsn"
            wait_for(
                lambda: session.value(received, (wanted,)) == 1, timeout_s=60, what="Barman has received it"
            )
            end_job(receiver, first=signal.SIGKILL)
            session.do("INSERT INTO public.streamed VALUES (8)")
            lock = Lsn.parse(session.value("SELECT pg_current_wal_insert_lsn()"))
    finally:
        end_job(receiver, first=signal.SIGKILL)
    provider = opened(lab, site)

    found = only(provider.check(NEWEST, lock_lsn=lock))
    assert (found.code, found.waiting_helps) == ("RB303", True)
    assert provider.check(NEWEST) == []
    restored = provider.start(provider.plan(NEWEST), quiet)

    for ref in (restored.ref, provider.promote(restored.ref).ref):
        with connect(ref.endpoint) as session:
            assert session.rows("SELECT id FROM public.streamed") == [(7,)]


def test_a_backup_that_is_not_done_is_not_chosen(world: World, site: Site) -> None:
    """It is named, in the plan while there is another, in the refusal when there is none."""
    lab = lab_of(world, "failed")
    (info,) = lab.catalogue.glob("meta/*-backup.info")
    name = info.name.removesuffix("-backup.info")
    text = info.read_text().replace("status=DONE", "status=FAILED")
    other = info.with_name("20200101T000000-backup.info")
    other.write_text(text)
    world.server.binaries.own(other)

    plan = opened(lab, site).plan(before_damage(world))

    assert plan.backup is not None
    assert plan.backup.id == name
    assert "20200101T000000 FAILED" in plan.commands[0]

    info.write_text(text)
    world.server.binaries.own(info)
    found = only(opened(lab, site).check(before_damage(world)))

    assert found.code == "RB301"
    assert f"{name} FAILED" in found.hints[0]


def test_what_cannot_be_asked_is_said(world: World, site: Site, tmp_path: Path) -> None:
    """No such server, no Barman, no configuration, no catalogue, a backup that is gone: each with a next step."""
    lab = lab_of(world, "refusals")
    target = before_damage(world)

    for code, word, changes in (
        ("RB309", "Unknown server", {"server": "nobody"}),
        ("RB109", "barman was not found", {"bin_dir": tmp_path}),
        ("RB105", "does not exist", {"config": tmp_path / "barman.conf"}),
        ("RB309", "cannot be read", {"catalogue": tmp_path}),
    ):
        found = only(opened(lab, site, **changes).check(target))
        assert (found.code, word in found.fact, bool(found.hints or found.where)) == (code, True, True)
    assert list(tmp_path.iterdir()) == []

    (backup,) = (lab.catalogue / "base").iterdir()
    shutil.rmtree(backup)
    assert [each.code for each in opened(lab, site).check(target)] == ["RB301"]


def test_the_copy_is_what_was_backed_up(world: World, site: Site) -> None:
    """What Barman changes in the configuration for its own recovery is put back before it is kept."""
    provider = opened(lab_of(world, "same"), site)
    restored = provider.start(provider.plan(before_damage(world)), quiet)
    folder = Instance.of(site, restored.ref).folder

    assert rows(restored.ref) == ALL_ROWS
    assert str(world.lab.archive_command) in (folder.original / "postgresql.conf").read_text()
    assert "BARMAN" not in (folder.original / "postgresql.conf").read_text()
    left = [path.name for path in folder.data.iterdir() if path.suffix == ".origin" or "barman" in path.name]
    assert left == []
    assert (folder.data / "backup_manifest").is_file()


def test_a_new_server_protects_the_copy(world: World, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its segment is filed and reads back, its backup verifies, and both restore on the new timeline."""
    home = world.home / "new-barman"
    provider = opened(lab_of(world, "protect"), site, new_server="restored", new_home=home)
    restored = provider.promote(provider.start(provider.plan(before_damage(world)), quiet).ref)
    wanted = capture(world.server.endpoint)
    waited = recycle_first(monkeypatch)

    service = provider.admit(
        restored.ref, wanted, archive=None, base_backups=None, supervisor=None, allowed={}
    )

    assert (len(waited), service.archived_segment) == (2, waited[-1])
    assert service.unprotected_since is None
    assert service.archived_segment == segment_name(2, int(service.archived_segment[16:], 16))
    assert service.base_backup
    assert any("[restored]" in line for line in service.allowed)
    again = provider.admit(restored.ref, wanted, archive=None, base_backups=None, supervisor=None, allowed={})
    assert again.base_backup == service.base_backup

    new = BarmanServer(
        BarmanProvider(server="restored", catalogue=home / "restored", config=home / "barman.conf"),
        replace(world.site("new-barman-run", timeline=2)),
    )
    plan = new.plan(Target(kind=TargetKind.SNAPSHOT, value=service.base_backup))
    try:
        assert rows(new.start(plan, quiet).ref) == ALL_ROWS
    finally:
        new.discard(plan.instance)


def test_a_new_server_in_somebodys_folder_is_refused(world: World, site: Site) -> None:
    """Production's catalogue, and what is filled already, are no new place."""
    lab = lab_of(world, "taken")
    (world.home / "full").mkdir()
    (world.home / "full" / "something").touch()
    provider = opened(lab, site)
    restored = provider.promote(provider.start(provider.plan(before_damage(world)), quiet).ref)

    for home in (lab.catalogue, lab.catalogue / "below", world.home / "full"):
        with pytest.raises(ProviderError) as error:
            opened(lab, site, new_server="restored", new_home=home).admit(
                restored.ref, capture(world.server.endpoint), archive=None, base_backups=None,
                supervisor=None, allowed={},
            )  # fmt: skip
        assert error.value.code == "RB313"


def test_a_log_without_its_program_is_refused(
    world: World, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program that unpacks is named before anything is copied."""
    lab = lab_of(world, "programs")
    programs = world.home / "few-programs"
    programs.mkdir(mode=0o755)
    for name in ("barman", "sh", "rsync", "setpriv"):
        (programs / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(programs))

    found = next(each for each in opened(lab, site).check(before_damage(world)))

    assert found.code == "RB109"
    assert "gzip" in found.fact


def test_incremental_and_packed_backups_are_restored(world: World, site: Site) -> None:
    """Barman puts them together; what comes out is compared with the manifest as every other copy."""
    lab = world.lab
    assert isinstance(lab, BarmanLab)
    with connect(world.server.endpoint) as session:
        session.do("ALTER SYSTEM SET summarize_wal = on")
        session.do("SELECT pg_reload_conf()")
    take = ("backup", "--wait", "--immediate-checkpoint")
    lab.run(*take, SERVER)
    lab.run(*take, "--incremental", "last-full", SERVER)
    with lab.config.open("a") as config:
        config.write("backup_compression = gzip\n")
    lab.run(*take, SERVER)
    known = [backup.id for backup in opened(lab, site).window().base_backups]
    assert len(known) == 4

    for number, name in enumerate(known[-2:]):
        provider = opened(lab, world.site(f"{site.run_id}-{number}"))
        plan = provider.plan(Target(kind=TargetKind.SNAPSHOT, value=name))
        try:
            assert rows(provider.start(plan, quiet).ref) == [world.after.row]
        finally:
            provider.discard(plan.instance)
