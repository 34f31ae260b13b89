"""
What the whole examination costs: every group that reads rows and pages / pg_amcheck --heapallindexed.

`python -m benchmarks.suite [MILLIONS]`, twelve million rows by default. The checks also prove content, rules, foreign
keys and sequences, of which pg_amcheck knows nothing.
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from benchmarks.content import JOBS, TABLES, schema
from benchmarks.subjects import examined
from benchmarks.world import Table, World, world
from fixtures.checks import GROUPS, take_references
from fixtures.postgres.session import Endpoint
from fixtures.settings import Database

#: groups that ask one database; the others ask the instance and its surroundings
ASKED: Final = ("structure", "privileges", "sequences", "content", "rows", "physical", "foreign_keys")


def main(arguments: Iterable[str]) -> int:
    """Measure and print."""
    rows = int(float(next(iter(arguments), "12")) * 1_000_000)
    with world() as made:
        print(f"loading {rows} rows", flush=True)
        endpoint = made.database("bench", [*schema(rows), "CREATE EXTENSION amcheck"])
        measure(made, endpoint, rows)
    return 0


def measure(made: World, endpoint: Endpoint, rows: int) -> None:
    """Compare the suite with pg_amcheck on the same database."""
    table = Table(f"{rows / 1e6:g} million rows, 7 indexes, 2 foreign keys, {JOBS} connections")
    database = Database(name=endpoint.database, critical_tables=tuple(f"public.{name}" for name in TABLES))
    references = take_references(made.server.endpoint, (database,), jobs=JOBS)

    def ask() -> None:
        subject = replace(examined(made.server, database, jobs=JOBS), references=references)
        answers = [check for group in ASKED for check in GROUPS[group](subject)]
        if any(check.stops for check in answers):
            raise SystemExit(f"a check of the clean database stops: {[c for c in answers if c.stops][:3]}")

    def amcheck(*options: str) -> None:
        made.tool("pg_amcheck", f"-j{JOBS}", *options, endpoint.database, endpoint=endpoint)

    table.add(f"pg_amcheck --heapallindexed -j{JOBS}", lambda: amcheck("--heapallindexed"))
    table.add("the whole suite", ask)
    table.add(f"pg_amcheck -j{JOBS}, order of indexes alone", amcheck)
    table.measure(made, rounds=3)
    table.show()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
