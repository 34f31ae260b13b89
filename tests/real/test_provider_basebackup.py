"""What only the provider `basebackup` has: folders that are missing or packed, and files it reads beforehand."""

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.command import run, wait_for
from fixtures.errors import ProviderError, ToolError, UnsupportedError
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.lsn import SEGMENT_NAME
from fixtures.postgres.session import connect
from fixtures.production.capture import capture
from fixtures.providers.base import InstanceRef, Target, TargetKind
from fixtures.providers.basebackup.backend import BaseBackupDirectory
from fixtures.providers.basebackup.store import BaseBackupStore
from fixtures.providers.local.backend import LocalProvider
from fixtures.providers.local.instance import Instance
from fixtures.settings import BaseBackupProvider, NewS3, ObjectPlace, ObjectUrl
from tests.real.restore_labs import BaseBackupLab
from tests.real.restore_world import World, production

LATEST = Target(kind=TargetKind.LATEST)


@pytest.fixture(scope="module")
def world(public_dir: Path, binaries: Binaries) -> Iterator[World]:
    """Production after the damage, still running."""
    with production(public_dir, BaseBackupLab, binaries) as made:
        yield made


def before_damage(world: World) -> Target:
    """Just before the damaging transaction."""
    return Target(kind=TargetKind.XID, value=str(world.damage.xid), exclusive=True)


def codes(provider: LocalProvider, target: Target) -> list[str]:
    """Codes of all findings."""
    return [finding.code for finding in provider.check(target)]


def test_an_unreadable_store_is_refused(world: World) -> None:
    """A missing archive is not an empty one; a packed one is said to be packed."""
    target = before_damage(world)

    for missing in ("archive", "base"):
        lab = world.lab.clone(f"no-{missing}")
        (lab.place / missing).rename(lab.place / "elsewhere")
        assert codes(world.provider("none", lab=lab), target) == ["RB309"]

    packed = world.lab.clone("packed")
    (packed.segment("000000010000000000000009.gz")).write_bytes(b"")

    assert codes(world.provider("packed", lab=packed), target) == ["RB108"]


def test_programs_and_links_that_do_not_fit_are_refused(world: World) -> None:
    """Another major, a missing library, a tablespace outside the copy."""
    lab = world.lab.clone("odd")
    base = lab.place / "base"
    provider = world.provider("odd", lab=lab)
    target = before_damage(world)
    assert codes(provider, target) == []

    with (base / "full" / "postgresql.conf").open("a") as conf:
        conf.write("shared_preload_libraries = 'pg_stat_statements, pg_cron, no_such_library'\n")
    (base / "full" / "pg_tblspc" / "16999").symlink_to(world.home)

    assert sorted(codes(provider, target)) == ["RB108", "RB307"]

    (base / "full" / "PG_VERSION").write_text("17\n")

    assert "RB307" in codes(provider, target)


def test_a_partial_segment_is_replayed_where_no_finished_one_is(world: World) -> None:
    """What a receiver had of the last segment when production died is handed to the server, too."""
    lab = world.lab.clone("received")
    last = max(path for path in (lab.place / "archive").iterdir() if SEGMENT_NAME.fullmatch(path.name))
    kept = world.lab.clone("kept")
    expected = world.provider("kept", lab=kept).plan(LATEST)
    last.rename(last.with_name(f"{last.name}.partial"))
    provider = world.provider("received", lab=lab)
    plan = provider.plan(LATEST)
    assert plan.wal_bytes == expected.wal_bytes
    try:
        restored = provider.start(plan, lambda _: None)

        assert (restored.last_commit_at, restored.paused) == (provider.window().latest, True)
    finally:
        provider.discard(plan.instance)


@pytest.fixture(scope="module")
def space(world: World) -> Path:
    """A folder that is a tablespace of production's, made since its first base backup."""
    folder = world.home / "space"
    folder.mkdir()
    world.server.binaries.own(folder)
    with connect(world.server.endpoint) as session:
        session.do(f"CREATE TABLESPACE outside LOCATION '{folder}'")
        session.do(
            "CREATE TABLE public.kept WITH (autovacuum_enabled = off) TABLESPACE outside"
            " AS SELECT id FROM generate_series(1, 9000) id"
        )
        session.do("SELECT pg_create_restore_point('made')")
        session.do("DELETE FROM public.kept WHERE id > 10")
        session.do("VACUUM (FREEZE) public.kept")  # production writes nothing there by itself from here on
        session.do("CHECKPOINT")
        last = session.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
        session.do("SELECT pg_switch_wal()")
        wait_for(
            lambda: session.value("SELECT last_archived_wal FROM pg_stat_archiver") >= last,
            timeout_s=60, what="the archiver is done",
        )  # fmt: skip
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Return what each file below a folder holds, as a sum."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kept(ref: InstanceRef) -> tuple[int, str]:
    """Return the rows in the tablespace, and where that is."""
    with connect(ref.endpoint) as session:
        location = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'outside'"
        return session.value("SELECT count(*) FROM public.kept"), session.value(location)


def test_a_tablespace_made_since_the_backup_never_leads_into_productions(world: World, space: Path) -> None:
    """The log names production's own folder: on the same machine a replay would write into it."""
    before = contents(space)
    provider = world.provider("spaces")
    plan = provider.plan(Target(kind=TargetKind.NAME, value="made"))
    try:
        with pytest.raises(ProviderError) as error:
            provider.start(plan, lambda _: None)
    finally:
        provider.discard(plan.instance)

    assert contents(space) == before
    assert error.value.code == "RB108"
    assert 'symbolic link "pg_tblspc/' in error.value.fact


def test_tablespaces_are_restored_into_the_runs_own_folder(world: World, space: Path) -> None:
    """A plain and a packed backup at once: neither meets the other or production; commissioned, and gone."""
    lab = world.lab
    assert isinstance(lab, BaseBackupLab)
    for name, words in (("plain", ["-T", f"{space}={lab.place / 'mapped'}"]), ("packed", ["-F", "tar"])):
        run(
            [
                world.server.binaries.tool("pg_basebackup"), "-h", world.server.sockets, "-p",
                str(world.server.port), "-U", "postgres", "-D", lab.base_backups / name, "-c", "fast", "-X",
                "none", *words,
            ],
            timeout_s=60, user=world.server.binaries.user,
        )  # fmt: skip
    assert codes(world.provider("spaces-older"), before_damage(world)) == []  # an older one serves that
    before, refs = contents(space), []
    providers = {name: world.provider(f"spaces-{name}") for name in ("plain", "packed")}
    try:
        for name, provider in providers.items():
            target = Target(kind=TargetKind.SNAPSHOT, value=name)
            assert provider.check(target) == []
            plan = provider.plan(target)
            refs.append(plan.instance)
            provider.promote(provider.start(plan, lambda _: None).ref)
            with connect(plan.instance.endpoint) as session:
                session.do("SET default_transaction_read_only = off")
                session.do("INSERT INTO public.kept SELECT 0 FROM generate_series(1, %s)", (len(refs),))
                session.do("CHECKPOINT")
        oid = next((lab.base_backups / "plain" / "pg_tblspc").iterdir()).name
        assert [kept(ref) for ref in refs] == [
            (10 + number, str(Path(ref.name).parent / "tablespaces" / oid))
            for number, ref in enumerate(refs, 1)
        ]
        assert contents(space) == before

        prefixes = [ObjectPlace(ObjectUrl("new", name), NewS3()) for name in ("archive", "base")]
        with pytest.raises(ProviderError, match="goes to a folder") as error:
            providers["packed"].admit(
                refs[1], capture(world.server.endpoint), archive=prefixes[0], base_backups=prefixes[1],
                supervisor=None, allowed={},
            )  # fmt: skip
        assert error.value.code == "RB313"

        service = providers["plain"].admit(
            refs[0], capture(world.server.endpoint), archive=world.home / "a-space",
            base_backups=world.home / "b-space", supervisor=None, allowed={},
        )  # fmt: skip

        assert service.unprotected_since is None
        assert (world.home / "b-space" / service.base_backup / f"{oid}.tar").is_file()
        providers["again"] = BaseBackupDirectory(
            BaseBackupProvider(base_backups=world.home / "b-space", archive=world.home / "a-space"),
            world.site("spaces-again", timeline=2),
        )
        plan = providers["again"].plan(Target(kind=TargetKind.SNAPSHOT, value=service.base_backup))
        refs.append(plan.instance)
        assert kept(providers["again"].start(plan, lambda _: None).ref)[0] == 11
    finally:
        for provider, ref in zip(providers.values(), refs, strict=False):
            provider.discard(ref)
    assert contents(space) == before
    assert not [ref for ref in refs if Path(ref.name).parent.exists()]


def test_tablespaces_that_cannot_be_proven_are_refused(world: World, space: Path) -> None:
    """A link that leads elsewhere, a backup without a manifest, a packed one that lacks an archive."""
    lab = world.lab.clone("unproven")
    base = lab.place / "base"
    target = {name: Target(kind=TargetKind.SNAPSHOT, value=name) for name in ("plain", "packed")}
    store = world.provider("unproven", lab=lab)._store
    assert isinstance(store, BaseBackupStore)
    (plain,) = [each for each in store.backups() if each.id == "plain"]
    (part,) = store.known[0].chains[plain.id]
    store.place.refuse_links(part, alone=True)
    with pytest.raises(UnsupportedError):
        store.place.refuse_links(part, alone=False)  # a chain is not combined with its tablespaces
    (link,) = (base / "plain" / "pg_tblspc").iterdir()
    there = link.resolve()
    link.unlink()
    link.symlink_to(world.home)
    assert codes(world.provider("unproven", lab=lab), target["plain"]) == ["RB108"]
    link.unlink()
    link.symlink_to(space)
    with connect(world.server.endpoint) as session:
        session.do("DELETE FROM public.kept")
        session.do("VACUUM public.kept")
        session.do("CHECKPOINT")
    assert failed(world.provider("unproven", lab=lab), target["plain"]) == "RB301"  # production goes on there
    link.unlink()
    link.symlink_to(there)
    (base / "plain" / "backup_manifest").unlink()
    assert codes(world.provider("unproven", lab=lab), target["plain"]) == ["RB108"]
    next((base / "packed").glob("[0-9]*.tar")).unlink()
    (base / "packed" / "backup_manifest").unlink()
    assert failed(world.provider("unproven", lab=lab), target["packed"]) == "RB301"


def failed(provider: LocalProvider, target: Target) -> str:
    """Return the code a restore fails with."""
    plan = provider.plan(target)
    try:
        with pytest.raises(ProviderError) as error:
            provider.start(plan, lambda _: None)
    finally:
        provider.discard(plan.instance)
    return error.value.code


def test_a_killed_servers_processes_are_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL refuses to start beside them; one that does not end is named, and the next start goes on."""
    provider = world.provider("orphan")
    plan = provider.plan(before_damage(world))
    try:
        server = Instance.of(provider._site, provider.start(plan, lambda _: None).ref).server
        pid = server.pid()
        assert pid is not None
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: server.pid() is None, timeout_s=60, what="it is dead")
            monkeypatch.setattr("fixtures.postgres.server.ORPHANS_S", 0.5)
            with pytest.raises(ToolError) as error:
                provider.start(plan, lambda _: None)
        finally:
            os.kill(int(children[0]), signal.SIGCONT)
            monkeypatch.undo()
        assert (error.value.code, children[0] in error.value.fact) == ("RB901", True)

        assert provider.start(plan, lambda _: None).paused
    finally:
        provider.discard(plan.instance)
