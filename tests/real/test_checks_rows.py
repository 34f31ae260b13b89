"""Each check of rows fires on its injected fault and stays quiet on a clean copy."""

from dataclasses import replace

import pytest

from fixtures.checks import (
    Subject,
    TableChange,
    content,
    foreign_keys,
    sanity,
    sequences,
    take_references,
)
from fixtures.checks.asking import reading
from fixtures.evidence import Verdict
from fixtures.postgres.server import Server
from fixtures.providers.base import Target, TargetKind
from fixtures.settings import Sanity
from tests.real import checks_lab
from tests.real.checks_lab import (
    QUICK,
    NewSubject,
    found,
    home_of,
    running,
    script,
    verdicts,
)

template, lab = checks_lab.template, checks_lab.lab
own_server, subject_of = checks_lab.own_server, checks_lab.subject_of

# --- foreign keys


def test_foreign_keys_are_quiet_when_clean(subject_of: NewSubject) -> None:
    """NULL keys are no orphans; every key is asked."""
    checks = foreign_keys.check(subject_of())
    assert verdicts(checks) == {Verdict.PASS}
    assert len(checks) == 2


def test_foreign_keys_fire_on_orphans(subject_of: NewSubject) -> None:
    """A parent removed behind the triggers' back is found, whatever the catalogue says."""
    subject = subject_of()
    script(
        home_of(subject), "SET session_replication_role = replica", "DELETE FROM users WHERE id = 1",
        "SET session_replication_role = origin",
        "CREATE TABLE loose (user_id int)", "INSERT INTO loose VALUES (-1)",
        "ALTER TABLE loose ADD FOREIGN KEY (user_id) REFERENCES users NOT VALID",
    )  # fmt: skip
    checks = foreign_keys.check(subject)
    name = subject.databases[0].name
    stamps = found(checks, f"fk:{name}.public.stamps")
    assert (stamps.verdict, stamps.actual) == (Verdict.FAIL, "4 orphans")
    assert found(checks, f"fk:{name}.public.loose").verdict is Verdict.FAIL
    assert found(checks, f"fk:{name}.public.rewards").verdict is Verdict.PASS


def test_foreign_keys_know_every_kind(subject_of: NewSubject) -> None:
    """Composite, MATCH FULL, partitioned, self-referring, citext and temporal keys are asked and fire."""
    subject = subject_of()
    script(
        home_of(subject),
        "CREATE EXTENSION citext", "CREATE EXTENSION btree_gist",
        "CREATE TABLE parent (a int, b citext, PRIMARY KEY (a, b))",
        "CREATE TABLE full_ (a int, b citext, FOREIGN KEY (a, b) REFERENCES parent MATCH FULL)",
        "CREATE TABLE simple (a int, b citext, FOREIGN KEY (a, b) REFERENCES parent)",
        "CREATE TABLE parts (id int, a int, b citext, FOREIGN KEY (a, b) REFERENCES parent) PARTITION BY RANGE (id)",
        "CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree)",
        "CREATE TABLE room (id int, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS))",
        "CREATE TABLE stay (id int, during daterange, FOREIGN KEY (id, PERIOD during) REFERENCES room (id, PERIOD during))",
        "INSERT INTO parent VALUES (1, 'X')", "INSERT INTO full_ VALUES (1, 'x'), (NULL, NULL)",
        "INSERT INTO simple VALUES (1, 'x'), (5, NULL)", "INSERT INTO parts VALUES (1, 1, 'x')",
        "INSERT INTO tree VALUES (1, NULL), (2, 1)",
        "INSERT INTO room VALUES (1, '[2025-01-01,2025-02-01)'), (1, '[2025-02-01,2025-03-01)')",
        "INSERT INTO stay VALUES (1, '[2025-01-20,2025-02-20)')",
    )  # fmt: skip
    assert verdicts(foreign_keys.check(subject)) == {Verdict.PASS}
    script(
        home_of(subject), "SET session_replication_role = replica",
        "INSERT INTO full_ VALUES (1, NULL)", "INSERT INTO simple VALUES (2, 'x')",
        "INSERT INTO parts VALUES (2, 9, 'y')", "INSERT INTO tree VALUES (3, 99)",
        "INSERT INTO stay VALUES (1, '[2025-02-20,2025-03-20)')",
    )  # fmt: skip
    failed = {c.object.rpartition(".")[2] for c in foreign_keys.check(subject) if c.verdict is Verdict.FAIL}
    assert failed == {"full_", "simple", "parts", "tree", "stay"}


def test_a_key_production_does_not_enforce_does_not_block(subject_of: NewSubject) -> None:
    """Orphans under NOT ENFORCED are shown, since PostgreSQL itself lets them in."""
    subject = subject_of()
    script(
        home_of(subject),
        "CREATE TABLE loose (user_id int, FOREIGN KEY (user_id) REFERENCES users NOT ENFORCED)",
        "INSERT INTO loose VALUES (-1)",
    )  # fmt: skip
    check = found(foreign_keys.check(subject), f"fk:{subject.databases[0].name}.public.loose")
    assert (check.verdict, check.stops) == (Verdict.COULD_NOT_VERIFY, False)


# --- content


def referenced(subject: Subject) -> Subject:
    """Return the subject with references taken now."""
    return replace(subject, references=take_references(subject.restored, subject.databases))


def test_content_is_quiet_when_nothing_changed(subject_of: NewSubject) -> None:
    """An untouched copy equals its references."""
    checks = content.check(referenced(subject_of()))
    assert {c.verdict for c in checks if c.source == "references"} == {Verdict.PASS}


@pytest.mark.parametrize(
    ("statement", "start"),
    [
        ("UPDATE users SET balance = 1.00 WHERE balance = 1.0", "content.reference"),
        ("DELETE FROM rewards WHERE id = 3", "content.reference"),
        ("TRUNCATE rewards", "content.reference"),
        ("DROP TABLE rewards", "content.reference"),
        ("DELETE FROM notes WHERE id = 3", "content.other_tables"),
        ("DROP TABLE notes", "content.other_tables"),
    ],
)
def test_content_fires_on_a_copy_that_changed(subject_of: NewSubject, statement: str, start: str) -> None:
    """Any change after the references fails, even one that compares equal."""
    subject = referenced(subject_of())
    script(home_of(subject), statement)
    failed = [check for check in content.check(subject) if check.verdict is Verdict.FAIL]
    assert len(failed) == 1
    assert failed[0].id.startswith(start)


def test_content_leaves_migrated_tables_to_migrations(subject_of: NewSubject) -> None:
    """A listed table may change, but not lose all its rows."""
    subject = referenced(subject_of())
    name = f"{subject.databases[0].name}.public.users"
    subject = replace(subject, changed_by_migration=(name,))
    script(home_of(subject), "ALTER TABLE users ADD COLUMN plan text DEFAULT 'free'")
    assert found(content.check(subject), f"content.reference:{name}").verdict is Verdict.NOT_APPLICABLE
    script(home_of(subject), "TRUNCATE users CASCADE")
    assert found(content.check(subject), f"content.reference:{name}").verdict is Verdict.FAIL


def test_content_without_references_does_not_pass(subject_of: NewSubject) -> None:
    """Nothing to compare with is could-not-verify and does not block."""
    checks = tuple(each for each in content.check(subject_of()) if each.source != "invariant")
    assert verdicts(checks) == {Verdict.COULD_NOT_VERIFY, Verdict.NOT_CONFIGURED}
    assert not any(check.stops for check in checks)


def test_content_compares_with_damaged_production(own_server: Server, subject_of: NewSubject) -> None:
    """Tables the damage did not touch are equal, later rows are told by their commit time, others say why."""
    subject = subject_of()
    name = subject.databases[0].name
    with running(own_server, QUICK):
        script(own_server.endpoint, f"ALTER DATABASE clean RENAME TO {name}")
        with reading(own_server.endpoint) as session:
            at = session.value("SELECT clock_timestamp()")
        script(
            own_server.endpoint.on(name), "INSERT INTO stamps (user_id) VALUES (1), (2)",
            "UPDATE rewards SET kind = 'tea'",
        )  # fmt: skip
        changes = (
            TableChange(database=name, table="public.stamps", inserted=2),
            TableChange(database=name, table="public.rewards", updated=101),
        )
        subject = replace(subject, production=own_server.endpoint, discarded=changes)
        subject = replace(subject, target=Target(kind=TargetKind.TIME, value="", at=at))
        prefix = f"content.production:{name}.public."
        quiet = content.check(subject)
        assert found(quiet, prefix + "users").verdict is Verdict.PASS
        assert found(quiet, prefix + "stamps").verdict is Verdict.PASS
        assert found(quiet, prefix + "rewards").verdict is Verdict.NOT_APPLICABLE
        script(
            home_of(subject), "UPDATE users SET name = 'x' WHERE id = 1", "DELETE FROM stamps WHERE id = 2000"
        )
        fired = content.check(subject)
        assert found(fired, prefix + "users").verdict is Verdict.FAIL
        assert found(fired, prefix + "users").actual.endswith("; 1 row: id 1")
        assert found(fired, prefix + "stamps").verdict is Verdict.FAIL
        assert found(fired, prefix + "stamps").actual.endswith("; 1 row: id 2000")


def test_content_adds_up_the_changes_of_partitions(own_server: Server, subject_of: NewSubject) -> None:
    """The log names partitions; the listed table is their parent."""
    subject = subject_of()
    name = subject.databases[0].name
    database = subject.databases[0].model_copy(update={"critical_tables": ("public.events",)})
    make = (
        "CREATE TABLE events (id int, at date) PARTITION BY RANGE (at)",
        "CREATE TABLE events_old PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
        "INSERT INTO events SELECT i, '2024-05-01' FROM generate_series(1, 50) i",
    )
    subject = replace(subject, databases=(database,))
    script(home_of(subject), *make)
    with running(own_server, QUICK):
        script(own_server.endpoint, f"ALTER DATABASE clean RENAME TO {name}")
        script(own_server.endpoint.on(name), *make)
        touched = TableChange(database=name, table="public.events_old", updated=1)
        quiet = replace(subject, production=own_server.endpoint, discarded=())
        start = f"content.production:{name}.public.events"
        assert found(content.check(quiet), start).verdict is Verdict.PASS
        damaged = replace(quiet, discarded=(touched,))
        assert found(content.check(damaged), start).verdict is Verdict.NOT_APPLICABLE
        script(own_server.endpoint.on(name), "DROP TABLE events_old")
        assert found(content.check(quiet), start).verdict is Verdict.NOT_APPLICABLE


def test_content_fires_on_a_table_missing_at_the_target(subject_of: NewSubject) -> None:
    """A critical table that is not in the copy has no reference, and fails."""
    subject = subject_of()
    script(home_of(subject), "DROP TABLE rewards")
    start = f"content.reference:{subject.databases[0].name}.public.rewards"
    assert found(content.check(referenced(subject)), start).verdict is Verdict.FAIL


def test_content_does_not_trust_an_unknown_damage(subject_of: NewSubject, lab: Server) -> None:
    """Without knowing what changed after the target, production proves nothing."""
    subject = replace(subject_of(), production=lab.endpoint, discarded=None)
    check = found(content.check(subject), "content.production")
    assert check.verdict is Verdict.COULD_NOT_VERIFY


# --- sequences


def test_sequences_are_quiet_when_ahead(subject_of: NewSubject) -> None:
    """Owned, identity and default-only sequences pass, and so does a high water that was raised."""
    subject = subject_of()
    name = subject.databases[0].name
    water = {f"{name}.public.users_id_seq": 500, f"{name}.public.later_seq": 3}
    checks = sequences.check(replace(subject, high_water=water))
    assert verdicts(checks) == {Verdict.PASS, Verdict.NOT_APPLICABLE}
    assert len([check for check in checks if check.id.startswith("sequence:")]) == 4


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT setval('users_id_seq', 400)",
        "SELECT setval('users_id_seq', 500, false)",
        "ALTER TABLE stamps ALTER COLUMN id RESTART WITH 7",
        "SELECT setval('tickets', 2)",
        (
            "CREATE SEQUENCE down INCREMENT -1; CREATE TABLE t (id int DEFAULT nextval('down')); "
            "INSERT INTO t VALUES (-5)"
        ),
    ],
)
def test_sequences_fire_when_behind_their_column(subject_of: NewSubject, statement: str) -> None:
    """A sequence about to hand out an existing value fails."""
    subject = subject_of()
    script(home_of(subject), statement)
    failed = [check for check in sequences.check(subject) if check.verdict is Verdict.FAIL]
    assert len(failed) == 1
    assert failed[0].id.startswith("sequence:")


def test_sequences_fire_below_the_high_water(subject_of: NewSubject) -> None:
    """A value production handed out before the lock must not be handed out again."""
    subject = subject_of()
    name = f"{subject.databases[0].name}.public.users_id_seq"
    check = found(sequences.check(replace(subject, high_water={name: 501})), f"high_water:{name}")
    assert check.verdict is Verdict.FAIL
    assert found(sequences.check(subject), "sequences.high_water").verdict is Verdict.COULD_NOT_VERIFY


# --- sanity


def test_sanity_compares_and_seals(subject_of: NewSubject) -> None:
    """Right values pass, wrong ones fail, text is never shown."""
    ask = (
        Sanity(name="count", sql="SELECT count(*) FROM users WHERE name LIKE 'n%'", expect=500),
        Sanity(name="bool", sql="SELECT true", expect=True),
        Sanity(name="numeric", sql="SELECT 1.50", expect=1.5),
        Sanity(name="time", sql="SELECT timestamptz '2025-10-05 12:00+00'", expect="2025-10-05T12:00:00Z"),
        Sanity(name="text", sql="SELECT email FROM users WHERE id = 1", expect="u1@example.org"),
    )
    checks = sanity.check(subject_of(sanity=ask))
    assert verdicts(checks) == {Verdict.PASS}, checks
    assert "example.org" not in repr(checks)


def test_sanity_fires_on_wrong_values_and_refuses_writes(subject_of: NewSubject) -> None:
    """Wrong fails, not-blocking wrong is shown, errors and writes are could-not-verify without row data."""
    ask = (
        Sanity(name="count", sql="SELECT count(*) FROM users", expect=1),
        Sanity(name="one_is_not_true", sql="SELECT 1", expect=True),
        Sanity(name="soft", sql="SELECT 2", expect=1, blocking=False),
        Sanity(name="write", sql="DELETE FROM rewards RETURNING 1", expect=1),
        Sanity(name="two", sql="SELECT 1; SELECT 2", expect=1),
        Sanity(name="rows", sql="SELECT email FROM users", expect="x"),
        Sanity(name="quotes", sql="SELECT email::int FROM users", expect=1),
    )
    checks = sanity.check(subject_of(sanity=ask))
    by_name = {check.id.rpartition(".")[2]: check for check in checks}
    assert by_name["count"].verdict is Verdict.FAIL
    assert by_name["one_is_not_true"].verdict is Verdict.FAIL
    assert (by_name["soft"].verdict, by_name["soft"].stops) == (Verdict.COULD_NOT_VERIFY, False)
    for name in ("write", "two", "rows", "quotes"):
        assert (by_name[name].verdict, by_name[name].stops) == (Verdict.COULD_NOT_VERIFY, True)
    assert "example.org" not in repr(checks)


def test_no_sanity_queries_is_not_configured(subject_of: NewSubject) -> None:
    """Nothing asked is never a pass."""
    assert verdicts(sanity.check(subject_of())) == {Verdict.NOT_CONFIGURED}
