"""A checksum that differs is narrowed to its rows in few round trips, without showing what is personal."""

from collections.abc import Callable, Iterator

import pytest

from fixtures.checks import narrowing
from fixtures.checks.asking import reading
from fixtures.checks.narrowing import Compared, Narrowed, narrow
from fixtures.checks.relations import read_catalogue
from fixtures.checks.sums import columns_of
from fixtures.evidence import keyed_hash
from fixtures.postgres.session import Endpoint
from tests.real import checks_lab
from tests.real.checks_lab import NewSubject, home_of, script

template, lab, subject_of = checks_lab.template, checks_lab.lab, checks_lab.subject_of

TABLE = (
    "CREATE TABLE wide (id bigint PRIMARY KEY, note text)",
    "INSERT INTO wide SELECT i * 37 - 100000, 'n' || i FROM generate_series(1, 20000) i",
)
Look = Callable[[], Narrowed | None]


@pytest.fixture
def sides(subject_of: NewSubject) -> Iterator[tuple[Endpoint, Look]]:
    """Two databases with the same table, one of them to be changed, and a look at where they differ."""
    ours, theirs = home_of(subject_of()), home_of(subject_of())
    script(ours, *TABLE)
    script(theirs, *TABLE)
    with reading(ours) as one, reading(theirs) as other:
        catalogue = read_catalogue(one)
        columns = columns_of(catalogue.roots["public.wide"][0].attributes, catalogue.bytea_hash)
        yield (
            ours,
            lambda: narrow(Compared(ours=one, theirs=other, table="public.wide", columns=columns, key="id")),
        )


def test_changed_lost_and_added_rows_are_named(sides: tuple[Endpoint, Look]) -> None:
    """Three rows among twenty thousand, of sparse and negative keys, in four round trips."""
    ours, look = sides
    assert look() is None
    script(
        ours, "UPDATE wide SET note = 'x' WHERE id = 37 - 100000", "DELETE FROM wide WHERE id = 37 * 700 - 100000",
        "INSERT INTO wide VALUES (5, 'new')",
    )  # fmt: skip
    assert look() == Narrowed(keys=(37 - 100000, 37 * 700 - 100000, 5), more=False, trips=4)


def test_a_row_outside_the_other_sides_range_is_named(sides: tuple[Endpoint, Look]) -> None:
    """The range is that of both sides."""
    ours, look = sides
    script(ours, "INSERT INTO wide VALUES (900000000, 'far')")
    found = look()
    assert found is not None
    assert (found.keys, found.more) == ((900000000,), False)


def test_a_table_that_differs_everywhere_says_so(sides: tuple[Endpoint, Look]) -> None:
    """The first rows are named, and that there are more."""
    ours, look = sides
    script(ours, "UPDATE wide SET note = 'x'")
    found = look()
    assert found is not None
    assert found.more
    assert len(found.keys) == narrowing.FOLLOWED
    assert found.told("id", personal=False).startswith("at least 4 rows: id -99963, ")


def test_a_personal_key_is_sealed() -> None:
    """Equal keys give equal seals within a run, and none is shown."""
    told = Narrowed(keys=(12345,), more=False, trips=3).told("card", personal=True)
    assert told == f"1 row: card sealed {keyed_hash('12345')}"
    assert "12345" not in told
