"""The provider `barman_cloud` over a real S3 server: credentials, outages, what a bucket lacks, a new place."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.command import run
from fixtures.errors import ConfigError, ProviderError
from fixtures.postgres.lsn import segment_name
from fixtures.postgres.session import connect
from fixtures.production.capture import capture
from fixtures.progress import Tick
from fixtures.providers.barman.backend import BarmanCloud
from fixtures.providers.barman.cloud import CloudStore
from fixtures.providers.base import Finding, InstanceRef, Site, Target, TargetKind
from fixtures.providers.local.feed import Feed
from fixtures.providers.local.instance import Instance
from fixtures.settings import BarmanCloudProvider, ObjectUrl, S3Access
from tests.real.barman_cloud_lab import READER, SERVER, WRITER, BarmanCloudLab
from tests.real.barman_lab import with_barman
from tests.real.door import door_to
from tests.real.recycling import recycle_first
from tests.real.restore_world import ROWS, World, production
from tests.real.s3_server import BUCKET

ALL_ROWS = list(range(ROWS + 1))
NEWEST = Target(kind=TargetKind.LATEST)


@pytest.fixture(scope="module")
def world(public_dir: Path) -> Iterator[World]:
    """Production with a bucket, after the damage."""
    with production(public_dir, BarmanCloudLab, with_barman(public_dir)) as made:
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


def lab_of(world: World, name: str = "") -> BarmanCloudLab:
    """The bucket, or a place of this test's own in it, to be harmed."""
    made = world.lab.clone(name) if name else world.lab
    assert isinstance(made, BarmanCloudLab)
    return made


def opened(lab: BarmanCloudLab, site: Site, **changes: object) -> BarmanCloud:
    """The provider over a bucket; `changes` replace its settings."""
    settings = {"url": lab.url, "server": SERVER, "s3": lab.access, **changes}
    return BarmanCloud(BarmanCloudProvider.model_validate(settings), site)


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


def test_it_restores_with_keys_that_can_only_read_and_keeps_them_nowhere(world: World, site: Site) -> None:
    """Neither the run's folder, nor its jobs' output, nor the plan holds a secret."""
    provider = opened(lab_of(world), site)
    plan = provider.plan(before_damage(world))
    restored = provider.start(plan, quiet)

    assert rows(restored.ref) == ALL_ROWS
    for secret in (READER.secret, WRITER.secret):
        assert secret not in repr(plan)
        found = run(
            ["grep", "-rl", secret, site.directory / site.run_id, site.logs], timeout_s=60, check=False
        )
        assert found.stdout.split() == []


def test_what_cannot_be_asked_is_said(
    world: World, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No such server, bucket or store, keys that are wrong or missing: each by its name, with a next step."""
    lab, target = lab_of(world), before_damage(world)
    nobody = S3Access(endpoint_url="https://127.0.0.1:1", ca_file=lab.access.ca_file)

    for word, changes in (
        ("nothing of server nobody", {"server": "nobody"}),
        ("NoSuchBucket", {"url": ObjectUrl("no-such-bucket", "store")}),
        ("cannot be reached", {"s3": nobody}),
    ):
        found = only(opened(lab, site, **changes).check(target))
        assert (found.code, word in found.fact, bool(found.hints)) == ("RB309", True, True)
    assert SERVER in only(opened(lab, site, server="nobody").check(target)).hints[0]

    wrong = tmp_path / "wrong.ini"
    wrong.write_text(f"[default]\naws_access_key_id = {READER.key}\naws_secret_access_key = no\n")
    for file in (wrong, tmp_path / "missing.ini"):
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        found = only(opened(lab, site).check(target))
        assert (found.code, bool(found.hints)) == ("RB309", True)


def test_an_archive_that_is_not_there_is_missed(world: World, site: Site) -> None:
    """Before anything is copied where names show it, after the download where only the content does."""
    lab = lab_of(world, "parts")
    (path,) = [path for path in lab.s3.walk(f"parts/{SERVER}/base") if ".tar" in path]
    content = lab.s3.read(path)
    assert lab.s3.change("PUT", path.replace("data.tar", "data_0002.tar"), content)

    assert only(opened(lab, site).check(before_damage(world))).code == "RB301"

    assert lab.s3.change("DELETE", path.replace("data.tar", "data_0002.tar"))
    assert lab.s3.change("PUT", path, content[: len(content) // 3])
    provider = opened(lab, site)
    with pytest.raises(ProviderError) as error:
        provider.start(provider.plan(before_damage(world)), quiet)
    assert error.value.code == "RB301"


def test_a_backup_that_is_not_done_is_not_chosen(world: World, site: Site) -> None:
    """It is named, in the plan while there is another, in the refusal when there is none."""
    lab = lab_of(world, "failed")
    (path,) = [path for path in lab.s3.walk(f"failed/{SERVER}/base") if path.endswith("backup.info")]
    failed = lab.s3.read(path).replace(b"status=DONE", b"status=FAILED")
    assert lab.s3.change("PUT", f"failed/{SERVER}/base/20200101T000000/backup.info", failed)
    assert lab.s3.change("PUT", f"failed/{SERVER}/base/20200102T000000/data.tar", b"x")

    plan = opened(lab, site).plan(before_damage(world))

    assert "20200101T000000 FAILED, 20200102T000000 without backup.info" in plan.commands[0]

    assert lab.s3.change("PUT", path, failed)
    found = only(opened(lab, site).check(before_damage(world)))
    assert found.code == "RB301"
    assert "FAILED" in found.hints[0]


@pytest.mark.parametrize("during", ["copied", "replaying"])
def test_an_outage_is_not_the_end_of_the_log(
    world: World, site: Site, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    """A store that goes away stops the restore, before the replay or in it, and a new process goes on with it."""
    monkeypatch.setattr("fixtures.providers.local.feed.PATIENCE_S", 1.0)
    lab = lab_of(world)
    with door_to(lab.s3.port) as door:
        access = S3Access(endpoint_url=f"https://127.0.0.1:{door.port}", ca_file=lab.access.ca_file)
        provider = opened(lab, site, s3=access)
        plan = provider.plan(before_damage(world))

        def vanish(tick: Tick) -> None:
            if during == "copied" and tick.phase == "copy" and tick.done == tick.total:
                door.shut()

        def shut_in(store: CloudStore, proof: str) -> Feed:
            made = feed(store, proof)
            door.shut()
            return made

        feed = CloudStore.feed
        if during == "replaying":
            monkeypatch.setattr(CloudStore, "feed", shut_in)

        with pytest.raises(ProviderError) as error:
            provider.start(plan, vanish)
        assert error.value.code in {"RB302", "RB309"}

        monkeypatch.setattr(CloudStore, "feed", feed)
        door.open()
        again = opened(lab, site, s3=access)

        assert rows(again.start(plan, quiet).ref) == ALL_ROWS
        assert Instance.of(site, plan.instance).in_recovery()


def test_a_new_place_protects_the_copy(world: World, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its segment reads back, its backup is done, and both restore on the new timeline; no secret in a setting."""
    lab = lab_of(world)
    credentials = world.home / "writer.ini"
    changes = {"new_server": "restored", "new_url": ObjectUrl(BUCKET, "new"), "new_credentials": credentials}
    provider = opened(lab, site, **changes)
    restored = provider.promote(provider.start(provider.plan(before_damage(world)), quiet).ref)
    wanted = capture(world.server.endpoint)

    def admit(through: BarmanCloud) -> str:
        service = through.admit(
            restored.ref, wanted, archive=None, base_backups=None, supervisor=None, allowed={}
        )
        assert service.unprotected_since is None
        assert service.archived_segment == segment_name(2, int(service.archived_segment[16:], 16))
        return service.base_backup

    assert provider.check(before_damage(world)) == []
    taken = {**changes, "new_url": lab.clone("taken").url, "new_server": SERVER}
    early = opened(lab, world.site("early"), **taken).check(before_damage(world))
    assert [finding.code for finding in early] == ["RB313"]
    absent = opened(lab, world.site("early"), **{**changes, "new_credentials": world.home / "absent.ini"})
    assert "credentials" in f"{only(absent.check(before_damage(world))).where}".lower()
    with pytest.raises(ProviderError) as filled:
        admit(opened(lab, site, **taken))
    with pytest.raises(ConfigError) as own:
        admit(opened(lab, site, **{**taken, "new_url": None}))
    assert (filled.value.code, own.value.code) == ("RB313", "RB105")

    reader = world.home / "of-the-server.ini"
    reader.write_text((world.home / "reader.ini").read_text())
    reader.chmod(0o600)
    world.server.binaries.own(reader)
    with pytest.raises(ProviderError) as unwritable:
        admit(opened(lab, site, **{**changes, "new_credentials": reader}))
    assert (unwritable.value.code, "AccessDenied" in unwritable.value.where) == ("RB313", True)
    assert any("credentials" in hint for hint in unwritable.value.hints)
    assert not [finding for finding in provider.isolation(restored.ref) if not finding.holds]
    assert list(lab.s3.walk("new")) == []

    waited = recycle_first(monkeypatch)
    backup = admit(provider)
    assert len(waited) == 2
    assert admit(provider) == backup
    with connect(restored.ref.endpoint) as session:
        command = session.value("SELECT current_setting('archive_command')")
    assert str(credentials) in command
    assert WRITER.secret not in command

    new = opened(
        lab, world.site("new-place-run", timeline=2), url=ObjectUrl(BUCKET, "new"), server="restored"
    )
    plan = new.plan(Target(kind=TargetKind.SNAPSHOT, value=backup))
    try:
        assert rows(new.start(plan, quiet).ref) == ALL_ROWS
    finally:
        new.discard(plan.instance)
