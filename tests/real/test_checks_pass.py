"""The one pass over every table: what it adds up, what its counters catch, and the proof without a join."""

from dataclasses import replace

import pytest

from fixtures.checks import content, foreign_keys, passes, take_references
from fixtures.checks.asking import READING
from fixtures.checks.passes import Wanted, readings
from fixtures.checks.relations import read_catalogue
from fixtures.evidence import Verdict
from fixtures.postgres.lanes import team
from tests.real import checks_lab
from tests.real.checks_lab import NewSubject, found, home_of, script, sum_of

template, lab, subject_of = checks_lab.template, checks_lab.lab, checks_lab.subject_of

PARTS = (
    "CREATE TABLE events (id int, at date NOT NULL, note text) PARTITION BY RANGE (at)",
    "CREATE TABLE events_24 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
    # the same columns in another order, as attached partitions have them
    "CREATE TABLE events_25 (note text, at date NOT NULL, id int)",
    "ALTER TABLE events ATTACH PARTITION events_25 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
    "INSERT INTO events SELECT i, date '2024-01-01' + i, 'n' || i FROM generate_series(0, 700) i",
)


def test_ranges_of_pages_add_up_to_the_table(subject_of: NewSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table cut into ranges says what it says in one piece, weighted sum and rows added since included."""
    home = home_of(subject_of())
    script(home, "INSERT INTO stamps (user_id) SELECT 1 FROM generate_series(1, 5000)")
    whole = sum_of(home, "public.stamps", locate=True)
    monkeypatch.setattr(passes, "WHOLE_BYTES", 8192)
    with team(home, jobs=2, settings=READING) as readers:
        catalogue = read_catalogue(readers.session)
        relation = catalogue.roots["public.stamps"][0]
        (reading,) = readings(catalogue, [relation], Wanted(locate=True), jobs=2)
        answers = readers.ask(reading.tasks)
    assert len(reading.tasks) > 5
    assert reading.found(answers).total == whole
    assert whole.rows == 7000


def test_a_partitioned_table_is_the_sum_of_its_partitions(subject_of: NewSubject) -> None:
    """The same rows give the same sum in one table and in partitions, whatever the order of their columns."""
    home = home_of(subject_of())
    script(
        home,
        *PARTS,
        "CREATE TABLE flat (id int, at date NOT NULL, note text)",
        "INSERT INTO flat TABLE events",
    )
    parted, flat = sum_of(home, "public.events"), sum_of(home, "public.flat")
    assert (parted.rows, parted.checksum) == (701, flat.checksum)


def test_a_bigint_that_folds_to_the_same_32_bits_is_told_apart(subject_of: NewSubject) -> None:
    """PostgreSQL hashes 1 and 2^32 alike; a checksum must not."""
    home = home_of(subject_of())
    script(home, "CREATE TABLE a (i bigint)", "CREATE TABLE b (i bigint)", "INSERT INTO a VALUES (1)",
           "INSERT INTO b VALUES (4294967296)")  # fmt: skip
    assert sum_of(home, "public.a") != sum_of(home, "public.b")


def test_every_table_is_compared_not_only_counted(subject_of: NewSubject) -> None:
    """A changed row of a table nobody listed fails, though the number of rows is the same."""
    subject = subject_of()
    subject = replace(subject, references=take_references(subject.restored, subject.databases))
    script(home_of(subject), "UPDATE notes SET body = 'other' WHERE id = 7")
    check = found(content.check(subject), "content.other_tables")
    assert (check.verdict, check.actual.endswith("notes (same number of rows)")) == (Verdict.FAIL, True)


def test_a_group_past_its_deadline_could_not_verify(subject_of: NewSubject) -> None:
    """Nothing that was not read is passed or left out."""
    subject = replace(subject_of(), deadline_s=0.0)
    subject = replace(subject, references=take_references(subject.restored, subject.databases))
    checks = [*content.check(subject), *foreign_keys.check(subject)]
    asked = [each for each in checks if each.source in {"references", "invariant"}]
    asked = [each for each in asked if each.verdict is not Verdict.NOT_APPLICABLE]
    assert {each.verdict for each in asked} == {Verdict.COULD_NOT_VERIFY}
    assert all("RB505" in each.reason for each in asked)
    assert len(asked) == 7


# --- rules


def rule_verdicts(subject: object) -> dict[str, Verdict]:
    """Return the verdicts of the rules."""
    checks = content.check(subject)  # type: ignore[arg-type]
    return {name: found(checks, f"content.{name}").verdict for name in ("not_null", "rules")}


def test_rules_are_quiet_when_kept(subject_of: NewSubject) -> None:
    """Kept CHECKs, one that calls a function, NULLs under a CHECK, and rows in their partitions pass."""
    subject = subject_of()
    script(
        home_of(subject), *PARTS,
        "CREATE FUNCTION public.fine(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 > 0'",
        "ALTER TABLE notes ADD CHECK (public.fine(id))", "ALTER TABLE users ADD CHECK (balance >= 0)",
        "INSERT INTO users (email) VALUES ('no balance')",
    )  # fmt: skip
    assert set(rule_verdicts(subject).values()) == {Verdict.PASS}


@pytest.mark.parametrize(
    ("rule", "statements"),
    [
        (
            "rules",
            ["ALTER TABLE notes ADD CONSTRAINT small CHECK (id < 300) NOT VALID",
             "UPDATE pg_constraint SET convalidated = true WHERE conname = 'small'"],
        ),
        (
            "rules",
            ["CREATE FUNCTION public.fine(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 > 5'",
             "ALTER TABLE notes ADD CONSTRAINT f CHECK (public.fine(id)) NOT VALID",
             "UPDATE pg_constraint SET convalidated = true WHERE conname = 'f'"],
        ),
        (
            "rules",
            [*PARTS, "ALTER TABLE events DETACH PARTITION events_24", "UPDATE events_24 SET at = '2030-01-01' WHERE id = 3",
             ("UPDATE pg_class SET relispartition = true, relpartbound = (SELECT relpartbound FROM pg_class "
              "WHERE relname = 'events_25') WHERE relname = 'events_24'"),
             "INSERT INTO pg_inherits VALUES ('events_24'::regclass, 'events'::regclass, 1, false)"],
        ),
        (
            "not_null",
            ["ALTER TABLE notes ADD COLUMN empty int",
             ("UPDATE pg_attribute SET attnotnull = true "
              "WHERE attrelid = 'notes'::regclass AND attname = 'empty'")],
        ),
    ],
    ids=["check", "check with a function", "partition", "not null"],
)  # fmt: skip
def test_rules_fire_on_rows_that_break_them(subject_of: NewSubject, rule: str, statements: list[str]) -> None:
    """The catalogue calls it kept, the rows say otherwise."""
    subject = subject_of()
    script(home_of(subject), *statements)
    verdicts = rule_verdicts(subject)
    assert verdicts.pop(rule) is Verdict.FAIL
    assert set(verdicts.values()) <= {Verdict.PASS, Verdict.NOT_APPLICABLE}


def test_a_rule_postgresql_does_not_promise_is_shown(subject_of: NewSubject) -> None:
    """Rows that break a NOT VALID rule may have been there at the target."""
    subject = subject_of()
    script(home_of(subject), "ALTER TABLE notes ADD CONSTRAINT small CHECK (id < 300) NOT VALID")
    check = found(content.check(subject), "content.rules")
    assert (check.verdict, check.actual) == (Verdict.PASS, "public.notes.small (1 row)")


def test_a_rule_that_fails_spoils_only_itself(subject_of: NewSubject) -> None:
    """A CHECK's own function that raises is could-not-verify; the table's checksum is taken all the same."""
    subject = subject_of()
    script(
        home_of(subject),
        "CREATE FUNCTION public.bad(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''x''; END'",
        "ALTER TABLE notes ADD CHECK (public.bad(id)) NOT VALID",
    )  # fmt: skip
    subject = replace(subject, references=take_references(subject.restored, subject.databases))
    checks = content.check(subject)
    assert found(checks, "content.rules").verdict is Verdict.COULD_NOT_VERIFY
    assert found(checks, "content.other_tables").verdict is Verdict.PASS


# --- the proof without a join


@pytest.mark.parametrize(
    ("statements", "proven_by", "verdict"),
    [
        ((), True, Verdict.PASS),
        # a gap: the parent is not dense, so the rows are joined
        (("DELETE FROM rewards WHERE stamp_id = 7", "DELETE FROM stamps WHERE id = 7"), False, Verdict.PASS),
        # a gap hidden by a doubled row: as many rows as numbers, but not each of them
        (
            ("DROP INDEX stamps_pkey_copy", "UPDATE stamps SET id = 8 WHERE id = 7"), False, Verdict.FAIL,
        ),
        # dense, but a child lies outside
        (("UPDATE rewards SET stamp_id = 999999 WHERE id = 3",), False, Verdict.FAIL),
    ],
    ids=["dense", "gap", "doubled and lost", "outside"],
)  # fmt: skip
def test_a_dense_parent_needs_no_join(
    subject_of: NewSubject, statements: tuple[str, ...], proven_by: bool, verdict: Verdict
) -> None:
    """Only a parent that holds every number of its range, by its rows, spares the join."""
    subject = subject_of()
    home = home_of(subject)
    script(
        home, "ALTER TABLE rewards DROP CONSTRAINT rewards_stamp_id_fkey", "ALTER TABLE stamps DROP CONSTRAINT stamps_pkey",
        "ALTER TABLE stamps ALTER id DROP IDENTITY", "CREATE UNIQUE INDEX stamps_pkey_copy ON stamps (id)",
        "ALTER TABLE rewards ADD FOREIGN KEY (stamp_id) REFERENCES stamps (id)",
    )  # fmt: skip
    if statements:
        # as damage would: with triggers off, and the index not kept unique
        script(
            home, "UPDATE pg_index SET indisunique = false WHERE indexrelid = 'stamps_pkey_copy'::regclass"
        )
        script(
            home, "SET session_replication_role = replica",
            *(each for each in statements if not each.startswith("DROP")),
        )  # fmt: skip
    check = found(foreign_keys.check(subject), f"fk:{subject.databases[0].name}.public.rewards")
    assert (check.verdict, "every number" in check.reason) == (verdict, proven_by)
