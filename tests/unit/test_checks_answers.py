"""What the checks decide without a database: verdicts, comparisons, boundaries, ids."""

from datetime import UTC, datetime
from decimal import Decimal, localcontext
from pathlib import Path

import pytest

from fixtures.checks import GROUPS, boundary, moment
from fixtures.checks.asking import Question, counted, full_name, guarded, listed
from fixtures.checks.sanity import matches, shown
from fixtures.checks.sums import Column, row_hash, rows_in
from fixtures.errors import DatabaseError, ToolError
from fixtures.evidence import Check, Verdict
from fixtures.postgres.lsn import Lsn

QUESTION = Question(id="a", step="s07.test", blocking=True, source="invariant", about="x")
DOCS = Path(__file__).parents[2] / "docs" / "checks.md"


@pytest.mark.parametrize("error", [DatabaseError("RB502", "no"), ToolError("RB901", "late")])
def test_an_error_is_never_a_pass(error: Exception) -> None:
    """What could not be asked is could-not-verify and keeps its blocking flag."""

    def ask() -> Check:
        raise error

    (answer,) = guarded(QUESTION, ask)
    assert (answer.verdict, answer.stops) == (Verdict.COULD_NOT_VERIFY, True)


def test_a_bug_is_not_hidden_as_a_verdict() -> None:
    """Only expected failures become verdicts."""

    def ask() -> Check:
        raise KeyError

    with pytest.raises(KeyError):
        guarded(QUESTION, ask)


def test_what_is_not_configured_never_blocks() -> None:
    """A team's silence is shown and does not stop a restore."""
    assert not QUESTION.not_configured("nothing").stops


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        (1, 1, True), (1, Decimal("1.0"), True), (1, 1.0, True), (0.1, Decimal("0.1"), True), (1, 2, False),
        (True, True, True), (True, 1, False), (1, True, False), ("x", "x", True), ("x", None, False),
        (0, None, False), ("7", 7, True),
        ("2025-10-05T12:00:00+00:00", datetime(2025, 10, 5, 12, tzinfo=UTC), True),
        ("2025-10-05T12:00:00", datetime(2025, 10, 5, 12, tzinfo=UTC), False),
        ("yesterday", datetime(2025, 10, 5, 12, tzinfo=UTC), False),
    ],
)  # fmt: skip
def test_sanity_values_compare_by_kind(expected: bool | float | str, actual: object, same: bool) -> None:
    """A boolean is no number, a time needs its zone, NULL equals nothing."""
    assert matches(expected, actual) is same


def test_text_is_never_shown() -> None:
    """A text answer may be row data."""
    assert "ann@" not in shown("ann@example.org")
    assert (shown(3), shown(None), shown(True), shown(Decimal("1.50"))) == ("3", "NULL", "true", "1.50")


def test_a_row_hash_grows_with_its_columns_only() -> None:
    """Each column appears once: repeating the previous hash would double the statement per column."""
    columns = [Column(name=f"c{number}", type="int4", hash="hashint4extended") for number in range(50)]
    text = row_hash(columns).as_string()
    assert text.count('"c0"') == 1
    assert len(text) < 200 * len(columns)


@pytest.mark.parametrize(
    ("at", "start"),
    [
        ("0/3000028", "0/3000028"),
        ("0/3000021", "0/3000028"),
        ("0/3002000", "0/3002018"),
        ("0/3000000", "0/3000028"),
    ],
)
def test_a_record_begins_behind_page_headers(at: str, start: str) -> None:
    """A position at a page's border is the start of the record behind its header."""
    assert boundary.first_record_start(Lsn.parse(at), segment_bytes=1 << 24) == Lsn.parse(start)


@pytest.mark.parametrize(
    ("xid", "near", "full"),
    [
        (5, 10, 5),
        (5, (1 << 32) + 3, (1 << 32) + 5),
        ((1 << 32) - 2, (1 << 32) + 3, (1 << 32) - 2),
        (700, 3, 700),
    ],
)
def test_ids_get_the_epoch_nearest_to_the_copy(xid: int, near: int, full: int) -> None:
    """The log names 32 bits of an id; the server wants all 64."""
    assert moment._full(xid, near) == full


def test_names_are_listed_and_counted() -> None:
    """Reasons stay short."""
    assert listed([str(number) for number in range(10)]).endswith("and 2 more")
    assert (counted(1, "row"), counted(0, "row")) == ("1 row", "0 rows")
    assert (full_name("users"), full_name("a.b")) == ("public.users", "a.b")


def test_the_documentation_has_every_group_in_order() -> None:
    """docs/checks.md has one heading per group, in the order they are asked."""
    headings = [line[3:].strip("` ") for line in DOCS.read_text().splitlines() if line.startswith("## `")]
    assert headings == list(GROUPS)


def test_a_sum_and_its_mean_tell_how_many_rows_there_are() -> None:
    """Rows with a NULL are in neither; a mean is rounded, and a sum of zero is no number of rows."""
    for rows in (1, 3, 7, 1_000_003, 987_654_321_012):
        for total in (rows, -12345678901234567 * rows + 1, 9_223_372_036_854_775_000 * rows - 5):
            with localcontext(prec=40):
                mean = Decimal(total) / rows
            # PostgreSQL gives sixteen digits at least
            assert rows_in(str(total), f"{mean:.16g}") == rows
    assert rows_in(None, None) == 0
    assert rows_in("0", "0.00000000000000000000") == 0
    assert rows_in("0", None) == 0


def test_the_first_bigint_is_a_seed_where_a_hash_takes_it() -> None:
    """A numeric zero gives its seed back: it must never be the hash that takes the bare value."""

    def text(*types: str) -> str:
        return row_hash(
            [Column(name=f"c{n}", type=t, hash=f"h_{t}") for n, t in enumerate(types)]
        ).as_string()

    assert "h_int4" in text("int8", "int4")
    assert "h_int8" not in text("int8", "int4")
    assert "h_int8" in text("int8", "numeric")
    assert "h_int8" in text("int8")
    assert text("numeric", "int8", "int4").index("h_numeric") < text("numeric", "int8", "int4").index(
        "h_int4"
    )
