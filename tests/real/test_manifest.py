"""The integrity manifest: taken at an exact moment, equal to a restore to it, and right about what is frozen."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from fixtures.attest import main
from fixtures.checks import Subject, content, take_references
from fixtures.checks.exact import IntegrityManifest, manifests_in, read_manifest, write_manifest
from fixtures.checks.taking import take_manifest
from fixtures.command import run, wait_for
from fixtures.errors import ExitCode, RunbookError
from fixtures.evidence import Check, Verdict, keyed_hash
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.server import Server
from fixtures.postgres.session import Endpoint, connect
from fixtures.providers.base import Target, TargetKind
from fixtures.settings import Database, Heartbeat
from tests.real.checks_lab import QUICK, examined, place, running, script

SHOP = Database(
    name="shop", critical_tables=("users", "stamps"), append_only_tables=("stamps",),
    personal_columns=("public.users.id",), heartbeat=Heartbeat(table="public.beat"),
)  # fmt: skip
SCHEMA = """
CREATE TABLE users (id serial PRIMARY KEY, email text NOT NULL UNIQUE, balance numeric);
CREATE TABLE stamps (id bigserial PRIMARY KEY, user_id int REFERENCES users, note text);
CREATE TABLE beat (at timestamptz);
CREATE TABLE parted (id int, at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2024-01-01') TO ('2030-01-01');
INSERT INTO users (email, balance) SELECT 'u' || i, i / 4.0 FROM generate_series(1, 300) i;
INSERT INTO stamps (user_id, note) SELECT 1 + i % 300, 'n' || i FROM generate_series(1, 1000) i;
INSERT INTO parted SELECT i, date '2025-01-01' + i FROM generate_series(1, 200) i;
INSERT INTO beat VALUES (clock_timestamp());
"""


@dataclass(frozen=True, kw_only=True)
class World:
    """A production that goes on after two manifests, and a copy restored to the exact one's moment."""

    production: Server
    archive: Path
    exact: IntegrityManifest
    fuzzy: IntegrityManifest
    subject: Subject


@pytest.fixture(scope="module")
def world(public_dir: Path, binaries: Binaries) -> Iterator[World]:
    """Take an exact manifest in a quiet moment and a fuzzy one beside a running transaction; restore."""
    production, restored = place(public_dir, binaries, "prod"), place(public_dir, binaries, "copy")
    archive = production.data.parent / "archive"
    archive.mkdir()
    binaries.own(archive)
    production.initdb()
    archiving = {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f"}
    try:
        with running(production, {**QUICK, **archiving}):
            script(production.endpoint, "CREATE DATABASE shop")
            script(production.endpoint.on("shop"), SCHEMA)
            argv = [binaries.tool("pg_basebackup"), "-D", restored.data, "-X", "fetch", "-c", "fast"]
            run(argv, timeout_s=60, user=binaries.user, env=production.endpoint.environment())
            script(production.endpoint.on("shop"), "INSERT INTO stamps (user_id) VALUES (1)")
            exact = take_manifest(production.endpoint, (SHOP,), jobs=2, wait_s=20)
            fuzzy = taken_beside_a_transaction(production.endpoint)
            script(
                production.endpoint.on("shop"), "UPDATE users SET balance = 0 WHERE id < 5",
                "INSERT INTO stamps (user_id) SELECT 2 FROM generate_series(1, 50)", "SELECT pg_switch_wal()",
            )  # fmt: skip
            with connect(production.endpoint) as session:
                wait_for(
                    lambda: session.value("SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 16777216)"
                                          " FROM pg_stat_archiver"),
                    timeout_s=30, what="the log is archived",
                )  # fmt: skip
            yield from restored_world(production, restored, archive, exact, fuzzy)
    finally:
        shutil.rmtree(production.data.parent)
        shutil.rmtree(restored.data.parent)


def taken_beside_a_transaction(endpoint: Endpoint) -> IntegrityManifest:
    """Take a manifest while a transaction holds a low key that it will commit later."""
    with psycopg.connect(endpoint.on("shop").conninfo()) as other:
        other.execute("INSERT INTO public.stamps (user_id, note) VALUES (3, 'committed late')")
        with other.transaction():  # a subtransaction's id is in no list of running transactions
            other.execute("INSERT INTO public.stamps (user_id, note) VALUES (3, 'in a subtransaction')")
        script(endpoint.on("shop"), "INSERT INTO stamps (user_id) VALUES (4)")
        return take_manifest(endpoint, (SHOP,), jobs=2, wait_s=0.3)


def restored_world(
    production: Server, restored: Server, archive: Path, exact: IntegrityManifest, fuzzy: IntegrityManifest
) -> Iterator[World]:
    """Replay to the exact manifest's moment, promote, take references."""
    (restored.data / "recovery.signal").touch()
    restored.binaries.own(restored.data / "recovery.signal")
    target = {
        "restore_command": f"cp {archive}/%f %p", "recovery_target_name": exact.restore_point, "archive_mode": "off",
        "recovery_target_action": "promote", "recovery_target_timeline": "1",
    }  # fmt: skip
    with running(restored, {**QUICK, **target}):
        with connect(restored.endpoint) as session:
            wait_for(
                lambda: not session.value("SELECT pg_is_in_recovery()"), timeout_s=30, what="the copy is open"
            )
        subject = replace(
            examined(restored, SHOP), target=Target(kind=TargetKind.NAME, value=exact.restore_point), manifest=exact,
            references=take_references(restored.endpoint, (SHOP,)),
        )  # fmt: skip
        yield World(production=production, archive=archive, exact=exact, fuzzy=fuzzy, subject=subject)


def of_manifest(subject: Subject) -> dict[str, Check]:
    """Return the answers that come from the manifest, by the middle of their id."""
    return {
        each.id.partition(":")[0].removeprefix("content."): each
        for each in content.check(subject)
        if "manifest" in each.source
    }


def test_a_quiet_moment_of_a_primary_is_exact(world: World) -> None:
    """It names a restore point; a running transaction makes it fuzzy, with nothing to restore to."""
    assert (world.exact.exactness, world.exact.target) == (
        "quiet primary", f"--target-name={world.exact.restore_point}",
    )  # fmt: skip
    assert (world.fuzzy.exactness, world.fuzzy.target) == ("fuzzy", "")
    assert world.exact.databases["shop"].tables["public.stamps"].rows == 1001
    assert world.exact.databases["shop"].heartbeat is not None


def test_a_restore_to_its_moment_equals_it_in_everything(world: World) -> None:
    """Tables, objects, roles and sequences are compared, and each verdict says with what."""
    answers = of_manifest(world.subject)
    assert {name: each.verdict for name, each in answers.items()} == {
        "manifest": Verdict.PASS, "manifest_structure": Verdict.PASS, "manifest_sequences": Verdict.PASS,
    }, answers  # fmt: skip
    assert answers["manifest"].actual == "4 tables equal"
    assert "exact, quiet primary" in answers["manifest"].source


def test_a_changed_row_is_named_by_the_manifest_alone(world: World) -> None:
    """One changed row: its key, unless the key is personal; several rows: no key."""
    endpoint = world.subject.restored.on("shop")

    def told(change: str, back: str) -> str:
        script(endpoint, change)
        references = take_references(world.subject.restored, (SHOP,))
        check = of_manifest(replace(world.subject, references=references))["manifest"]
        script(endpoint, back)
        assert check.verdict is Verdict.FAIL
        return check.actual

    note = "UPDATE stamps SET note = '{}' WHERE id IN ({})"
    assert told(note.format("x", 777), note.format("n777", 777)).endswith(
        "(same number of rows, the row with id = 777)"
    )
    lost = told(
        "DELETE FROM stamps WHERE id = 12", "INSERT INTO stamps (id, user_id, note) VALUES (12, 13, 'n12')"
    )
    assert lost.endswith("(1001 rows, now 1000, the row with id = 12)")
    swap = "UPDATE stamps SET note = 'n' || {} WHERE id IN (5, 6)"
    assert "more than one row" in told(swap.format("(11 - id)"), swap.format("id"))
    users = "UPDATE users SET balance = {} WHERE id = 40"
    assert told(users.format("10.00"), users.format("40 / 4.0")).endswith(
        f"public.users (same number of rows, the row with id sealed {keyed_hash('40')})"
    )
    assert {each.verdict for each in of_manifest(world.subject).values()} == {Verdict.PASS}


def test_a_changed_object_or_sequence_differs(world: World) -> None:
    """A lost index, a lost grant and a sequence set back fire."""
    endpoint = world.subject.restored.on("shop")
    script(
        endpoint,
        "DROP INDEX IF EXISTS nothing",
        "GRANT SELECT ON users TO PUBLIC",
        "SELECT setval('users_id_seq', 7)",
    )
    references = take_references(world.subject.restored, (SHOP,))
    answers = of_manifest(replace(world.subject, references=references))
    script(endpoint, "REVOKE SELECT ON users FROM PUBLIC", "SELECT setval('users_id_seq', 300)")
    assert answers["manifest_structure"].verdict is Verdict.FAIL
    assert "public.users" in answers["manifest_structure"].actual
    assert answers["manifest_sequences"].verdict is Verdict.FAIL


def test_after_the_manifest_only_the_frozen_rows_are_compared(world: World) -> None:
    """Rows committed later under an earlier key, also by a subtransaction, are told apart; a lost row fires."""
    later = replace(examined(world.production, SHOP), manifest=world.fuzzy)
    answers = of_manifest(later)
    assert list(answers) == ["frozen"]
    assert answers["frozen"].verdict is Verdict.PASS, answers["frozen"]
    assert "public.stamps" in answers["frozen"].reason
    assert "fuzzy" in answers["frozen"].source
    before = world.fuzzy.databases["shop"].settled["public.stamps"].rows
    with connect(world.production.endpoint.on("shop")) as session:
        assert session.value("SELECT count(*) FROM public.stamps") > before
    script(world.production.endpoint.on("shop"), "DELETE FROM stamps WHERE id = 500")
    assert of_manifest(later)["frozen"].verdict is Verdict.FAIL
    nothing = SHOP.model_copy(update={"append_only_tables": ()})
    bare = replace(world.exact.databases["shop"], settled={})
    subject = replace(later, databases=(nothing,), manifest=replace(world.exact, databases={"shop": bare}))
    assert of_manifest(subject)["frozen"].verdict is Verdict.COULD_NOT_VERIFY


def test_without_a_manifest_nothing_passes(world: World) -> None:
    """None kept is not configured; none that fits says why; neither stops a restore."""
    none = replace(world.subject, manifest=None)
    assert of_manifest(none)["manifest"].verdict is Verdict.NOT_CONFIGURED
    why = of_manifest(replace(none, without_manifest="none lies before the target"))["manifest"]
    assert (why.verdict, why.stops) == (Verdict.COULD_NOT_VERIFY, False)


def test_a_standby_is_paused_for_a_moment_only(world: World, public_dir: Path, binaries: Binaries) -> None:
    """Its manifest is exact at its replay position; replay goes on, and a pause of somebody else's stays."""
    standby = place(public_dir, binaries, "stb")
    argv = [binaries.tool("pg_basebackup"), "-D", standby.data, "-X", "fetch", "-c", "fast"]
    run(argv, timeout_s=60, user=binaries.user, env=world.production.endpoint.environment())
    (standby.data / "standby.signal").touch()
    binaries.own(standby.data / "standby.signal")
    settings = {
        **QUICK,
        "restore_command": f"cp {world.archive}/%f %p",
        "hot_standby": "on",
        "archive_mode": "off",
    }
    try:
        with running(standby, settings), connect(standby.endpoint) as session:
            manifest = take_manifest(standby.endpoint, (SHOP,), jobs=2, wait_s=1)
            assert session.value("SELECT pg_get_wal_replay_pause_state()") == "not paused"
            assert (manifest.exactness, manifest.restore_point) == ("standby", "")
            assert manifest.target == f"--target-lsn={manifest.position} --exclusive"
            assert manifest.is_at(Target(kind=TargetKind.LSN, value=manifest.position, exclusive=True))
            session.rows("SELECT pg_wal_replay_pause()")
            take_manifest(standby.endpoint, (SHOP,), jobs=1, wait_s=1)
            assert session.value("SELECT pg_get_wal_replay_pause_state()") == "paused"
    finally:
        shutil.rmtree(standby.data.parent)


def test_a_manifest_that_was_changed_is_not_read(world: World, tmp_path: Path) -> None:
    """Written whole and never over another; one changed character is noticed."""
    path = write_manifest(world.exact, tmp_path)
    assert read_manifest(path) == world.exact
    assert list(manifests_in(tmp_path)) == [path]
    with pytest.raises(RunbookError, match="RB506"):
        write_manifest(world.exact, tmp_path)
    path.write_text(path.read_text().replace('"rows": 1001', '"rows": 1002'))
    with pytest.raises(RunbookError, match=r"RB506 .*digest"):
        read_manifest(path)
    assert "u1" not in path.read_text().replace("public", "")


def test_the_command_takes_signs_and_says_where(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One command takes one with the incident's configuration and signs it."""
    from fixtures.signatures import check_signature

    example = Path("reports/templates/example.toml").read_text()
    config = tmp_path / "production.toml"
    changes = {
        'name = "stampcard"\ncritical': 'name = "shop"\ncritical', "public.rewards": "public.beat",
        "public.heartbeat": "public.beat", 'password_env = "STAMPCARD_ADMIN': '#password_env = "STAMPCARD_ADMIN',
    }  # fmt: skip
    for old, new in changes.items():
        example = example.replace(old, new)
    config.write_text(example)
    key = tmp_path / "key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], timeout_s=20)
    dsn = f"host={world.production.sockets} port={world.production.port} user=postgres dbname=postgres"
    code = main([f"--config={config}", f"--dsn={dsn}", f"--out={tmp_path}", f"--sign={key}", "--wait=20s"])
    said = capsys.readouterr()
    assert code == ExitCode.SERVED, said.err
    path = Path(said.out.splitlines()[0])
    assert read_manifest(path).system_identifier == world.exact.system_identifier
    signers = tmp_path / "signers"
    signers.write_text(f"dba {key.with_suffix('.pub').read_text()}")
    assert check_signature(path, allowed_signers=signers, signer="dba") == []
    assert check_signature(path, allowed_signers=signers, signer="eve") != []
