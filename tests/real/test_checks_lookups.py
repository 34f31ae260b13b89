"""Indexes that are no btrees: rows are looked up through them, and what cannot be is named."""

import pytest

from fixtures.checks import physical
from fixtures.evidence import Check, Verdict
from tests.real import checks_lab
from tests.real.checks_lab import NewSubject, found, home_of, script

template, lab = checks_lab.template, checks_lab.lab
own_server, subject_of = checks_lab.own_server, checks_lab.subject_of
_CLEAN = """
CREATE EXTENSION btree_gist;
CREATE TABLE things (id int, name text, tags text[], words tsvector, at tstzrange, spot point, body jsonb);
INSERT INTO things SELECT i, 'n' || i, ARRAY['a', 'b' || i % 7, NULL], to_tsvector('simple', 'it''s w' || i % 5 || ' \\x\\y'),
    tstzrange('2025-01-01', '2025-01-01'::timestamptz + i * interval '1 day'), point(i, -i), '{}' FROM generate_series(1, 300) i;
INSERT INTO things (id, tags, at) VALUES (0, '{}', 'empty'), (NULL, NULL, NULL);
CREATE INDEX things_hash ON things USING hash (name) WHERE id > 10;
CREATE INDEX things_lower ON things USING hash (lower(name));
CREATE INDEX things_tags ON things USING gin (tags);
CREATE INDEX things_words ON things USING gin (words);
CREATE INDEX things_both ON things USING gist (id, at);
CREATE INDEX things_spot ON things USING spgist (spot);
"""
_LOST = "INSERT INTO things SELECT 777, 'lost', ARRAY['b1'], 'w1', '[2025-03-01,2025-04-01)', '(5,5)', '{}'"
_FLAGS = "UPDATE pg_index SET indisready = {0}, indisvalid = {0} WHERE indexrelid = '{1}'::regclass"
_UNKNOWN = """
CREATE INDEX things_range ON things USING brin (id);
CREATE INDEX things_body ON things USING gin (body)
"""


def of_rows(answers: tuple[Check, ...]) -> Check:
    """Return what is said of the indexes of tables that are not critical."""
    return found(answers, "physical.other_index_rows")


@pytest.mark.parametrize("index", ["hash", "lower", "tags", "words", "both", "spot"])
def test_a_row_that_an_index_does_not_find_is_damage(subject_of: NewSubject, index: str) -> None:
    """Of each kind, partial, on an expression, of several columns; whole ones pass and are named nowhere."""
    subject = subject_of()
    script(home_of(subject), *_CLEAN.split(";\n"))
    whole = physical.check(subject)
    assert of_rows(whole).verdict is Verdict.PASS, of_rows(whole)
    assert not [check for check in whole if check.verdict is not Verdict.PASS]
    name = f"things_{index}"
    script(home_of(subject), _FLAGS.format("false", name), _LOST, _FLAGS.format("true", name))
    check = of_rows(physical.check(subject))
    assert check.verdict is Verdict.FAIL
    assert check.actual.startswith(f"public.{name} (")


def test_what_cannot_be_looked_up_is_named(subject_of: NewSubject) -> None:
    """Said, not passed over, not blocking."""
    subject = subject_of()
    script(home_of(subject), *(_CLEAN + _UNKNOWN).split(";\n"))
    check = found(physical.check(subject), "physical.other_indexes")
    assert (check.verdict, check.stops) == (Verdict.COULD_NOT_VERIFY, False)
    assert [name for name in ("range", "body", "tags", "hash") if f"things_{name}" in check.reason] == [
        "range", "body",
    ]  # fmt: skip
