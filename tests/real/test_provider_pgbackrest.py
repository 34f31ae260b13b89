"""What only the provider `pgbackrest` has: its catalogue and its secrets, the backup set, a stanza for the copy."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.command import run, wait_for
from fixtures.errors import ProviderError
from fixtures.postgres.session import connect
from fixtures.production.capture import capture
from fixtures.progress import Tick
from fixtures.providers.base import Finding, InstanceRef, ServiceEndpoint, Site, Target, TargetKind
from fixtures.providers.local import log as local_log
from fixtures.providers.local.instance import Instance
from fixtures.providers.pgbackrest import spool
from fixtures.providers.pgbackrest.backend import PgBackRest
from fixtures.providers.pgbackrest.protect import MADE, Made
from fixtures.settings import PgBackRestProvider
from tests.real.recycling import recycle_first
from tests.real.restore_labs import PASSPHRASE, PgBackRestLab, debian_15, flip
from tests.real.restore_world import ROWS, World, production

ALL_ROWS = list(range(ROWS + 1))
NEWEST = Target(kind=TargetKind.LATEST)
VARIABLE = "PGBACKREST_REPO1_CIPHER_PASS"


@pytest.fixture(scope="module")
def world(public_dir: Path) -> Iterator[World]:
    """Production after the damage, still running."""
    with production(public_dir, PgBackRestLab, debian_15(public_dir)) as made:
        yield made


@pytest.fixture
def lab(world: World, request: pytest.FixtureRequest) -> PgBackRestLab:
    """A copy of the repository, with a configuration file of its own, for this test to harm."""
    made = world.lab.clone(f"repo-{request.node.name[:60]}")
    assert isinstance(made, PgBackRestLab)
    return made


@pytest.fixture
def site(world: World, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The site of this test's own run; what was restored there is discarded."""
    made = world.site(f"run-{abs(hash(request.node.name)) % 10**8}")
    yield made
    provider = world.lab.provider(made)
    provider.discard(InstanceRef(
        run_id=made.run_id, name=str(made.directory / made.run_id / "data"), host=str(made.sockets),
        port=made.port, user=made.cluster.superuser,
    ))  # fmt: skip


def opened(lab: PgBackRestLab, site: Site, **settings: Any) -> PgBackRest:
    """The provider over a repository, with other settings."""
    return PgBackRest(PgBackRestProvider(**{"config": lab.config, "stanza": lab.stanza, **settings}), site)


def rewrite(lab: PgBackRestLab, old: str, new: str) -> None:
    """Change the configuration file."""
    text = lab.config.read_text()
    assert old in text
    lab.config.write_text(text.replace(old, new))


def quiet(_: Tick) -> None:
    """Take progress and say nothing."""


def rows(ref: InstanceRef) -> list[int]:
    """Ids that are there."""
    with connect(ref.endpoint) as session:
        return [row for (row,) in session.rows("SELECT id FROM public.t ORDER BY id")]


def only(findings: list[Finding]) -> Finding:
    """The one finding."""
    (found,) = findings
    return found


def before_damage(world: World) -> Target:
    """Just before the damaging transaction."""
    return Target(kind=TargetKind.XID, value=str(world.damage.xid), exclusive=True)


# -- what is refused -----------------------------------------------------------------------------------


def test_a_stanza_that_is_not_there_is_refused_and_those_that_are_are_named(
    lab: PgBackRestLab, site: Site
) -> None:
    """PgBackRest itself ends with 0 for it."""
    found = only(opened(lab, site, stanza="nope").check(NEWEST))

    assert found.code == "RB309"
    assert "holds no stanza nope" in found.fact
    assert any("demo" in hint for hint in found.hints)


def test_another_repository_is_not_an_empty_one(lab: PgBackRestLab, site: Site) -> None:
    """A path, a number or a mount that leads elsewhere is said to do so."""
    empty = lab.home / "empty-repository"
    empty.mkdir(exist_ok=True)
    rewrite(lab, f"repo1-path={lab.place}", f"repo1-path={empty}")

    assert only(opened(lab, site).check(NEWEST)).code == "RB309"
    assert only(opened(lab, site, repo=2).check(NEWEST)).code == "RB105"


def test_a_wrong_passphrase_is_refused_without_a_byte_of_the_repository(
    lab: PgBackRestLab, site: Site
) -> None:
    """PgBackRest quotes what it could not decrypt; nobody wants that in a report."""
    rewrite(lab, PASSPHRASE, "wrong passphrase")

    found = only(opened(lab, site).check(NEWEST))

    assert (found.code, "cannot be decrypted" in found.fact) == ("RB309", True)
    shown = f"{found.fact} {found.where} {found.hints}"
    assert shown.isascii()
    assert "wrong passphrase" not in shown


def test_a_missing_passphrase_is_named_and_can_come_by_environment(
    world: World, lab: PgBackRestLab, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable's name is told; its value reaches pgBackRest and no command line, file or message."""
    rewrite(lab, f"repo1-cipher-pass={PASSPHRASE}\n", "")

    found = only(opened(lab, site).check(NEWEST))

    assert found.code == "RB106"
    assert any(VARIABLE in hint for hint in found.hints)

    monkeypatch.setenv(VARIABLE, PASSPHRASE)
    provider = opened(lab, site, env=(VARIABLE,))
    target = before_damage(world)
    assert provider.check(target) == []
    plan = provider.plan(target)
    restored = provider.start(plan, quiet)

    assert rows(restored.ref) == ALL_ROWS
    pid = Instance.of(site, restored.ref).server.pid()
    assert PASSPHRASE not in Path(f"/proc/{pid}/cmdline").read_text()
    assert not any(PASSPHRASE in command for command in plan.commands)
    for folder in (site.logs, Path(restored.ref.name).parent):
        files = [path for path in folder.rglob("*") if path.is_file() and "base" not in path.parts]
        assert not [path for path in files if PASSPHRASE.encode() in path.read_bytes()]


def test_a_configuration_that_cannot_be_read_is_refused(lab: PgBackRestLab, site: Site) -> None:
    """A missing file, and one that the server's user may not read."""
    assert only(opened(lab, site, config=lab.home / "nowhere.conf").check(NEWEST)).code == "RB309"

    if os.geteuid() == 0:
        shutil.chown(lab.config, 0, 0)
        found = only(opened(lab, site).check(NEWEST))
        assert found.code == "RB309"
        assert any("let the user" in hint for hint in found.hints)


def test_without_the_program_the_check_says_so(
    lab: PgBackRestLab, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named, with what to install."""
    monkeypatch.setenv("PATH", str(lab.home / "no-programs"))

    assert only(opened(lab, site).check(NEWEST)).code == "RB109"


def test_a_catalogue_without_its_log_is_not_an_empty_archive(lab: PgBackRestLab, site: Site) -> None:
    """`info` still lists the backups and both ends of the log."""
    for folder in (lab.place / "archive" / "demo" / "15-1").iterdir():
        shutil.rmtree(folder)

    assert only(opened(lab, site).check(NEWEST)).code == "RB309"


def test_a_backup_that_is_only_in_the_catalogue_is_refused(lab: PgBackRestLab, site: Site) -> None:
    """Its folder was removed by hand, or by a bucket's life-cycle rule."""
    (backup,) = (lab.place / "backup" / "demo").glob("*F")
    (backup / "backup.manifest").unlink()

    assert only(opened(lab, site).check(NEWEST)).code == "RB301"


# -- the log ------------------------------------------------------------------------------------------


def test_a_flipped_byte_in_an_encrypted_segment_is_found(
    world: World, lab: PgBackRestLab, site: Site
) -> None:
    """PgBackRest hands such a segment out with status 0: the check sees it, and so does a running replay."""
    provider = opened(lab, site)
    plan = provider.plan(before_damage(world))
    provider.start(plan, quiet)
    instance = Instance.of(site, plan.instance)

    def ask(name: str) -> int:
        target = instance.folder.root / "segment"
        return run(["/bin/sh", instance.folder.script, name, target], timeout_s=20, check=False).returncode

    assert ask(world.commits[2].segment) == 0
    flip(lab.segment(world.commits[2].segment))

    assert ask(world.commits[2].segment) == 255
    assert "RB302" in [found.code for found in opened(lab, site).check(before_damage(world))]

    # the server reads ahead into the damaged segment, which this target does not need
    provider.discard(plan.instance)
    earlier = Target(kind=TargetKind.XID, value=str(world.commits[0].xid))
    assert opened(lab, site).check(earlier) == []
    assert rows(provider.start(provider.plan(earlier), quiet).ref) == ALL_ROWS[:2]


def test_a_log_read_piece_by_piece_is_the_same_log(
    world: World, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few segments are fetched and kept at a time, every commit is seen once, in order."""
    store = world.lab.provider(site)._store
    start = store.backups()[0].start_lsn
    whole = [commit.xid for commit in store.log(store.backups()).commits(start)]
    monkeypatch.setattr(local_log, "STRETCH", 1)
    monkeypatch.setattr(spool, "KEPT", 2)

    pieces = [commit.xid for commit in store.log(store.backups()).commits(start)]

    assert pieces == whole
    assert {mark.xid for mark in (*world.commits, world.damage, world.after)} <= set(whole)


@pytest.mark.parametrize("kind", ["diff", "incr"])
def test_the_backup_is_chosen_by_the_log_and_not_the_newest(
    world: World, lab: PgBackRestLab, site: Site, kind: str
) -> None:
    """For a transaction or a restore point pgBackRest would take the newest backup and miss the target."""
    first = opened(lab, site).window().base_backups[0].id
    lab.run(
        "backup", f"--type={kind}", "--no-archive-check"
    )  # its log goes to the repository this is a copy of
    provider = opened(lab, site)
    second = provider.window().base_backups[-1].id
    name = Target(kind=TargetKind.NAME, value="before damage")

    for target in (before_damage(world), name):
        assert provider.check(target) == []
        plan = provider.plan(target)
        assert plan.backup is not None
        assert plan.backup.id == first
    newest = provider.plan(Target(kind=TargetKind.SNAPSHOT, value=second))
    assert newest.backup is not None
    assert (newest.backup.id, first in newest.backup.id) == (second, True)

    assert rows(provider.start(provider.plan(name), quiet).ref) == ALL_ROWS


def test_a_backup_of_damaged_files_is_taken_only_where_no_other_serves(
    world: World, lab: PgBackRestLab, site: Site
) -> None:
    """It is completed with status 0, and called an error in the catalogue only."""
    sound = opened(lab, site).window().base_backups[0].id
    with connect(world.server.endpoint) as session:
        session.do("CREATE TABLE public.rotten AS SELECT generate_series(1, 1000) AS id")
        session.do("CHECKPOINT")
        path = world.server.data / session.value("SELECT pg_relation_filepath('public.rotten')")
        flip(path)
        lab.run("backup", "--type=full", "--no-archive-check")
        session.do("DROP TABLE public.rotten")
        session.do("SELECT pg_switch_wal()")
        last = session.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
        wait_for(
            lambda: session.value("SELECT last_archived_wal FROM pg_stat_archiver") >= last, timeout_s=30,
            what="the archiver is done",
        )  # fmt: skip
    shutil.copytree(world.lab.place / "archive", lab.place / "archive", dirs_exist_ok=True)
    world.server.binaries.own(lab.place)
    provider = opened(lab, site)
    flawed = provider.window().base_backups[-1]
    assert (flawed.id != sound, flawed.flaw != "") == (True, True)
    target = Target(kind=TargetKind.LATEST)

    assert provider.check(target) == []
    plan = provider.plan(target)
    assert plan.backup is not None
    assert plan.backup.id == sound
    named = provider.plan(Target(kind=TargetKind.SNAPSHOT, value=flawed.id))
    assert named.backup is not None
    assert named.backup.flaw == flawed.flaw

    shutil.rmtree(lab.place / "backup" / "demo" / sound)
    lab.run("expire", f"--set={sound}")
    only_one = opened(lab, site).plan(target)

    assert only_one.backup == flawed


# -- the copy -----------------------------------------------------------------------------------------


def test_a_copy_nobody_isolated_yet_harms_nothing(world: World, lab: PgBackRestLab, site: Site) -> None:
    """Somebody who starts it by hand gets the backup's end, paused, with archiving off."""
    provider = opened(lab, site)
    plan = provider.plan(before_damage(world))
    job = provider.prefetch(plan)
    assert job is not None
    instance = Instance.of(site, plan.instance)
    provider._store.finish_copy(instance, plan.backup, quiet)  # type: ignore[arg-type]

    text = (instance.folder.data / "postgresql.auto.conf").read_text()

    assert "archive_mode = 'off'" in text
    assert "recovery_target = 'immediate'" in text
    assert (instance.folder.data / "recovery.signal").exists()


def test_the_copy_reports_how_far_it_is(world: World, lab: PgBackRestLab, site: Site) -> None:
    """Bytes of the backup, rising, up to all of them."""
    provider = opened(lab, site)
    ticks: list[Tick] = []

    provider.start(provider.plan(before_damage(world)), ticks.append)

    copied = [tick.done for tick in ticks if tick.phase == "copy"]
    assert copied == sorted(copied)
    assert copied[-1] == provider.window().base_backups[0].size_bytes


# -- the new stanza -----------------------------------------------------------------------------------


def test_the_copy_gets_a_stanza_of_its_own(
    world: World, lab: PgBackRestLab, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archived, read back, backed up, verified; and a restore from there brings it all back."""
    provider = opened(lab, site, new_stanza="restored")
    restored = provider.start(provider.plan(before_damage(world)), quiet)
    restored = provider.promote(restored.ref)
    waited = recycle_first(monkeypatch)

    service = admit(provider, restored.ref, world)

    assert (len(waited), service.archived_segment) == (2, waited[-1])

    assert service.durable
    assert service.unprotected_since is None
    assert service.archived_segment.startswith("00000002")
    assert any(line.startswith("stanza restored: ") for line in service.allowed)
    assert admit(provider, restored.ref, world) == service
    assert provider.check(before_damage(world)) == []  # the stanza is there now, and this run's
    with connect(restored.ref.endpoint) as session:
        session.do("INSERT INTO public.t VALUES (50, 'served')")
        session.do("SELECT pg_switch_wal()")
    assert not list((lab.place / "archive" / "demo").rglob("00000002*"))

    again = world.site(f"{site.run_id}-2", timeline=restored.timeline)
    second = opened(lab, again, stanza="restored")
    plan = second.plan(Target(kind=TargetKind.SNAPSHOT, value=service.base_backup))
    try:
        assert rows(second.start(plan, quiet).ref) == ALL_ROWS
    finally:
        second.discard(plan.instance)

    provider.isolate(restored.ref)

    assert not [finding for finding in provider.isolation(restored.ref) if not finding.holds]


def test_a_stanza_of_somebody_is_not_taken(world: World, lab: PgBackRestLab, site: Site) -> None:
    """Neither production's own, nor one that holds anything."""
    with pytest.raises(Exception, match="production's own") as own:
        opened(lab, site, new_stanza="demo")._store.protection()
    assert own.value.code == "RB105"
    rewrite(lab, "[demo]", f"[taken]\npg1-path={world.server.data}\npg1-port={world.server.port}\n"
            f"pg1-socket-path={world.server.sockets}\npg1-user=postgres\n[demo]")  # fmt: skip
    replace(lab, stanza="taken").run("stanza-create")
    provider = opened(lab, site, new_stanza="taken")
    assert [found.code for found in provider.check(before_damage(world))] == ["RB313"]
    restored = provider.start(provider.plan(before_damage(world)), quiet)
    provider.promote(restored.ref)
    # an earlier call took another one, and the configuration was changed since
    own = Made(stanza="restored", config=str(lab.config))
    Instance.of(site, restored.ref).save(MADE, own)

    with pytest.raises(ProviderError) as error:
        admit(provider, restored.ref, world)

    assert (error.value.code, "is not new" in error.value.fact) == ("RB313", True)


def test_tablespaces_are_restored_into_the_runs_own_folder(world: World, site: Site) -> None:
    """Production's own is not touched, the new stanza backs them up, and a restore from there brings them back."""
    lab = world.lab
    assert isinstance(lab, PgBackRestLab)
    place = lab.home / "space"
    place.mkdir()
    world.server.binaries.own(place)
    with connect(world.server.endpoint) as session:
        session.do(f"CREATE TABLESPACE far LOCATION '{place}'")
        session.do("CREATE TABLE public.kept TABLESPACE far AS SELECT id FROM generate_series(1, 10) id")
        lab.run("backup", "--type=full")
        session.do("INSERT INTO public.kept SELECT id FROM generate_series(11, 15) id")
        session.do("SELECT pg_create_restore_point('far')")
        session.do("CHECKPOINT")
        last = session.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
        session.do("SELECT pg_switch_wal()")
        wait_for(
            lambda: session.value("SELECT last_archived_wal FROM pg_stat_archiver") >= last,
            timeout_s=60, what="the archiver is done",
        )  # fmt: skip
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    provider, target = opened(lab, site, new_stanza="restored"), Target(kind=TargetKind.NAME, value="far")
    assert provider.check(target) == []
    plan = provider.plan(target)
    assert "--tablespace-map-all=" in plan.commands[0]

    restored = provider.promote(provider.start(plan, quiet).ref)
    service = admit(provider, restored.ref, world)

    assert service.unprotected_since is None
    assert spaced(restored.ref) == (15, str(Path(restored.ref.name).parent / "tablespaces" / "far"))
    again = world.site(f"{site.run_id}-2", timeline=restored.timeline)
    second = opened(lab, again, stanza="restored")
    plan = second.plan(Target(kind=TargetKind.SNAPSHOT, value=service.base_backup))
    try:
        ref = second.start(plan, quiet).ref
        assert spaced(ref) == (15, str(Path(ref.name).parent / "tablespaces" / "far"))
    finally:
        second.discard(plan.instance)
    provider.discard(restored.ref)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    assert not Path(restored.ref.name).parent.exists()


def spaced(ref: InstanceRef) -> tuple[int, str]:
    """Return the rows in the tablespace, and where that is."""
    with connect(ref.endpoint) as session:
        location = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'far'"
        return session.value("SELECT count(*) FROM public.kept"), session.value(location)


def admit(provider: PgBackRest, ref: InstanceRef, world: World) -> ServiceEndpoint:
    """Commission it, with no folder at all."""
    return provider.admit(
        ref, capture(world.server.endpoint), archive=None, base_backups=None, supervisor=None, allowed={}
    )
