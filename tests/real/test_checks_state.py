"""Each check of structure and surroundings fires on its injected fault and stays quiet on a clean copy."""

from dataclasses import replace

import pytest

from fixtures.checks import (
    structure,
    surroundings,
)
from fixtures.evidence import Verdict
from fixtures.postgres.server import Server
from fixtures.postgres.session import connect
from tests.real import checks_lab
from tests.real.checks_lab import (
    QUICK,
    NewSubject,
    examined,
    found,
    home_of,
    running,
    script,
    verdicts,
)

template, lab = checks_lab.template, checks_lab.lab
own_server, subject_of = checks_lab.own_server, checks_lab.subject_of

# --- structure


def test_structure_is_quiet_when_equal(own_server: Server, subject_of: NewSubject) -> None:
    """Two copies of one database have the same fingerprint."""
    subject = subject_of()
    with running(own_server, QUICK):
        script(own_server.endpoint, f"ALTER DATABASE clean RENAME TO {subject.databases[0].name}")
        checks = structure.check(replace(subject, production=own_server.endpoint))
    assert verdicts(checks) == {Verdict.PASS}, checks


def test_structure_names_differences_without_blocking(own_server: Server, subject_of: NewSubject) -> None:
    """Where the target's transactions are not known, every quiet flag shows and none stops the run."""
    subject = subject_of()
    name = subject.databases[0].name
    with running(own_server, QUICK):
        script(own_server.endpoint, f"ALTER DATABASE clean RENAME TO {name}")
        subject = replace(subject, production=own_server.endpoint)
        script(
            own_server.endpoint.on(name), "ALTER TABLE users ALTER COLUMN name SET DEFAULT 'x'",
            "ALTER TABLE stamps ENABLE ROW LEVEL SECURITY", "DROP TABLE ticketed",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        )  # fmt: skip
        checks = structure.check(subject)
    shown = {
        "tables": ("table public.stamps changed", "table public.ticketed only in the copy"),
        "columns": ("column public.users.name changed",),
        "functions": ("function public.f() missing",),
    }
    for kind, parts in shown.items():
        check = found(checks, f"structure.{kind}:")
        assert (check.verdict, check.stops) == (Verdict.COULD_NOT_VERIFY, False)
        for part in parts:
            assert part in check.actual
    assert not any(check.stops for check in checks)


def test_structure_fires_on_flags_that_guard_data(subject_of: NewSubject) -> None:
    """An invalid unique index and foreign keys with their triggers off fail; lesser ones are shown."""
    subject = subject_of()
    script(
        home_of(subject),
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid IN ('users_email_key'::regclass, 'notes_body'::regclass)",
        "ALTER TABLE stamps DISABLE TRIGGER ALL",
    )  # fmt: skip
    checks = structure.check(subject)
    assert found(checks, "structure.indexes").verdict is Verdict.FAIL
    assert found(checks, "structure.triggers").verdict is Verdict.FAIL
    script(
        home_of(subject),
        "UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'users_email_key'::regclass",
    )
    lesser = found(structure.check(subject), "structure.indexes")
    assert (lesser.verdict, lesser.stops) == (Verdict.COULD_NOT_VERIFY, False)


# --- surroundings


def test_surroundings_are_quiet_when_isolated(subject_of: NewSubject) -> None:
    """Nothing that reaches out, nobody connected."""
    assert verdicts(surroundings.check(subject_of())) == {Verdict.PASS}


def test_surroundings_fire_on_an_enabled_subscription(subject_of: NewSubject) -> None:
    """A subscription that would dial its publisher fails."""
    subject = subject_of()
    script(
        home_of(subject),
        "CREATE SUBSCRIPTION dials CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false, slot_name = 'x')",
        "UPDATE pg_subscription SET subenabled = true",
    )  # fmt: skip
    try:
        assert found(surroundings.check(subject), "surroundings.subscriptions").verdict is Verdict.FAIL
    finally:
        script(
            home_of(subject), "ALTER SUBSCRIPTION dials DISABLE", "ALTER SUBSCRIPTION dials SET (slot_name = NONE)",
            "DROP SUBSCRIPTION dials",
        )  # fmt: skip


def test_surroundings_name_jobs_and_half_dropped_databases(subject_of: NewSubject, lab: Server) -> None:
    """A schedule that would run once its library is loaded, and a DROP DATABASE that was interrupted."""
    subject = subject_of()
    script(
        home_of(subject),
        "CREATE SCHEMA cron", "CREATE TABLE cron.job (jobname text, active boolean)",
        "INSERT INTO cron.job VALUES ('mail everybody', true)",
    )  # fmt: skip
    script(lab.endpoint, "CREATE DATABASE half_gone")
    try:
        script(lab.endpoint, "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half_gone'")
        checks = surroundings.check(subject)
    finally:
        script(lab.endpoint, "DROP DATABASE half_gone")
    shown = {
        c.id.partition(".")[2].partition(":")[0] for c in checks if c.verdict is Verdict.COULD_NOT_VERIFY
    }
    assert shown == {"jobs", "half_dropped"}


def test_surroundings_fire_near_wraparound(subject_of: NewSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit the copy must be frozen first; the limit is lowered, since a cluster cannot be aged in a test."""
    monkeypatch.setattr(surroundings, "AGE_LIMIT", 1)

    assert found(surroundings.check(subject_of()), "surroundings.wraparound").verdict is Verdict.FAIL


def test_surroundings_name_what_reaches_out(subject_of: NewSubject, lab: Server) -> None:
    """Foreign servers, event triggers, unlogged tables, slots and strangers are shown and do not block."""
    subject = subject_of()
    script(
        home_of(subject),
        "CREATE EXTENSION postgres_fdw", "CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw",
        "CREATE FUNCTION noop() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE EVENT TRIGGER watches ON ddl_command_end EXECUTE FUNCTION noop()",
        "CREATE UNLOGGED TABLE scratch (i int)", "SELECT pg_create_physical_replication_slot('left_over')",
    )  # fmt: skip
    try:
        with connect(home_of(subject), application="stranger"):
            checks = surroundings.check(subject)
    finally:
        script(lab.endpoint, "SELECT pg_drop_replication_slot('left_over')")
    shown = {
        c.id.partition(".")[2].partition(":")[0] for c in checks if c.verdict is Verdict.COULD_NOT_VERIFY
    }
    assert shown == {"foreign_servers", "event_triggers", "unlogged_tables", "slots", "sessions"}
    assert not any(check.stops for check in checks)


def test_surroundings_fire_on_a_missing_synchronous_standby(own_server: Server) -> None:
    """Commits that would wait for ever fail."""
    with running(own_server, {**QUICK, "synchronous_standby_names": "gone"}):
        checks = surroundings.check(examined(own_server))
    assert found(checks, "surroundings.synchronous_standbys").verdict is Verdict.FAIL
