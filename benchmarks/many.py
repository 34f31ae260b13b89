"""
What many small objects cost: everything structural, the sums of every table, sequences and foreign keys.

`python -m benchmarks.many [TABLES]`, two thousand tables and three quarters as many foreign keys by default, and
half of it beside, to see whether the cost grows with their number alone.
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from benchmarks.subjects import examined
from benchmarks.world import Table, World, world
from fixtures.checks import GROUPS, References, take_references
from fixtures.postgres.session import Endpoint
from fixtures.settings import Database

#: rows of each table
ROWS: Final = 20
#: tables made in one transaction: their locks must fit
TOGETHER: Final = 200
#: connections of the checks, and of pg_amcheck
JOBS: Final = 2
#: everything about objects; sums come with the content
STRUCTURAL: Final = ("structure", "privileges", "sequences", "content", "foreign_keys")
_TABLE: Final = (
    "CREATE TABLE t{number} (id bigserial PRIMARY KEY, up bigint{parent}, name text NOT NULL, at timestamptz);"
    " CREATE INDEX ON t{number} (up);"
    " INSERT INTO t{number} (up, name, at) SELECT {up}, 'n' || i, now() FROM generate_series(1, {rows}) i"
)


def statements(tables: int) -> Iterable[str]:
    """Yield what makes so many tables, three of four with a foreign key."""
    made = []
    for number in range(tables):
        parent = f" REFERENCES t{number - 1}" if number % 4 else ""
        made.append(_TABLE.format(number=number, parent=parent, up="i" if parent else "NULL", rows=ROWS))
    for at in range(0, tables, TOGETHER):
        yield "; ".join(made[at : at + TOGETHER])


def main(arguments: Iterable[str]) -> int:
    """Measure and print."""
    tables = int(next(iter(arguments), "2000"))
    with world() as made:
        print(f"making {tables} and {tables // 2} tables", flush=True)
        whole = made.database("many", ["CREATE EXTENSION amcheck", *statements(tables)])
        half = made.database("half", ["CREATE EXTENSION amcheck", *statements(tables // 2)])
        measure(made, whole, half, tables)
    return 0


def measure(made: World, whole: Endpoint, half: Endpoint, tables: int) -> None:
    """Compare the structural groups with pg_dump's and pg_amcheck's reading of the same."""
    table = Table(f"{tables} tables, {tables * 3 // 4} foreign keys, {JOBS} connections")

    def taken(endpoint: Endpoint) -> References:
        return take_references(made.server.endpoint, (Database(name=endpoint.database),), jobs=JOBS)

    def ask(endpoint: Endpoint, references: References) -> None:
        database = Database(name=endpoint.database)
        subject = replace(examined(made.server, database, jobs=JOBS), references=references)
        answers = [check for group in STRUCTURAL for check in GROUPS[group](subject)]
        if any(check.stops for check in answers):
            raise SystemExit(f"a check of the clean database stops: {[c for c in answers if c.stops][:3]}")

    table.add("pg_dump --schema-only, structure alone, for scale",
              lambda: made.tool("pg_dump", "--schema-only", "-f", "/dev/null", endpoint=whole))  # fmt: skip
    known = taken(whole)
    table.add("structure, privileges, sequences, sums, foreign keys", lambda: ask(whole, known))
    table.add("the same with the sums at the target", lambda: ask(whole, taken(whole)))
    table.add("the same of half as many tables", lambda: ask(half, taken(half)))
    table.add(
        f"pg_amcheck -j{JOBS}", lambda: made.tool("pg_amcheck", f"-j{JOBS}", whole.database, endpoint=whole)
    )
    table.measure(made)
    table.show()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
