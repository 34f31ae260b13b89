"""
What is special to the provider `walg`: statuses, secrets, records, a prefix for the copy.

Real data behind a simulator of WAL-G, which is held to WAL-G's documentation here as well.
"""

import gzip
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.command import CommandResult, run
from fixtures.drill.archiving.walg import seal
from fixtures.errors import ConfigError, ProviderError, ToolError
from fixtures.evidence import redact
from fixtures.postgres.session import connect
from fixtures.production.capture import capture
from fixtures.providers.base import InstanceRef, ServiceEndpoint, Target, TargetKind
from fixtures.providers.local.instance import Instance
from fixtures.providers.walg.backend import NEVER_EXECUTED, WalG
from fixtures.providers.walg.tool import Tool
from fixtures.settings import WalGProvider
from tests.real.lab import Lab
from tests.real.recycling import recycle_first
from tests.real.restore_labs import embedded
from tests.real.restore_world import ROWS, World, production
from tests.real.walg_lab import WalGLab

KEY = "simulated-libsodium-key"
NEW_KEY = "simulated-libsodium-key-of-the-new-prefix"
#: fields of a segment's first page: format and offset
TIMELINE, POSITION, CLUSTER = "4xI", "8xQ", "24xQ"
NEWEST = Target(kind=TargetKind.LATEST)


@pytest.fixture(scope="module")
def world(public_dir: Path) -> Iterator[World]:
    """Production after the damage, with a storage."""
    with production(public_dir, WalGLab, embedded(public_dir)) as made:
        yield made


def storage(world: World, name: str) -> WalGLab:
    """A copy of the storage, to be harmed."""
    lab = world.lab.clone(name)
    assert isinstance(lab, WalGLab)
    return lab


def before_damage(world: World) -> Target:
    return Target(kind=TargetKind.XID, value=str(world.damage.xid), exclusive=True)


def forge(lab: WalGLab, segment: str, field: str, value: int) -> None:
    """Write a field of a stored segment's first page over."""
    path = lab.segment(segment)
    content = bytearray(gzip.decompress(path.read_bytes()))
    skipped, letter = field.split("x")
    struct.pack_into(f"<{letter}", content, int(skipped), value)
    path.write_bytes(gzip.compress(content, 1))


def codes(world: World, lab: WalGLab, name: str) -> list[str]:
    """Codes of all findings against the usual target."""
    return [finding.code for finding in world.provider(name, lab=lab).check(before_damage(world))]


def test_the_plan_says_that_it_was_never_executed(world: World) -> None:
    """Whoever reads a plan learns how far the provider was tested, and sees the commands."""
    commands = world.provider("plan").plan(before_damage(world)).commands

    assert commands[0] == NEVER_EXECUTED
    assert "never executed" in commands[0]
    assert "backup-fetch" in commands[1]


def test_positions_are_whole_numbers(world: World) -> None:
    """WAL-G writes positions as decimal integers."""
    lab = storage(world, "numbers")
    (detail,) = (json.loads(path.read_text()) for path in lab.backups.glob("*/metadata.json"))

    (backup,) = world.provider("numbers", lab=lab).window().base_backups

    assert (backup.start_lsn.value, backup.stop_lsn.value) == (detail["start_lsn"], detail["finish_lsn"])
    assert backup.major == world.server.binaries.major
    assert backup.timeline == 1


def test_the_restore_command_knows_what_is_not_there_from_what_failed(world: World) -> None:
    """74 becomes 1 while the storage answers; every other failure becomes 255, which stops the server."""
    lab = storage(world, "statuses")
    provider = world.provider("statuses", lab=lab)
    plan = provider.plan(Target(kind=TargetKind.LATEST))
    restored = provider.start(plan, lambda _: None)
    instance = Instance.of(provider._site, restored.ref)
    target = instance.folder.root / "segment"

    def ask(name: str) -> int:
        argv = ["/bin/sh", instance.folder.script, name, target]
        return run(argv, timeout_s=20, check=False, user=world.server.binaries.user).returncode

    first, second = world.commits[0].segment, world.commits[1].segment
    try:
        assert ask(first) == 0
        assert target.stat().st_size == 16 * 1024 * 1024
        assert ask(second) == 0
        for at, value in ((POSITION, 0), (CLUSTER, 1)):
            forge(lab, second, at, value)
            assert ask(second) == 255
        assert ask("0000000100000000000000FF") == 1
        assert ask("00000002.history") == 1
        lab.cut(first)
        assert ask(first) == 255
        assert not target.with_name("segment.part").exists()
        lab.lose(first)
        assert ask(first) == 1
        lab.hide()
        assert ask("0000000100000000000000FF") == 255
        lab.show()
    finally:
        provider.discard(plan.instance)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (POSITION, 0, "its first page is of 0/0"),
        (CLUSTER, 1, "it is of the cluster 1"),
        (TIMELINE, 9, "of timeline 9"),
    ],
    ids=["position", "cluster", "timeline"],
)
def test_a_segment_that_is_not_what_its_name_says_is_refused(
    world: World, at: str, value: int, said: str
) -> None:
    """WAL-G proves no segment: two clusters that share a prefix would be mixed without a word."""
    lab = storage(world, f"forged{value}")
    forge(lab, world.commits[1].segment, at, value)

    found = {
        each.code: each.fact for each in world.provider(f"forged{value}", lab=lab).check(before_damage(world))
    }

    assert said in found["RB302"]


def test_a_partial_segment_does_not_count(world: World) -> None:
    """An old primary's last one says nothing that the new timeline's first one does not; WAL-G lists it nowhere."""
    lab = storage(world, "partial")
    last = max(lab.log.glob("00000001*.gz"))
    behind = lab.log / f"{last.name.removesuffix('.gz')[:-1]}F.partial.gz"
    behind.write_bytes(last.read_bytes())
    provider, known = world.provider("partial", lab=lab), world.provider("known")

    assert provider.plan(NEWEST).wal_bytes == known.plan(NEWEST).wal_bytes
    assert provider.check(before_damage(world)) == []


def test_a_secret_goes_by_environment_and_is_never_shown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its key the storage is refused by name; with it the copy is restored, and nothing prints it."""
    lab = storage(world, "sealed")
    seal(lab.place, KEY, world.server.binaries)
    assert codes(world, lab, "sealed") == ["RB309"]

    monkeypatch.setenv("WALG_LIBSODIUM_KEY", KEY)
    settings = WalGProvider(program=str(lab.program), config=lab.config, env=("WALG_LIBSODIUM_KEY",))
    provider = WalG(settings, world.site("sealed"))
    plan = provider.plan(before_damage(world))
    try:
        restored = provider.start(plan, lambda _: None)

        assert restored.paused
        assert KEY not in " ".join(plan.commands)
        assert KEY not in Instance.of(provider._site, restored.ref).folder.script.read_text()
        assert KEY not in redact(f"it is {KEY}")
    finally:
        provider.discard(plan.instance)


def test_tablespaces_are_refused_before_anything_is_fetched(world: World) -> None:
    """WAL-G would write them where production's own are."""
    lab = storage(world, "spaces")
    where = str(world.home / "space")
    lab.record(
        Spec={"base_prefix": str(world.server.data), "tablespaces": ["16400"],
              "16400": {"loc": where, "link": "pg_tblspc/16400"}}
    )  # fmt: skip
    assert codes(world, lab, "spaces") == ["RB108"]
    provider = world.provider("spaces", lab=lab)
    plan = provider.plan(before_damage(world))

    for attempt in (lambda: provider.prefetch(plan), lambda: provider.start(plan, lambda _: None)):
        with pytest.raises(ProviderError) as error:
            attempt()
        assert error.value.code == "RB108"

    assert not Instance.of(provider._site, plan.instance).folder.partial.exists()
    provider.discard(plan.instance)


def test_an_increment_without_its_base_is_refused(world: World) -> None:
    """What a backup builds on is looked for in the storage, not in the catalogue."""
    lab = storage(world, "increment")
    lab.record(DeltaFrom="base_000000010000000000000001", DeltaCount=1)

    assert codes(world, lab, "increment") == ["RB301"]


def test_a_storage_of_another_cluster_and_an_empty_one_are_told_apart(world: World) -> None:
    """A wrong prefix is named as such; an empty folder is not a cluster without backups."""
    assert [
        finding.code for finding in world.provider("other", system_identifier="1").check(before_damage(world))
    ] == ["RB305"]

    lab = storage(world, "empty")
    lab.hide()
    assert codes(world, lab, "empty") == ["RB309"]
    lab.place.rmdir()
    assert codes(world, lab, "gone") == ["RB309"]


def test_a_backup_that_does_not_unpack_is_told_from_a_storage_that_went_away(world: World) -> None:
    """Every failure of backup-fetch has status 1: the storage is asked which it was."""
    lab = storage(world, "broken")
    lab.damage_backup()
    provider = world.provider("broken", lab=lab)
    plan = provider.plan(before_damage(world))

    with pytest.raises(ProviderError) as error:
        provider.start(plan, lambda _: None)

    assert error.value.code == "RB301"
    assert "Failed to fetch backup" in error.value.where
    provider.discard(plan.instance)


@pytest.mark.parametrize(
    ("said", "refused"), [("wal-g version v2.0.1", True), ("wal-g version 3.0.9", False)]
)
def test_an_old_program_is_refused(world: World, tmp_path: Path, said: str, refused: bool) -> None:
    """Its answers are others; a program that is missing is named."""
    program = tmp_path / "wal-g"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    tool = Tool(settings=WalGProvider(program=str(program)), user=None, segment_bytes=16 * 1024**2)

    if refused:
        with pytest.raises(ToolError) as error:
            tool.prove_version()
        assert error.value.code == "RB109"
    else:
        tool.prove_version()
    absent = WalG(WalGProvider(program="no-such-wal-g"), world.site("absent"))
    assert [each.code for each in absent.check(before_damage(world))] == ["RB109"]


def test_another_segment_size_is_told() -> None:
    """WAL-G reckons with 16 MB unless its environment says otherwise."""
    tool = Tool(settings=WalGProvider(), user=None, segment_bytes=64 * 1024**2)

    assert tool.env() == {"WALG_PG_WAL_SIZE": "64"}
    assert replace(tool, segment_bytes=16 * 1024**2).env() == {}


@pytest.mark.parametrize(
    "text",
    ['{"WALG_FILE_PREFIX": "/srv/backups"}', 'WALG_FILE_PREFIX: "/srv/backups"\n', "WALG_FILE_PREFIX=/srv/backups\n",
     '{"WALG_FILE_PREFIX":"file://localhost/srv/backups"}'],
    ids=["json", "yaml", "env", "url"],
)  # fmt: skip
def test_a_storage_on_this_machine_is_known_as_productions(tmp_path: Path, text: str) -> None:
    """No copy is restored into it, whatever the configuration file's format."""
    config = tmp_path / "walg"
    config.write_text(text)

    assert Tool(
        settings=WalGProvider(config=config), user=None, segment_bytes=16 * 1024**2
    ).local_path() == Path("/srv/backups")
    config.write_text('{"WALG_S3_PREFIX": "s3://bucket/prefix"}')
    assert Tool(settings=WalGProvider(config=config), user=None, segment_bytes=1).local_path() is None


# -- a prefix for the copy ----------------------------------------------------------------------------


def new_prefix(world: World, name: str) -> WalGLab:
    """An empty, sealed storage, whose key stands in its configuration file."""
    made = replace(world.lab, place=world.home / name)
    assert isinstance(made, WalGLab)
    made.place.mkdir()
    world.server.binaries.own(made.place)
    made.config.write_text(json.dumps({"WALG_FILE_PREFIX": str(made.place), "WALG_LIBSODIUM_KEY": NEW_KEY}))
    made.config.chmod(0o644)
    seal(made.place, NEW_KEY, world.server.binaries)
    return made


def admit(provider: WalG, ref: InstanceRef, world: World) -> ServiceEndpoint:
    """Commission it, with no folder at all."""
    return provider.admit(
        ref, capture(world.server.endpoint), archive=None, base_backups=None, supervisor=None, allowed={}
    )


def environment(ref: InstanceRef) -> str:
    """What a server was started with."""
    pid = (Path(ref.name) / "postmaster.pid").read_text().splitlines()[0]
    return Path(f"/proc/{pid}/environ").read_text()


def test_the_copy_gets_a_prefix_of_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused until it is one; then archived, read back, backed up without production's key, and restored from."""
    lab, new = storage(world, "sealed-production"), new_prefix(world, "new")
    seal(lab.place, KEY, world.server.binaries)
    monkeypatch.setenv("WALG_LIBSODIUM_KEY", KEY)
    settings = WalGProvider(
        program=str(lab.program), config=lab.config, env=("WALG_LIBSODIUM_KEY",), new_config=new.config
    )
    provider = WalG(settings, world.site("prefix"))
    assert provider.check(before_damage(world)) == []
    plan = provider.plan(before_damage(world))
    try:
        restored = provider.promote(provider.start(plan, lambda _: None).ref)
        assert KEY in environment(restored.ref)
        (new.place / "somebodys").mkdir()
        with pytest.raises(ProviderError, match="is not new"):
            admit(provider, restored.ref, world)
        (new.place / "somebodys").rmdir()
        new.place.chmod(0o500)
        with pytest.raises(ProviderError, match="could not be archived") as error:
            admit(provider, restored.ref, world)
        assert (error.value.code, "could not Upload" in error.value.where) == ("RB313", True)
        assert KEY in environment(restored.ref)  # nothing of the copy has changed by then
        elsewhere = new_prefix(world, "elsewhere")
        (elsewhere.place / "somebodys").mkdir()
        moved = WalG(settings.model_copy(update={"new_config": elsewhere.config}), provider._site)
        with pytest.raises(ProviderError, match="is not new"):
            admit(moved, restored.ref, world)
        new.place.chmod(0o700)
        waited = recycle_first(monkeypatch)

        service = admit(provider, restored.ref, world)

        assert (len(waited), service.archived_segment) == (2, waited[-1])
        assert (service.durable, service.unprotected_since) == (True, None)
        assert any("schedule its backups" in line for line in service.allowed)
        assert KEY not in environment(restored.ref)
        assert admit(provider, restored.ref, world) == service
        assert provider.check(before_damage(world)) == []  # there is something now, and it is this run's
        assert not list(lab.log.glob("00000002*"))
        with connect(restored.ref.endpoint) as session:
            session.do("INSERT INTO public.t VALUES (50, 'served')")

        monkeypatch.delenv("WALG_LIBSODIUM_KEY")
        again = WalG(
            WalGProvider(program=str(lab.program), config=new.config),
            world.site("prefix-2", timeline=restored.timeline),
        )
        second = again.plan(Target(kind=TargetKind.SNAPSHOT, value=service.base_backup))
        try:
            with connect(again.start(second, lambda _: None).ref.endpoint) as session:
                found = [row for (row,) in session.rows("SELECT id FROM public.t ORDER BY id")]
            assert found == list(range(ROWS + 1))
        finally:
            again.discard(second.instance)

        (record,) = new.backups.glob("*/metadata.json")
        record.write_text(json.dumps({**json.loads(record.read_text()), "system_identifier": 1}))
        protection = provider._store.protection()
        assert protection is not None
        with pytest.raises(ProviderError, match="another cluster") as error:
            protection.first_backup(Instance.of(provider._site, restored.ref))
        assert error.value.code == "RB313"

        provider.isolate(restored.ref)

        assert not [finding for finding in provider.isolation(restored.ref) if not finding.holds]
    finally:
        provider.discard(plan.instance)


def test_a_prefix_of_somebody_is_not_taken(world: World) -> None:
    """Neither production's own, nor one that holds anything, nor one that cannot be read."""
    lab, new = storage(world, "not-taken"), new_prefix(world, "taken")
    settings = WalGProvider(program=str(lab.program), config=lab.config, new_config=lab.config)
    with pytest.raises(ConfigError, match="production's own") as own:
        WalG(settings, world.site("own"))._store.protection()
    assert own.value.code == "RB105"
    provider = WalG(settings.model_copy(update={"new_config": new.config}), world.site("somebodys"))
    seal(new.place, "another key", world.server.binaries)
    (refused,) = provider.check(before_damage(world))
    assert (refused.code, "invalid key" in refused.where) == ("RB313", True)
    seal(new.place, NEW_KEY, world.server.binaries)
    (new.place / "somebodys").mkdir()

    (refused,) = provider.check(before_damage(world))

    assert (refused.code, "is not new" in refused.fact) == ("RB313", True)


# -- the simulator ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("backup-list", "--detail", "--json", "--verbose"), "unknown flag: --verbose"),
        (("wal-fetch", "000000010000000000000001"), "arg(s), received 1"),
        (("st", "rm", "wal_005"), 'unknown command "st rm"'),
        (("backup-push", "/", "--full"), "is not the same as Postgres' one"),
    ],
    ids=["option", "arguments", "command", "directory"],
)
def test_the_simulator_refuses_what_wal_g_refuses(world: World, words: tuple[str, ...], said: str) -> None:
    """A command line that WAL-G would not take is not let pass here."""
    done = wal_g(world.lab, *words, host=str(world.server.sockets), port=str(world.server.port))

    assert (done.returncode, said in done.stderr) == (1, True), done.stderr


def test_the_simulator_replaces_nothing_that_wal_g_keeps(world: World) -> None:
    """The same file again is a success; another one of its name is refused: a history always, a segment where told."""
    lab = storage(world, "kept-once")
    first, history = lab.home / world.commits[0].segment, lab.home / "00000009.history"
    first.write_bytes(b"another")
    history.write_text("1\t0/1000000\tone\n")
    assert wal_g(lab, "wal-push", str(history)).returncode == 0
    assert wal_g(lab, "wal-push", str(history)).returncode == 0
    history.write_text("1\t0/2000000\tanother\n")
    assert "contents differ" in wal_g(lab, "wal-push", str(history)).stderr
    lab.config.write_text(
        json.dumps({"WALG_FILE_PREFIX": str(lab.place), "WALG_PREVENT_WAL_OVERWRITE": "true"})
    )

    assert "contents differ" in wal_g(lab, "wal-push", str(first)).stderr


def wal_g(lab: Lab, *words: str, host: str = "", port: str = "") -> CommandResult:
    """Run the simulator as the server's user."""
    assert isinstance(lab, WalGLab)
    env = {"PGHOST": host, "PGPORT": port, "PGUSER": "postgres"} if host else {}
    argv = [lab.program, *words, f"--config={lab.config}"]
    return run(argv, timeout_s=30, check=False, user=lab.server.binaries.user, env=env)


def test_a_token_that_expires_is_an_outage_wherever_it_does(world: World) -> None:
    """Before the run, in the copy, in the replay, before the promotion: loud, with what to do; and it goes on."""
    lab = storage(world, "token")
    provider = world.provider("token", lab=lab)
    plan = provider.plan(before_damage(world))
    assert plan.backup is not None
    instance = Instance.of(provider._site, plan.instance)

    def stopped(act: Callable[[], object], *, answers: bool = False) -> None:
        with pytest.raises(ProviderError) as error:
            act()
        assert error.value.code == "RB309"
        assert any("log in again" in hint for hint in error.value.hints)
        assert instance.answers() == answers
        assert "archive recovery complete" not in instance.log_text()
        for name in (".expires", ".expired"):
            (lab.place / name).unlink(missing_ok=True)

    try:
        (lab.place / ".expired").touch()
        (finding,) = world.provider("asks", lab=lab).check(before_damage(world))
        assert (finding.code, "ExpiredToken" in finding.fact) == ("RB309", True)
        stopped(lambda: provider.start(plan, lambda _: None))

        for name in (plan.backup.id, world.commits[2].segment):
            (lab.place / ".expires").write_text(name)
            stopped(lambda: provider.start(plan, lambda _: None))

        restored = provider.start(plan, lambda _: None)
        (lab.place / ".expired").touch()
        stopped(lambda: provider.promote(restored.ref), answers=True)
        assert provider.promote(restored.ref).timeline == 2
    finally:
        provider.discard(plan.instance)
