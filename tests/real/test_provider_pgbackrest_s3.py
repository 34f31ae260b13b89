"""The provider `pgbackrest` over a real S3 server: credentials, clock, outages, harmed objects, a new stanza."""

import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fixtures.command import find_job
from fixtures.drill.record import STORE
from fixtures.errors import ProviderError
from fixtures.postgres.session import connect
from fixtures.production.capture import capture
from fixtures.progress import Tick
from fixtures.providers.base import Finding, InstanceRef, ServiceEndpoint, Site, Target, TargetKind
from fixtures.providers.local.instance import Instance
from fixtures.providers.pgbackrest.backend import PgBackRest
from fixtures.settings import PgBackRestProvider
from tests.missing import missing
from tests.real.restore_labs import PASSPHRASE, PgBackRestS3Lab, debian_15
from tests.real.restore_world import ROWS, World, production
from tests.real.s3_server import BUCKET, KEY, READER, READER_SECRET, S3, SECRET

ALL_ROWS = list(range(ROWS + 1))
NEWEST = Target(kind=TargetKind.LATEST)
SECRETS = ("PGBACKREST_REPO1_S3_KEY", "PGBACKREST_REPO1_S3_KEY_SECRET")


@pytest.fixture(scope="module")
def world(public_dir: Path) -> Iterator[World]:
    """Production that archives to S3, after the damage."""
    programs = debian_15(public_dir)
    with (
        PgBackRestS3Lab.surroundings(public_dir) as given,
        production(public_dir, partial(PgBackRestS3Lab, **given), programs) as made,
    ):
        yield made


@pytest.fixture
def s3(world: World) -> S3:
    """The server."""
    assert isinstance(world.lab, PgBackRestS3Lab)
    return world.lab.s3


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


def written(world: World, name: str, *changes: tuple[str, str]) -> Path:
    """A configuration file of its own, changed."""
    assert isinstance(world.lab, PgBackRestS3Lab)
    text = world.lab.config.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    config = world.home / f"{name}.conf"
    config.write_text(text)
    config.chmod(0o600)
    world.server.binaries.own(config)
    return config


def opened(world: World, site: Site, *changes: tuple[str, str], **settings: Any) -> PgBackRest:
    """The provider with a configuration file of its own, changed."""
    config = written(world, site.run_id, *changes)
    return PgBackRest(PgBackRestProvider(**{"stanza": "demo", "config": config, **settings}), site)


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


def admitted(provider: PgBackRest, ref: InstanceRef, world: World) -> ServiceEndpoint:
    """Commission it, with no folder at all."""
    return provider.admit(
        ref, capture(world.server.endpoint), archive=None, base_backups=None, supervisor=None, allowed={}
    )


# -- what is refused before anything is copied --------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said", "next_step"),
    [
        ([(SECRET, "wrong-secret-0123456789")], "403 SignatureDoesNotMatch", "repo-s3-key-secret"),
        ([(f"s3-key={KEY}\n", "s3-key=nobody\n")], "403 InvalidAccessKeyId", "repo-s3-key"),
        ([(f"bucket={BUCKET}", "bucket=elsewhere")], "404 NoSuchBucket", "repo-s3-bucket"),
        ([("repo1-path=/store", "repo1-path=/elsewhere")], "holds no stanza demo", "path, bucket or mount"),
        ([("repo1-storage-ca-file=", "#")], "unable to verify certificate", "repo-storage-ca-file"),
        ([(PASSPHRASE, "another passphrase")], "cannot be decrypted", "repo-cipher-pass"),
    ],
    ids=["secret", "key", "bucket", "path", "authority", "passphrase"],
)
def test_a_store_that_refuses_says_what_and_what_to_do(
    world: World, site: Site, changes: list[tuple[str, str]], said: str, next_step: str
) -> None:
    """It is no empty repository; and what was tried as a secret is not shown."""
    found = only(opened(world, site, *changes).check(NEWEST))

    assert found.code == "RB309"
    assert said in found.fact
    assert any(next_step in hint for hint in found.hints)
    for tried in ("wrong-secret-0123456789", "another passphrase", SECRET):
        assert tried not in f"{found.fact} {found.where} {found.hints}"


def test_a_stanza_that_is_not_there_is_told_from_those_that_are(world: World, site: Site) -> None:
    """By name."""
    found = only(opened(world, site, ("[demo]", "[other]"), stanza="other").check(NEWEST))

    assert (found.code, "stanzas that are there: demo" in found.hints) == ("RB309", True)


def test_a_missing_key_is_named(world: World, site: Site) -> None:
    """By its variable, before anything is asked."""
    found = only(opened(world, site, (f"repo1-s3-key={KEY}\n", "")).check(NEWEST))

    assert found.code == "RB106"
    assert any("PGBACKREST_REPO1_S3_KEY" in hint for hint in found.hints)


def test_a_wrong_clock_is_named(
    world: World, site: Site, monkeypatch: pytest.MonkeyPatch, public_dir: Path
) -> None:
    """Signatures carry their time: a machine an hour ahead is refused, and told why."""
    faketime, pgbackrest = shutil.which("faketime"), shutil.which("pgbackrest")
    if faketime is None:
        missing("faketime, to run pgBackRest with a wrong clock")
    ahead = public_dir / "ahead"
    ahead.mkdir(mode=0o755)
    program = ahead / "pgbackrest"
    program.write_text(f'#!/bin/sh\nexec {faketime} -f +1h {pgbackrest} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ahead}:{os.environ['PATH']}")

    found = only(opened(world, site).check(NEWEST))

    assert (found.code, "RequestTimeTooSkewed" in found.fact) == ("RB309", True)
    assert any("clock" in hint for hint in found.hints)


@pytest.mark.parametrize("harm", ["lost", "flipped"])
def test_a_harmed_object_is_found_before_the_copy(world: World, site: Site, s3: S3, harm: str) -> None:
    """Missing, or with another byte; and a target before it is still served."""
    assert isinstance(world.lab, PgBackRestS3Lab)
    path = world.lab.object(world.commits[2].segment)
    content = s3.read(path)
    middle = len(content) // 2
    assert s3.change("DELETE", path)
    if harm == "flipped":
        assert s3.change(
            "PUT", path, content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
        )
    try:
        assert "RB302" in [found.code for found in opened(world, site).check(before_damage(world))]
        assert opened(world, site).check(Target(kind=TargetKind.XID, value=str(world.commits[0].xid))) == []
    finally:
        s3.change("DELETE", path)
        assert s3.change("PUT", path, content)


# -- the copy -----------------------------------------------------------------------------------------


def test_it_restores_with_credentials_that_can_only_read(
    world: World, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, by environment alone, and the secret stands in no file, argument or log."""
    monkeypatch.setenv("PGBACKREST_REPO1_S3_KEY", READER)
    monkeypatch.setenv("PGBACKREST_REPO1_S3_KEY_SECRET", READER_SECRET)
    provider = opened(
        world, site, (f"repo1-s3-key={KEY}\n", ""), (f"repo1-s3-key-secret={SECRET}\n", ""), env=SECRETS
    )
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


def test_a_server_that_hangs_in_the_middle_of_replay_ends_nothing(world: World, site: Site, s3: S3) -> None:
    """It takes connections and answers nothing: replay stops loudly, and goes on when it is back."""
    provider = opened(world, site, ("io-timeout=10\n", "io-timeout=1\n"))
    first = provider.plan(Target(kind=TargetKind.XID, value=str(world.commits[0].xid)))
    whole = provider.plan(before_damage(world))
    restored = provider.start(first, quiet)
    assert rows(restored.ref) == ALL_ROWS[:2]
    job = find_job(STORE, s3.authority.parent / "logs")
    assert job is not None

    os.killpg(job.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ProviderError) as error:
            provider.advance(restored.ref, whole, quiet)
    finally:
        os.killpg(job.pid, signal.SIGCONT)

    assert error.value.code in {"RB302", "RB309"}
    assert "archive recovery complete" not in Instance.of(site, restored.ref).log_text()
    opened(world, site)
    assert rows(provider.start(whole, quiet).ref) == ALL_ROWS


# -- the new stanza -----------------------------------------------------------------------------------


def test_the_copy_gets_a_stanza_of_its_own_on_s3(
    world: World, site: Site, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened with its own file's keys, not with the variables that can only read production's repository."""
    monkeypatch.setenv("PGBACKREST_REPO1_S3_KEY", READER)
    monkeypatch.setenv("PGBACKREST_REPO1_S3_KEY_SECRET", READER_SECRET)
    new = written(world, f"{site.run_id}-new", ("repo1-path=/store", "repo1-path=/served"))
    provider = opened(
        world, site, (f"repo1-s3-key={KEY}\n", ""), (f"repo1-s3-key-secret={SECRET}\n", ""), env=SECRETS,
        new_stanza="restored", new_config=new,
    )  # fmt: skip
    restored = provider.promote(provider.start(provider.plan(before_damage(world)), quiet).ref)

    service = admitted(provider, restored.ref, world)

    assert service.durable
    assert service.unprotected_since is None
    assert f"backup/restored/{service.base_backup}/backup.manifest" in "\n".join(s3.walk("served"))
    assert any(f"/{service.archived_segment}-" in path for path in s3.walk("served/archive/restored"))
    assert not [path for path in s3.walk("store") if "/00000002" in path]
    provider.isolate(restored.ref)
    assert not [finding for finding in provider.isolation(restored.ref) if not finding.holds]


def test_a_new_stanza_that_cannot_be_reached_is_refused_before_the_copy(world: World, site: Site) -> None:
    """Not at the end, when everything else is done."""
    for change, code in (
        ((SECRET, "wrong-secret-0123456789"), "RB313"),
        ((f"repo1-s3-key={KEY}\n", ""), "RB106"),
    ):
        new = written(world, f"{site.run_id}-new", ("repo1-path=/store", "repo1-path=/never"), change)

        found = only(opened(world, site, new_stanza="restored", new_config=new).check(before_damage(world)))

        assert found.code == code
        assert str(new) in found.where


def test_a_new_stanza_nobody_may_write_is_refused_with_the_stores_word(world: World, site: Site) -> None:
    """The copy stays isolated."""
    new = written(
        world, f"{site.run_id}-new", ("repo1-path=/store", "repo1-path=/never"), (f"s3-key={KEY}\n", f"s3-key={READER}\n"),
        (SECRET, READER_SECRET),
    )  # fmt: skip
    provider = opened(world, site, new_stanza="restored", new_config=new)
    restored = provider.promote(provider.start(provider.plan(before_damage(world)), quiet).ref)

    with pytest.raises(ProviderError) as error:
        admitted(provider, restored.ref, world)

    assert (error.value.code, "403 AccessDenied" in error.value.where) == ("RB313", True)
    assert any("must write" in hint for hint in error.value.hints)
    assert not [finding for finding in provider.isolation(restored.ref) if not finding.holds]
