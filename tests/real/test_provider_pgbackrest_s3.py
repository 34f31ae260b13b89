"""The provider `pgbackrest` over a real S3 server: TLS, signatures, credentials, outages, harmed objects."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fixtures.command import run
from fixtures.errors import ProviderError
from fixtures.postgres.session import connect
from fixtures.progress import Tick
from fixtures.providers.base import Finding, InstanceRef, Site, Target, TargetKind
from fixtures.providers.local.instance import Instance
from fixtures.providers.pgbackrest.backend import PgBackRest
from fixtures.settings import PgBackRestProvider
from tests.real.restore_labs import PgBackRestLab, debian_15
from tests.real.restore_world import ROWS, World, production
from tests.real.s3_server import BUCKET, KEY, READER, READER_SECRET, S3, SECRET, s3_server

ALL_ROWS = list(range(ROWS + 1))
NEWEST = Target(kind=TargetKind.LATEST)
ARCHIVE = "repo/archive/demo/15-1"


@dataclass(frozen=True, kw_only=True)
class S3Lab(PgBackRestLab):
    """A repository on S3."""

    s3: S3

    def repository(self) -> str:
        return (
            f"repo1-type=s3\nrepo1-path=/repo\nrepo1-s3-bucket={BUCKET}\nrepo1-s3-endpoint=localhost\n"
            f"repo1-s3-region=auto\nrepo1-s3-uri-style=path\nrepo1-s3-key={KEY}\nrepo1-s3-key-secret={SECRET}\n"
            f"repo1-storage-host=localhost\nrepo1-storage-port={self.s3.port}\n"
            f"repo1-storage-ca-file={self.s3.authority}\nio-timeout=5\n"
        )


@pytest.fixture(scope="module")
def s3(public_dir: Path) -> Iterator[S3]:
    """The server."""
    with s3_server(public_dir / "s3") as made:
        yield made


@pytest.fixture(scope="module")
def world(public_dir: Path, s3: S3) -> Iterator[World]:
    """Production that archives to S3, after the damage."""
    with production(public_dir, partial(S3Lab, s3=s3), debian_15(public_dir)) as made:
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


def opened(world: World, site: Site, *changes: tuple[str, str], **settings: Any) -> PgBackRest:
    """The provider with a configuration file of its own, changed."""
    assert isinstance(world.lab, PgBackRestLab)
    text = world.lab.config.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    config = world.home / f"{site.run_id}.conf"
    config.write_text(text)
    config.chmod(0o600)
    world.server.binaries.own(config)
    return PgBackRest(PgBackRestProvider(config=config, stanza=world.lab.stanza, **settings), site)


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


def stored(s3: S3, segment: str) -> str:
    """The object that holds a segment."""
    folder = f"{ARCHIVE}/{segment[:16]}"
    (name,) = [name for name in s3.list(folder) if name.startswith(f"{segment}-")]
    return f"{folder}/{name}"


def test_it_restores_from_s3_with_credentials_that_can_only_read(
    world: World, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, by environment alone, and the secret stands in no file, argument or log."""
    monkeypatch.setenv("PGBACKREST_REPO1_S3_KEY_SECRET", READER_SECRET)
    provider = opened(
        world, site, (f"s3-key={KEY}\n", f"s3-key={READER}\n"), (f"repo1-s3-key-secret={SECRET}\n", ""),
        env=("PGBACKREST_REPO1_S3_KEY_SECRET",),
    )  # fmt: skip
    target = before_damage(world)
    assert provider.check(target) == []
    assert provider.window().gaps == ()

    restored = provider.start(provider.plan(target), quiet)

    assert rows(restored.ref) == ALL_ROWS
    pid = Instance.of(site, restored.ref).server.pid()
    assert READER_SECRET not in Path(f"/proc/{pid}/cmdline").read_text()
    for folder in (site.logs, Path(restored.ref.name).parent):
        files = [path for path in folder.rglob("*") if path.is_file() and "base" not in path.parts]
        assert not [path for path in files if READER_SECRET.encode() in path.read_bytes()]


def test_wrong_credentials_are_refused_and_not_shown(world: World, site: Site) -> None:
    """A signature that does not fit, and a key nobody has."""
    for change in ((SECRET, "wrong-secret-0123456789"), (f"s3-key={KEY}\n", "s3-key=nobody\n")):
        found = only(opened(world, site, change).check(NEWEST))

        assert found.code == "RB309"
        assert change[1].strip() not in f"{found.fact} {found.where} {found.hints}"


def test_a_missing_key_is_named(world: World, site: Site) -> None:
    """By its variable, before anything is asked."""
    found = only(opened(world, site, (f"repo1-s3-key={KEY}\n", "")).check(NEWEST))

    assert found.code == "RB106"
    assert any("PGBACKREST_REPO1_S3_KEY" in hint for hint in found.hints)


def test_a_server_nobody_vouches_for_is_refused(world: World, site: Site, s3: S3) -> None:
    """Its certificate is checked."""
    provider = opened(world, site, (f"repo1-storage-ca-file={s3.authority}\n", ""))

    assert only(provider.check(NEWEST)).code == "RB309"


@pytest.mark.parametrize(
    "change", [(f"bucket={BUCKET}", "bucket=elsewhere"), ("repo1-path=/repo", "repo1-path=/elsewhere")]
)
def test_a_wrong_bucket_or_path_is_not_an_empty_repository(
    world: World, site: Site, change: tuple[str, str]
) -> None:
    """Nothing is there; that is said of the place, not of the backups."""
    assert only(opened(world, site, change).check(NEWEST)).code == "RB309"


def test_a_server_that_went_away_is_not_the_end_of_the_log(world: World, site: Site, s3: S3) -> None:
    """Between check and copy, and asked for a segment by the server itself."""
    provider = opened(world, site)
    plan = provider.plan(before_damage(world))
    restored = provider.start(plan, quiet)
    instance = Instance.of(site, restored.ref)
    config = world.home / f"{site.run_id}.conf"
    reachable = config.read_text()

    def ask(name: str) -> int:
        target = instance.folder.root / "segment"
        return run(["/bin/sh", instance.folder.script, name, target], timeout_s=90, check=False).returncode

    assert ask(world.commits[1].segment) == 0
    assert ask("0000000100000000000000FF") == 1

    config.write_text(reachable.replace(f"storage-port={s3.port}", "storage-port=9"))

    assert ask(world.commits[1].segment) == 255
    assert ask("0000000100000000000000FF") == 255
    assert only(PgBackRest(provider._store.settings, site).check(NEWEST)).code == "RB309"


@pytest.mark.parametrize("harm", ["lost", "cut off", "flipped"])
def test_a_harmed_object_is_found_before_the_copy(world: World, site: Site, s3: S3, harm: str) -> None:
    """Missing, truncated, or with another byte; and a target before it is still served."""
    path = stored(s3, world.commits[2].segment)
    content = s3.read(path)
    middle = len(content) // 2
    harmed = {
        "cut off": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :],
    }
    assert s3.change("DELETE", path)
    if harm in harmed:
        assert s3.change("PUT", path, harmed[harm])
    try:
        assert "RB302" in [found.code for found in opened(world, site).check(before_damage(world))]
        assert opened(world, site).check(Target(kind=TargetKind.XID, value=str(world.commits[0].xid))) == []
    finally:
        s3.change("DELETE", path)
        assert s3.change("PUT", path, content)


def test_a_harmed_backup_is_found_while_copying(world: World, site: Site, s3: S3) -> None:
    """Nothing is started from it."""
    label = opened(world, site).window().base_backups[0].id
    folder = f"repo/backup/demo/{label}/pg_data/base/1"
    path = f"{folder}/{max(s3.list(folder), key=len)}"
    content = s3.read(path)
    provider = opened(world, site)
    plan = provider.plan(before_damage(world))
    assert s3.change("DELETE", path)
    try:
        with pytest.raises(ProviderError) as error:
            provider.start(plan, quiet)
    finally:
        assert s3.change("PUT", path, content)

    assert error.value.code == "RB301"
    assert not Path(plan.instance.name).exists()
    assert rows(provider.start(plan, quiet).ref) == ALL_ROWS
