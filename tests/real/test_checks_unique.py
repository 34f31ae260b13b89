"""Keys that are there twice are found also where amcheck does not look for them, as before PostgreSQL 17."""

import pytest

from fixtures.checks import physical
from fixtures.checks.amcheck import Amcheck
from fixtures.evidence import Verdict
from tests.real import checks_lab
from tests.real.checks_lab import NewSubject, found, home_of, script, verdicts

template, lab = checks_lab.template, checks_lab.lab
own_server, subject_of = checks_lab.own_server, checks_lab.subject_of
_FLAG = "UPDATE pg_index SET indisunique = {} WHERE indexrelid = '{}'::regclass"
_CLEAN = """
CREATE EXTENSION citext;
CREATE TABLE odd (a int, b text, c citext, d numeric);
CREATE UNIQUE INDEX odd_lower ON odd (lower(b), a);
CREATE UNIQUE INDEX odd_blind ON odd (c);
CREATE UNIQUE INDEX odd_nulls ON odd (d) NULLS NOT DISTINCT WHERE a > 1;
CREATE UNIQUE INDEX odd_plain ON odd (a);
INSERT INTO odd VALUES (1, 'x', 'e', NULL), (2, 'X', 'f', NULL), (3, NULL, NULL, 1), (NULL, NULL, NULL, 1), (NULL, 'x', NULL, 1)
"""


@pytest.fixture(autouse=True)
def without_checkunique(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take amcheck's own search away, as older majors are."""
    monkeypatch.setattr(Amcheck, "sees_duplicates", property(lambda _: False))


@pytest.mark.parametrize(
    ("index", "row"),
    [
        ("odd_lower", "(2, 'x', 'g', 5)"),
        ("odd_blind", "(5, 'y', 'E', 5)"),
        ("odd_nulls", "(5, 'z', 'h', NULL)"),
        ("odd_plain", "(3, 'q', 'i', 5)"),
    ],
)
def test_a_key_that_is_there_twice_is_found(subject_of: NewSubject, index: str, row: str) -> None:
    """By expression, by a type's own equality, NULL where NULLs are equal, and plain; only that index is named."""
    subject = subject_of()
    script(home_of(subject), *_CLEAN.split(";"))
    assert verdicts(physical.check(subject)) == {Verdict.PASS}
    script(home_of(subject), *(_FLAG.format("false", name) for name in ("odd_lower", "odd_blind", "odd_nulls", "odd_plain")),
           f"INSERT INTO odd VALUES {row}",  # noqa: S608 - constants
           _FLAG.format("true", index))  # fmt: skip
    check = found(physical.check(subject), "physical.other_tables")
    assert check.verdict is Verdict.FAIL
    assert check.actual == f"damaged: index public.{index} (1)"


def test_a_key_of_another_equality_is_named(subject_of: NewSubject) -> None:
    """What GROUP BY would not take for equal alike cannot be asked so."""
    subject = subject_of()
    script(home_of(subject), "CREATE UNIQUE INDEX users_pattern ON users (email text_pattern_ops)")
    check = found(physical.check(subject), "physical.indexes")
    assert (check.verdict, check.stops) == (Verdict.COULD_NOT_VERIFY, False)
    assert "users_pattern (unique by" in check.reason
