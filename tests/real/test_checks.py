"""Each check of the instance fires on its injected fault and stays quiet on a clean copy."""

# ruff: noqa: S608 - fixtures are imported by name; statements go to throwaway databases

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from fixtures.checks import (
    GROUPS,
    References,
    identity,
    physical,
    recovery,
    take_references,
)
from fixtures.checks.asking import reading
from fixtures.checks.relations import read_catalogue
from fixtures.evidence import Verdict
from fixtures.postgres.server import Server
from fixtures.providers.base import Cluster
from fixtures.settings import Database, Migrations
from tests.real import checks_lab
from tests.real.checks_lab import (
    CRITICAL,
    GREEN,
    QUICK,
    NewSubject,
    examined,
    found,
    home_of,
    running,
    script,
    sum_of,
    verdicts,
)

template, lab = checks_lab.template, checks_lab.lab
own_server, subject_of = checks_lab.own_server, checks_lab.subject_of

# --- sums and references


def test_the_checksum_ignores_order_and_sees_every_change(subject_of: NewSubject) -> None:
    """Equal rows in another order give the same sum; what merely compares equal does not."""
    endpoint = home_of(subject_of())
    columns = (
        "i int, n numeric, f float8, iv interval, t text, b bool, j jsonb, d date, u uuid, c char(3), x bytea"
    )
    row = "(1, 1.0, 0.0, '24h', NULL, true, '{\"a\": 1}', NULL, NULL, 'a', '\\x00')"
    other = "(NULL, NULL, NULL, NULL, '', NULL, NULL, '2025-01-01', '00000000-0000-0000-0000-000000000000', NULL, NULL)"
    script(
        endpoint, f"CREATE TABLE a ({columns})", f"CREATE TABLE b ({columns})",
        f"INSERT INTO a VALUES {row}, {other}", f"INSERT INTO b VALUES {other}, {row}",
    )  # fmt: skip

    def of(table: str) -> object:
        return sum_of(endpoint, f"public.{table}")

    assert of("a") == of("b")
    changes = [
        "n = 1.00",
        "f = '-0.0'",
        "iv = '1 day'",
        "t = ''",
        "b = NULL",
        "j = '{\"a\": 1.0}'",
        "x = '\\x01'",
        "d = '2000-01-01'",
        "i = 2",
    ]
    for change in changes:
        script(
            endpoint,
            "TRUNCATE b",
            f"INSERT INTO b VALUES {other}, {row}",
            f"UPDATE b SET {change} WHERE i = 1",
        )
        assert of("a") != of("b"), change


def test_a_row_that_appears_twice_more_changes_the_sum(subject_of: NewSubject) -> None:
    """A sum, unlike xor, does not cancel doubled rows."""
    endpoint = home_of(subject_of())
    script(endpoint, "CREATE TABLE a (i int)", "INSERT INTO a VALUES (7)")
    before = sum_of(endpoint, "public.a")
    script(endpoint, "INSERT INTO a VALUES (7), (7)")
    after = sum_of(endpoint, "public.a")
    assert (before.rows, after.rows) == (1, 3)
    assert before.checksum != after.checksum


def test_rows_of_numbers_and_zeros_are_bound_together(subject_of: NewSubject) -> None:
    """Keys exchanged between rows that are zero or NaN change the sum, and so do all bits of a bigint."""
    endpoint = home_of(subject_of())
    script(endpoint, "CREATE TABLE a (id bigint NOT NULL, n numeric(8,2), m numeric, at timestamptz, other bigint)",
           "INSERT INTO a VALUES (1, 0, 0, now(), 1), (4, 0, 0, now(), NULL), (9, 'NaN', 'NaN', 'infinity', 5)")  # fmt: skip
    seen = {sum_of(endpoint, "public.a").checksum}
    for change in (
        "id = CASE id WHEN 1 THEN 2 WHEN 4 THEN 3 ELSE id END",
        "id = id + (4294967295::bigint << 31) WHERE id = 9",
        "other = other + 4294967297 WHERE id = 2",
        "n = 'NaN' WHERE id = 3",
        "at = at + interval '1 microsecond' WHERE id = 2",
        "at = '-infinity' WHERE n = 'NaN'",
    ):
        script(endpoint, f"UPDATE a SET {change}")
        seen.add(sum_of(endpoint, "public.a").checksum)
    assert len(seen) == 7


def test_odd_types_have_a_checksum(subject_of: NewSubject) -> None:
    """Types without a hash function, enums, domains, composites, quoted names and no columns at all work."""
    endpoint = home_of(subject_of())
    script(
        endpoint, "CREATE TYPE mood AS ENUM ('ok', 'bad')", "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
        "CREATE TYPE pair AS (a int, b text)", "CREATE DOMAIN tagged AS positive",
        'CREATE TABLE "O dd" ("a b" json, p point, m mood, d tagged, c pair, x xml, mo money, v tsvector, '
        'dd int GENERATED ALWAYS AS (d + 1) STORED, r int4range, "%s" text)',
        "INSERT INTO \"O dd\" VALUES ('{}', '(1,2)', 'ok', 5, (1, 'x'), NULL, 5, 'a b', DEFAULT, '[1,2)', '%')",
        "CREATE TABLE bare ()", "INSERT INTO bare DEFAULT VALUES",
    )  # fmt: skip
    assert sum_of(endpoint, "public.O dd").rows == 1
    assert sum_of(endpoint, "public.bare").rows == 1
    with reading(endpoint) as session:
        columns = read_catalogue(session).roots["public.O dd"][0].attributes
    assert {each.name: each.hash for each in columns}["d"] == "hashint4extended"


def test_references_survive_the_journal(subject_of: NewSubject) -> None:
    """They can be dumped to JSON and loaded again, and name every table, sequence and ledger."""
    subject = subject_of(migrations=Migrations(table="public.notes", directory=Path("migrations")))
    taken = take_references(subject.restored, subject.databases)
    name = subject.databases[0].name
    assert taken.tables[f"{name}.public.users"].max_key == 500
    assert taken.tables[f"{name}.public.notes"].checksum != ""
    lighter = take_references(subject.restored, subject.databases, everything=False)
    assert lighter.tables[f"{name}.public.notes"].checksum == ""
    assert taken.tables[f"{name}.public.notes"].same(lighter.tables[f"{name}.public.notes"])
    assert taken.sequences[f"{name}.public.tickets"] == 10
    assert taken.ledgers == {name: 300}
    adapter = TypeAdapter(References)
    assert adapter.validate_json(adapter.dump_json(taken)) == taken


# --- identity


def test_identity_is_quiet_on_the_right_instance(subject_of: NewSubject, lab: Server) -> None:
    """Right cluster, own directory, databases present."""
    with reading(lab.endpoint) as session:
        number = session.value("SELECT system_identifier::text FROM pg_control_system()")
    checks = identity.check(replace(subject_of(), cluster=Cluster(system_identifier=number, timeline=9)))
    assert verdicts(checks) <= GREEN


def test_identity_fires_on_another_cluster(subject_of: NewSubject) -> None:
    """A different system identifier fails, an unknown one could not be verified."""
    subject = subject_of()
    wrong = identity.check(replace(subject, cluster=Cluster(system_identifier="1")))
    assert found(wrong, "identity.system").verdict is Verdict.FAIL
    unknown = found(identity.check(subject), "identity.system")
    assert (unknown.verdict, unknown.stops) == (Verdict.COULD_NOT_VERIFY, True)


def test_identity_fires_on_production_itself(subject_of: NewSubject, lab: Server) -> None:
    """What answers as the copy must not be production, nor another instance than the planned one."""
    subject = subject_of()
    itself = identity.check(replace(subject, production=lab.endpoint))
    assert found(itself, "identity.directory").verdict is Verdict.FAIL
    ref = replace(subject.instance.ref, name="/elsewhere")
    other = identity.check(replace(subject, instance=replace(subject.instance, ref=ref)))
    assert found(other, "identity.directory").verdict is Verdict.FAIL


def test_identity_fires_on_a_timeline_that_is_not_a_child(subject_of: NewSubject) -> None:
    """A copy that writes on production's own timeline fails."""
    subject = subject_of()
    instance = replace(subject.instance, timeline=1)
    checks = identity.check(replace(subject, instance=instance, cluster=Cluster(timeline=1)))
    assert found(checks, "identity.timeline").verdict is Verdict.FAIL


def test_identity_fires_on_a_missing_database(subject_of: NewSubject) -> None:
    """A listed database that is not there fails, and every other group could not verify it."""
    subject = replace(subject_of(), databases=(Database(name="absent", critical_tables=("t",)),))
    assert found(identity.check(subject), "identity.database").verdict is Verdict.FAIL
    for group in ("foreign_keys", "physical"):
        checks = GROUPS[group](subject)
        assert Verdict.COULD_NOT_VERIFY in verdicts(checks)
        assert any(check.stops for check in checks)
    for group in ("content", "sequences", "structure"):
        assert Verdict.PASS not in verdicts(GROUPS[group](subject))


# --- recovery


def test_recovery_is_quiet_on_a_promoted_server(subject_of: NewSubject) -> None:
    """Out of recovery, clock right, nothing prepared."""
    assert verdicts(recovery.check(subject_of())) == {Verdict.PASS}


def test_recovery_fires_on_skew(subject_of: NewSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock beyond the limit fails."""

    class Early(datetime):
        @classmethod
        def now(cls, _tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) - timedelta(minutes=3)

    monkeypatch.setattr(recovery, "datetime", Early)
    assert found(recovery.check(subject_of()), "recovery.clock").verdict is Verdict.FAIL


def test_recovery_fires_on_a_prepared_transaction(subject_of: NewSubject) -> None:
    """A transaction in doubt fails."""
    subject = subject_of()
    script(home_of(subject), "BEGIN; INSERT INTO notes VALUES (0, 'x'); PREPARE TRANSACTION 'doubt'")
    try:
        assert found(recovery.check(subject), "recovery.prepared").verdict is Verdict.FAIL
    finally:
        script(home_of(subject), "ROLLBACK PREPARED 'doubt'")


def test_recovery_that_cannot_be_asked_blocks(subject_of: NewSubject) -> None:
    """A server that does not answer is could-not-verify and stops."""
    subject = subject_of()
    checks = recovery.check(replace(subject, restored=replace(subject.restored, port=1)))
    assert verdicts(checks) == {Verdict.COULD_NOT_VERIFY}
    assert all(check.stops for check in checks)


# --- physical


def test_physical_is_quiet_and_leaves_nothing(subject_of: NewSubject) -> None:
    """A sound copy passes, and amcheck is gone afterwards."""
    subject = subject_of()
    script(home_of(subject), "CREATE INDEX users_tags ON users USING gin (tags)")
    checks = physical.check(subject)
    assert verdicts(checks) == {Verdict.PASS}, checks
    with reading(home_of(subject)) as session:
        assert session.value("SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'") == 0
        assert session.value("SELECT to_regnamespace('restore_runbook_amcheck') IS NULL")


def test_physical_uses_the_databases_own_amcheck(subject_of: NewSubject) -> None:
    """An amcheck that was restored with the database is used and kept."""
    subject = subject_of()
    script(home_of(subject), "CREATE EXTENSION amcheck")
    assert verdicts(physical.check(subject)) == {Verdict.PASS}
    with reading(home_of(subject)) as session:
        assert session.value("SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'") == 1


def test_physical_fires_on_an_index_that_misses_rows(subject_of: NewSubject) -> None:
    """Rows the index does not know are missing from its sums."""
    subject = subject_of()
    flags = "UPDATE pg_index SET indisready = {0}, indisvalid = {0} WHERE indexrelid = 'users_email_key'::regclass"
    script(
        home_of(subject), flags.format("false"), "INSERT INTO users (email) VALUES ('lost@example.org')",
        flags.format("true"),
    )  # fmt: skip
    check = found(
        physical.check(subject), "physical.index_rows:" + subject.databases[0].name + ".public.users"
    )
    assert check.verdict is Verdict.FAIL
    assert "users_email_key" in check.actual
    assert "lost@" not in repr(check)


def test_physical_fires_on_a_destroyed_page(own_server: Server) -> None:
    """A page overwritten on disk is damage of its table and counts as a checksum failure."""
    with running(own_server, QUICK), reading(own_server.endpoint.on("clean")) as session:
        relative = session.value("SELECT pg_relation_filepath('public.stamps')")
        script(own_server.endpoint, "CHECKPOINT")
    with (own_server.data / relative).open("r+b") as file:
        file.seek(8192 + 4000)
        file.write(b"\xff" * 200)
    with running(own_server, QUICK):
        checks = physical.check(examined(own_server, Database(name="clean", critical_tables=CRITICAL)))
    assert found(checks, "physical.table:clean.public.stamps").verdict is Verdict.FAIL
    assert found(checks, "physical.table:clean.public.users").verdict is Verdict.PASS
    assert found(checks, "physical.checksum_failures").verdict is Verdict.FAIL


def test_physical_fires_on_switches_that_hide_damage(own_server: Server) -> None:
    """A repair switch left on fails."""
    with running(own_server, {**QUICK, "zero_damaged_pages": "on"}):
        checks = physical.check(examined(own_server))
    assert found(checks, "physical.repair_switches").verdict is Verdict.FAIL


def test_physical_fires_on_lost_data_checksums(own_server: Server, lab: Server) -> None:
    """Checksums that production has and the copy has not fail; without production they block unverified."""
    from fixtures.command import run

    binaries = own_server.binaries
    run([binaries.tool("pg_checksums"), "--disable", "-D", own_server.data], timeout_s=60, user=binaries.user)
    with running(own_server, QUICK):
        subject = examined(own_server)
        assert found(physical.check(subject), "physical.checksums").stops
        compared = replace(subject, production=lab.endpoint)
        assert found(physical.check(compared), "physical.checksums").verdict is Verdict.FAIL
