"""What only the provider `basebackup` has: folders that are missing or packed, and files it reads beforehand."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.command import wait_for
from fixtures.errors import ProviderError
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.lsn import SEGMENT_NAME
from fixtures.postgres.session import connect
from fixtures.providers.base import Target, TargetKind
from fixtures.providers.local.backend import LocalProvider
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


def test_a_tablespace_made_since_the_backup_never_leads_into_productions(world: World) -> None:
    """The log names production's own folder: on the same machine a replay would write into it."""
    folder = world.home / "space"
    folder.mkdir()
    world.server.binaries.own(folder)
    with connect(world.server.endpoint) as session:
        session.do(f"CREATE TABLESPACE outside LOCATION '{folder}'")
        session.do(
            "CREATE TABLE public.kept TABLESPACE outside AS SELECT id FROM generate_series(1, 9000) id"
        )
        session.do("SELECT pg_create_restore_point('made')")
        session.do("DELETE FROM public.kept WHERE id > 10")
        session.do("CHECKPOINT")
        last = session.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
        session.do("SELECT pg_switch_wal()")
        wait_for(
            lambda: session.value("SELECT last_archived_wal FROM pg_stat_archiver") >= last,
            timeout_s=60, what="the archiver is done",
        )  # fmt: skip
    before = {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }
    provider = world.provider("spaces")
    plan = provider.plan(Target(kind=TargetKind.NAME, value="made"))
    try:
        with pytest.raises(ProviderError) as error:
            provider.start(plan, lambda _: None)
    finally:
        provider.discard(plan.instance)

    after = {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }
    assert after == before
    assert error.value.code == "RB108"
    assert 'symbolic link "pg_tblspc/' in error.value.fact
