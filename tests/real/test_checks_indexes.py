"""Indexes against their tables: what differs fires, whatever the kind of index, and what cannot be told says so."""

from dataclasses import replace

import pytest

from fixtures.checks import Subject, content, examination, foreign_keys, physical
from fixtures.errors import DatabaseError
from fixtures.evidence import Check, Verdict
from tests.real import checks_lab
from tests.real.checks_lab import NewSubject, found, home_of, script

template, lab, subject_of = checks_lab.template, checks_lab.lab, checks_lab.subject_of

FLAGS = (
    "UPDATE pg_index SET indisready = {0}, indisvalid = {0} WHERE indexrelid = 'users_email_key'::regclass"
)
HIDE, SHOW = FLAGS.format("false"), FLAGS.format("true")


def users(subject: Subject) -> Check:
    """Return the verdict on the indexes of users."""
    return found(physical.check(subject), f"physical.index_rows:{subject.databases[0].name}.public.users")


def test_every_kind_of_btree_is_quiet_when_whole(subject_of: NewSubject) -> None:
    """Partial, covering, descending, with NULLs, of other collations and operator classes, on partitions and views."""
    subject = subject_of()
    script(
        home_of(subject),
        'CREATE TABLE kinds (a int, b text COLLATE "C", c numeric, d float8, n name, w char(5), j jsonb, u uuid)',
        "INSERT INTO kinds SELECT i % 7, 'B' || i % 3, i / 4.0, -i, 'n' || i, 'w', '{\"a\": 1.0}', gen_random_uuid()"
        " FROM generate_series(1, 400) i",
        "INSERT INTO kinds (a) VALUES (NULL), (NULL)",
        "CREATE INDEX ON kinds (a DESC NULLS LAST) INCLUDE (c)", "CREATE INDEX ON kinds (b)",
        "CREATE INDEX ON kinds (c, d) WHERE a > 3 AND b IS NOT NULL", "CREATE INDEX ON kinds (n)", "CREATE INDEX ON kinds (w)",
        "CREATE INDEX ON kinds (b text_pattern_ops)", "CREATE INDEX ON kinds (j)", "CREATE UNIQUE INDEX ON kinds (u)",
        "CREATE TABLE parted (id int PRIMARY KEY, note text) PARTITION BY RANGE (id)",
        "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (1000)",
        "INSERT INTO parted SELECT i, 'x' FROM generate_series(0, 500) i",
        "CREATE MATERIALIZED VIEW seen AS TABLE notes", "CREATE INDEX ON seen (id)",
        # not vacuumed, so that visibility is asked of the table
        "DELETE FROM kinds WHERE a = 5", "UPDATE kinds SET d = 0 WHERE a = 6",
    )  # fmt: skip
    check = found(physical.check(subject), "physical.other_index_rows")
    assert check.verdict is Verdict.PASS, check
    # two indexes of one column, of which one question reads only one
    assert "heapallindexed: public.kinds_b_idx" in check.reason


def test_an_index_that_lost_a_row_fires(subject_of: NewSubject) -> None:
    """A row written while the index was not kept up is missing from it."""
    subject = subject_of()
    script(home_of(subject), HIDE, "INSERT INTO users (email) VALUES ('lost@example.org')", SHOW)
    check = users(subject)
    assert (check.verdict, check.actual) == (Verdict.FAIL, "public.users_email_key (501 rows, 500 entries)")


def test_an_index_with_a_wrong_key_fires(subject_of: NewSubject) -> None:
    """An entry that points to another row than it says: as many entries as rows, and another sum."""
    subject = subject_of()
    script(
        home_of(subject), "DELETE FROM rewards", "DELETE FROM stamps WHERE user_id = 500", HIDE,
        "DELETE FROM users WHERE id = 500", "VACUUM users", "INSERT INTO users (email) VALUES ('new@example.org')",
        SHOW, "VACUUM users",
    )  # fmt: skip
    check = users(subject)
    assert (check.verdict, check.actual) == (
        Verdict.FAIL, "public.users_email_key (as many entries as rows, but other keys)",
    )  # fmt: skip


def test_an_index_with_an_entry_too_many_fires(subject_of: NewSubject) -> None:
    """An entry of a row that is gone, on a page called all-visible: amcheck's heapallindexed does not look for it."""
    subject = subject_of()
    script(
        home_of(subject), "DELETE FROM rewards", "DELETE FROM stamps WHERE user_id = 500", HIDE,
        "DELETE FROM users WHERE id = 500", "VACUUM users", SHOW,
    )  # fmt: skip
    check = users(subject)
    assert (check.verdict, check.actual) == (Verdict.FAIL, "public.users_email_key (499 rows, 500 entries)")


def test_an_index_on_an_expression_is_proven_the_slow_way(subject_of: NewSubject) -> None:
    """It cannot be summed; heapallindexed answers, and fires on a lost row."""
    subject = subject_of()
    home = home_of(subject)
    script(home, "CREATE INDEX lower_email ON users (lower(email))")
    assert "lower_email" in users(subject).reason
    flags = HIDE.replace("users_email_key", "lower_email")
    script(
        home, flags, "INSERT INTO users (email) VALUES ('lost@example.org')", flags.replace("false", "true")
    )
    assert (users(subject).verdict, users(subject).actual) == (
        Verdict.FAIL, "public.lower_email (by heapallindexed)",
    )  # fmt: skip


def test_without_amcheck_the_sums_are_compared_all_the_same(
    subject_of: NewSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server has no amcheck, that blocks; what needs it not is still proven, and the rest says why."""

    def absent(_endpoint: object) -> object:
        raise DatabaseError("RB502", "extension is not available")

    subject = subject_of()
    script(home_of(subject), "CREATE INDEX lower_email ON users (lower(email))")
    monkeypatch.setattr(examination, "amcheck", absent)
    checks = physical.check(subject)
    name = subject.databases[0].name
    assert found(checks, "physical.amcheck").stops
    assert found(checks, f"physical.index_rows:{name}.public.stamps").verdict is Verdict.PASS
    expression = found(checks, f"physical.index_rows:{name}.public.users")
    assert (expression.verdict, "lower_email" in expression.reason) == (Verdict.COULD_NOT_VERIFY, True)


def test_a_change_between_the_two_readings_is_no_damage(subject_of: NewSubject) -> None:
    """What differs is asked again of one moment before it is called damage."""
    subject = replace(subject_of(), shared={})
    content.check(subject)
    script(home_of(subject), "INSERT INTO users (email) VALUES ('between@example.org')")
    assert users(subject).verdict is Verdict.PASS


def test_groups_that_share_their_reading_say_the_same(subject_of: NewSubject) -> None:
    """Foreign keys asked along with the examination give the verdicts they give alone."""
    subject = subject_of()
    script(
        home_of(subject), "SET session_replication_role = replica", "DELETE FROM users WHERE id IN (1, 500)",
        "DELETE FROM stamps WHERE id = 2000",
    )  # fmt: skip
    alone = foreign_keys.check(subject)
    shared = replace(subject, shared={})
    physical.check(shared)
    assert foreign_keys.check(shared) == alone
    assert {each.verdict for each in alone} == {Verdict.FAIL, Verdict.PASS}


def test_an_examination_past_its_deadline_could_not_verify(subject_of: NewSubject) -> None:
    """Neither a table nor an index is passed unread."""
    checks = physical.check(replace(subject_of(), deadline_s=0.0))
    asked = [each for each in checks if each.source in {"amcheck", "index against table"}]
    assert {each.verdict for each in asked} == {Verdict.COULD_NOT_VERIFY}
    assert all(each.stops for each in asked)


def test_every_table_is_examined_not_only_the_critical(subject_of: NewSubject) -> None:
    """A table nobody listed is one of the others, and its damage fires."""
    subject = subject_of()
    script(home_of(subject), HIDE.replace("users_email_key", "notes_body"), "INSERT INTO notes VALUES (0, 'lost')",
           SHOW.replace("users_email_key", "notes_body"))  # fmt: skip
    check = found(physical.check(subject), "physical.other_index_rows")
    assert (check.verdict, check.actual) == (Verdict.FAIL, "public.notes_body (301 rows, 300 entries)")
