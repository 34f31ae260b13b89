"""
The outside audit fires for each broken promise, and is quiet when all are kept.

The restore is done by hand here, with PostgreSQL's own means: nothing of the runbook takes part. The
tests stand in the order of what they leave behind.
"""

import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import LiteralString

import httpx
import pytest
from psycopg import sql

from fixtures.app.switches import turn_off, turn_on
from fixtures.command import wait_for
from fixtures.config import load_config
from fixtures.drill import audit_served, schema
from fixtures.drill.audit import audit_rollback, audit_world
from fixtures.drill.audit_production import (
    archive_untouched,
    closed_to_application,
    nothing_changed_after_lock,
    nothing_removed_since_damage,
)
from fixtures.drill.audit_served import ServedAudit
from fixtures.drill.bindings import ROOT
from fixtures.drill.cluster import Places, archive_command
from fixtures.drill.content import CARDS
from fixtures.drill.record import end_world
from fixtures.drill.verdicts import ask
from fixtures.drill.witness import OPEN, TABLES, Ack, last_closing, read_doors
from fixtures.drill.world import World, build_world
from fixtures.evidence import Check, Verdict
from fixtures.postgres.lsn import Lsn
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import Endpoint, Session, connect, qualified
from fixtures.settings import Embedded, Settings

SMALL = Embedded(users=60, warmup=timedelta(seconds=0.4), writers=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A restore done by hand."""

    world: World
    settings: Settings
    copy: Server
    lock_lsn: Lsn
    pack: Path

    @property
    def served(self) -> Endpoint:
        """The superuser on the restored database."""
        return self.copy.endpoint.on(schema.DATABASE)

    @property
    def audit(self) -> ServedAudit:
        """The audit's questions."""
        world = self.world
        return ServedAudit(
            world=world, target_at=world.damage.at, exclusive=True, served=self.served,
            old=world.production, packs=(self.pack,),
        )  # fmt: skip

    def all(self) -> tuple[Check, ...]:
        """The whole audit."""
        return audit_world(
            self.world, target_at=self.world.damage.at, exclusive=True, lock_lsn=self.lock_lsn,
            served=self.served, old=self.world.production, packs=[self.pack],
        )  # fmt: skip


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restored]:
    """A world, restored to before its damage by hand, and served."""
    record = tmp_path_factory.mktemp("run") / "world.json"
    world = build_world(
        run_id="20251005T123400Z-abcd", folder=Path(f"/tmp/rrb-{uuid.uuid4().hex[:6]}"), record=record,  # noqa: S108
        shape=SMALL, seed=11, scale=1.0, disaster="delete", progress=lambda _: None,
    )  # fmt: skip
    try:
        yield restore(world)
    finally:
        end_world(record)


def restore(world: World) -> Restored:
    settings = load_config(ROOT / "runbook.toml", bindings=world.bindings()).settings
    turn_on(settings.app.maintenance)
    wait_for(
        lambda: last_closing(read_doors(world.witness)) is not None, timeout_s=20, what="the door closes"
    )
    for worker in settings.app.workers:
        turn_on(worker.pause)
    with connect(world.production) as session:
        wait_for(lambda: quiet(session), timeout_s=20, what="the application's transactions end")
        lock_lsn = Lsn.parse(session.value("SELECT pg_current_wal_insert_lsn()::text"))
        session.do("ALTER ROLE stampcard_app NOLOGIN")
        session.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'stampcard_app'")
        segment = session.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
        session.value("SELECT pg_switch_wal()")
        pack = world.folder / "pack"
        write_pack(session, world, pack)
    wait_for((world.places.archive / segment).exists, timeout_s=30, what="the last segment is archived")
    copy = recover(world)
    text = world.places.dsn.read_text()
    world.places.dsn.write_text(text.replace(f":{world.port}/", f":{copy.port}/"))
    for worker in settings.app.workers:
        turn_off(worker.pause)
    turn_off(settings.app.maintenance)
    wait_for(lambda: read_doors(world.witness)[-1].state == OPEN, timeout_s=20, what="the door opens")
    return Restored(world=world, settings=settings, copy=copy, lock_lsn=lock_lsn, pack=pack)


def quiet(session: Session) -> bool:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'stampcard_app'"
        " AND (state <> 'idle' OR backend_xid IS NOT NULL OR application_name = 'stampcard-heartbeat')"
    )
    return session.value(query) == 0


def write_pack(session: Session, world: World, pack: Path) -> None:
    pack.mkdir()
    for table in TABLES.values():
        rows = session.rows(
            sql.SQL("SELECT to_json(t) FROM {} AS t WHERE pg_xact_commit_timestamp(t.xmin) > %s").format(
                qualified(table)
            ),
            (world.damage.at,),
        )
        (pack / f"{table}.jsonl").write_text("".join(json.dumps(row[0]) + "\n" for row in rows))


def recover(world: World) -> Server:
    places = world.places
    copy = Server(
        world.binaries, places.restored / "copy", free_port(), places.sockets, "postgres", places.logs
    )
    shutil.copytree(places.backups / "base-1", copy.data, symlinks=True)
    copy.data.chmod(0o700)
    (copy.data / "recovery.signal").touch()
    world.binaries.own(copy.data)
    job = copy.start(
        {
            "archive_command": archive_command(places.new_archive),
            "restore_command": f'cp "{places.archive}/%f" "%p"',
            "recovery_target_xid": str(world.damage.xid),
            "recovery_target_inclusive": "off",
            "recovery_target_timeline": "current",
            "recovery_target_action": "promote",
        }
    )
    copy.wait_ready(job)
    with connect(copy.endpoint) as session:
        wait_for(lambda: not session.value("SELECT pg_is_in_recovery()"), timeout_s=60, what="it is promoted")
    return copy


@contextmanager
def changed(
    endpoint: Endpoint, change: LiteralString, back: LiteralString, parameters: Sequence[object] = ()
) -> Iterator[None]:
    """Change a database, and change it back."""
    with connect(endpoint) as session:
        session.do(change, parameters)
        try:
            yield
        finally:
            session.do(back, parameters)


@contextmanager
def missing(endpoint: Endpoint, ack: Ack) -> Iterator[None]:
    """Hide one acknowledged claim under another request id for a while."""
    with connect(endpoint) as session:
        row = session.value("SELECT id FROM public.stamps WHERE request_id = %s::uuid", (ack.request_id,))
        session.do("UPDATE public.stamps SET request_id = gen_random_uuid() WHERE id = %s", (row,))
        try:
            yield
        finally:
            session.do("UPDATE public.stamps SET request_id = %s WHERE id = %s", (ack.request_id, row))


def verdicts(checks: Sequence[Check]) -> dict[str, Verdict]:
    return {check.id: check.verdict for check in checks}


def test_quiet_when_every_promise_is_kept(restored: Restored) -> None:
    """A right restore passes every question, and every question had something to ask about."""
    checks = restored.all()
    sorted_acks = restored.audit.sorted()

    assert [(check.id, check.reason) for check in checks if check.verdict is not Verdict.PASS] == []
    assert len({check.id for check in checks}) == len(checks)
    assert all(check.blocking and check.step == "audit" for check in checks)
    assert sorted_acks.before
    assert sorted_acks.between
    assert sorted_acks.after


def test_a_missing_row_from_before_the_target(restored: Restored) -> None:
    """One acknowledged row less is found out."""
    ack = next(each for each in restored.audit.sorted().before if each.kind == "claim")
    with missing(restored.served, ack):
        found = restored.audit.acked_before_target()

    assert (found.verdict, found.stops) == (Verdict.FAIL, True)
    assert "1 row(s)" in found.reason
    assert restored.audit.acked_before_target().verdict is Verdict.PASS


def test_a_row_from_after_the_target(restored: Restored) -> None:
    """One row too many is found out."""
    ack = next(each for each in restored.audit.sorted().between if each.kind == "claim")
    with changed(
        restored.served,
        "INSERT INTO public.stamps (user_id, request_id) VALUES (1, %s)",
        "DELETE FROM public.stamps WHERE request_id = %s::uuid",
        (ack.request_id,),
    ):
        assert restored.audit.nothing_after_target().verdict is Verdict.FAIL
    assert restored.audit.nothing_after_target().verdict is Verdict.PASS


def test_a_missing_row_from_after_the_cutover(restored: Restored) -> None:
    """A row lost since the cutover is found out."""
    ack = next(each for each in restored.audit.sorted().after if each.kind == "claim")
    with missing(restored.served, ack):
        assert restored.audit.acked_after_cutover().verdict is Verdict.FAIL
    assert restored.audit.acked_after_cutover().verdict is Verdict.PASS


def test_a_changed_preloaded_row(restored: Restored) -> None:
    """A row nobody acknowledged, but which was there before, is found out too."""
    change = "UPDATE public.users SET name = name || '!' WHERE id = 5"
    back = "UPDATE public.users SET name = rtrim(name, '!') WHERE id = 5"
    with changed(restored.served, change, back):
        found = restored.audit.preloaded()
    assert (found.verdict, found.object) == (Verdict.FAIL, "users")
    assert restored.audit.preloaded().verdict is Verdict.PASS


def test_rows_in_no_pack(restored: Restored, tmp_path: Path) -> None:
    """Without pack and without the old production the discarded rows are nowhere."""
    kept = replace(restored.audit, packs=())
    lost = replace(restored.audit, packs=(tmp_path,), old=None)

    assert kept.every_other_row_kept().verdict is Verdict.PASS
    assert replace(restored.audit, old=None).every_other_row_kept().verdict is Verdict.PASS
    assert lost.every_other_row_kept().verdict is Verdict.FAIL


def test_no_row_behind_the_target_proves_nothing_of_such_rows(
    restored: Restored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none was sent between target and lock, nothing is claimed."""
    known = restored.audit.sorted()
    monkeypatch.setattr(ServedAudit, "sorted", lambda _: replace(known, between=(), straddling=()))

    assert restored.audit.nothing_after_target().verdict is Verdict.NOT_APPLICABLE
    assert restored.audit.every_other_row_kept().verdict is Verdict.NOT_APPLICABLE


def test_a_target_that_includes_the_damage(restored: Restored) -> None:
    """What the disaster removed is not asked for when the target lies behind it."""
    audit = replace(restored.audit, exclusive=False)

    assert audit.includes_damage
    assert audit.preloaded().verdict is Verdict.NOT_APPLICABLE
    assert audit.acked_before_target().verdict is Verdict.PASS


def test_writes_behind_the_lock(restored: Restored) -> None:
    """A lock position with client commits behind it is found out in the log."""
    assert nothing_changed_after_lock(restored.world, restored.lock_lsn).verdict is Verdict.PASS
    assert nothing_changed_after_lock(restored.world, restored.world.damage.lsn).verdict is Verdict.FAIL


def test_a_copy_that_archived_into_productions_archive(restored: Restored) -> None:
    """A segment of another timeline in production's archive is found out."""
    stray = restored.world.places.archive / "000000020000000000000009"
    stray.touch()
    found = archive_untouched(restored.world)
    stray.unlink()

    assert (found.verdict, found.actual) == (Verdict.FAIL, f"first: {stray.name}")
    assert archive_untouched(restored.world).verdict is Verdict.PASS


def test_a_served_database_that_would_not_survive_a_crash(restored: Restored) -> None:
    """An isolation setting left in place is found out."""
    with connect(restored.served) as session:
        session.do("ALTER SYSTEM SET fsync = off")
        session.value("SELECT pg_reload_conf()")
        with connect(restored.served) as fresh:
            wait_for(
                lambda: fresh.value("SELECT current_setting('fsync')") == "off",
                timeout_s=20,
                what="it is off",
            )
        found = restored.audit.durable()
        session.do("ALTER SYSTEM RESET fsync")
        session.value("SELECT pg_reload_conf()")

    assert (found.verdict, "fsync = off" in found.actual) == (Verdict.FAIL, True)


def test_a_served_database_that_archives_elsewhere(
    restored: Restored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment that does not reach the new archive is never a pass."""
    monkeypatch.setattr(audit_served, "ARCHIVED_S", 0.2)
    monkeypatch.setattr(Places, "new_archive", property(lambda _: tmp_path))

    found = ask("served_archived", restored.audit.archived)

    assert (found.verdict, found.stops) == (Verdict.COULD_NOT_VERIFY, True)


def test_the_old_production_served(restored: Restored) -> None:
    """Serving production itself is not a restore."""
    audit = replace(restored.audit, served=restored.world.production)

    assert audit.two_servers().verdict is Verdict.FAIL


def test_a_production_that_still_takes_writes(restored: Restored) -> None:
    """Two writable databases are found out; a refusal for another reason proves nothing."""
    world = restored.world
    open_it, close_it = "ALTER ROLE stampcard_app LOGIN", "ALTER ROLE stampcard_app NOLOGIN"
    with changed(world.production, open_it, close_it):
        accepted = closed_to_application(
            world.app_endpoint(), name="production_closed", what="production", write=CARDS.write
        )
        other = world.app_endpoint().on("postgres")
        elsewhere = closed_to_application(
            other, name="production_closed", what="production", write=CARDS.write
        )
    refused = closed_to_application(
        world.app_endpoint(), name="production_closed", what="production", write=CARDS.write
    )

    assert accepted.verdict is Verdict.FAIL
    assert elsewhere.verdict is not Verdict.FAIL
    assert refused.verdict is Verdict.PASS


def test_a_server_that_does_not_answer(restored: Restored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions that could not be asked stop the audit like broken promises."""
    monkeypatch.setattr(audit_served, "ARCHIVED_S", 0.2)
    nowhere = Endpoint("127.0.0.1", 1, "postgres")
    checks = audit_world(
        restored.world, target_at=restored.world.damage.at, exclusive=True, lock_lsn=restored.lock_lsn,
        served=nowhere, old=None, packs=[],
    )  # fmt: skip
    found = verdicts(checks)

    assert found["acked_before_target_served"] is Verdict.COULD_NOT_VERIFY
    assert found["served_durable"] is Verdict.COULD_NOT_VERIFY
    assert found["production_archive_untouched"] is Verdict.PASS
    assert any(check.stops for check in checks)


def test_an_application_that_writes_elsewhere(restored: Restored) -> None:
    """A connection string that still leads to production is found out."""
    world = restored.world
    text = world.places.dsn.read_text()
    with changed(world.production, "ALTER ROLE stampcard_app LOGIN", "ALTER ROLE stampcard_app NOLOGIN"):
        world.places.dsn.write_text(text.replace(f":{restored.copy.port}/", f":{world.port}/"))
        found = restored.audit.application_writes()
        world.places.dsn.write_text(text)

    assert found.verdict is Verdict.FAIL


def test_rows_removed_from_production(restored: Restored) -> None:
    """Something deleted from the old production and put back is found out in the log."""
    assert nothing_removed_since_damage(restored.world).verdict is Verdict.PASS
    with connect(restored.world.production) as session:
        session.do("CREATE TEMPORARY TABLE kept AS SELECT * FROM public.rewards WHERE id = 1")
        session.do("DELETE FROM public.rewards WHERE id = 1")
        session.do("INSERT INTO public.rewards OVERRIDING SYSTEM VALUE SELECT * FROM kept")

    assert nothing_removed_since_damage(restored.world).verdict is Verdict.FAIL
    assert nothing_changed_after_lock(restored.world, restored.lock_lsn).verdict is Verdict.FAIL


def test_a_rollback_that_keeps_its_promises(restored: Restored) -> None:
    """Maintenance on, both databases closed, connections back, and every row kept somewhere."""
    world = restored.world
    turn_on(restored.settings.app.maintenance)
    with connect(restored.served) as session:
        wait_for(lambda: httpx.get(f"{world.app_url}/served").status_code == 503, timeout_s=20, what="closed")
        session.do("ALTER ROLE stampcard_app NOLOGIN")
        session.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'stampcard_app'")
    text = world.places.dsn.read_text()
    world.places.dsn.write_text(text.replace(f":{restored.copy.port}/", f":{world.port}/"))

    found = verdicts(
        audit_rollback(world, lock_lsn=None, old=world.production, restored=restored.served, packs=[])
    )

    wrong = {name for name, verdict in found.items() if verdict is not Verdict.PASS}
    # the test before this one removed rows on purpose, and without a lock there is nothing to hold
    assert wrong == {"production_not_removed_from", "production_unchanged_after_lock"}
    assert found["production_unchanged_after_lock"] is Verdict.NOT_APPLICABLE


def test_a_rollback_that_loses_rows_and_serves(restored: Restored) -> None:
    """Rows only the discarded copy held, an open door and a forgotten string are found out."""
    world = restored.world
    text = world.places.dsn.read_text()
    world.places.dsn.write_text(text.replace(f":{world.port}/", f":{restored.copy.port}/"))
    turn_off(restored.settings.app.maintenance)

    found = verdicts(audit_rollback(world, lock_lsn=None, old=world.production, restored=None, packs=[]))

    assert found["every_row_kept"] is Verdict.FAIL
    assert found["maintenance_on"] is Verdict.FAIL
    assert found["connections_back"] is Verdict.FAIL
    assert found["restored_closed"] is Verdict.NOT_APPLICABLE
