"""
What a proof of content costs, measured in counts: the pass over every table / a parallel count(*) of them.

`python -m benchmarks.content [MILLIONS]`, twelve million rows by default.
"""

import sys
from collections.abc import Iterable
from typing import Final

from benchmarks.world import Table, World, world
from fixtures.checks.asking import HEAP_ONLY, READING
from fixtures.checks.passes import Wanted, readings
from fixtures.checks.relations import read_catalogue
from fixtures.postgres.lanes import team
from fixtures.postgres.session import Endpoint, connect

#: connections of the pass, and workers of a count
JOBS: Final = 2
TABLES: Final = ("users", "stamps", "rewards")
_SCHEMA: Final = """
CREATE TABLE users (id bigserial PRIMARY KEY, email text NOT NULL UNIQUE, name text,
    balance numeric(12,2) NOT NULL CHECK (balance >= 0), created timestamptz NOT NULL);
INSERT INTO users (email, name, balance, created)
    SELECT 'u' || i || '@example.org', 'name ' || i, (i % 10000) / 100.0, timestamptz '2025-01-01' + i * interval '1 s'
    FROM generate_series(1, {users}) i;
CREATE TABLE stamps (id bigserial PRIMARY KEY, user_id bigint NOT NULL, at timestamptz NOT NULL, shop int NOT NULL,
    note text);
INSERT INTO stamps (user_id, at, shop, note)
    SELECT 1 + (i * 7919::bigint) % {users}, timestamptz '2025-01-01' + i * interval '100 ms', i % 500,
        CASE WHEN i % 4 = 0 THEN 'note ' || i END
    FROM generate_series(1, {stamps}) i;
CREATE TABLE rewards (id bigserial PRIMARY KEY, stamp_id bigint, kind text, at timestamptz);
INSERT INTO rewards (stamp_id, kind, at)
    SELECT 1 + (i * 31::bigint) % {stamps}, 'coffee', timestamptz '2025-01-01' + i * interval '1 s'
    FROM generate_series(1, {rewards}) i;
CREATE INDEX ON stamps (user_id);
CREATE INDEX ON stamps (at);
CREATE INDEX ON rewards (stamp_id);
ALTER TABLE stamps ADD FOREIGN KEY (user_id) REFERENCES users;
ALTER TABLE rewards ADD FOREIGN KEY (stamp_id) REFERENCES stamps;
"""


def schema(rows: int) -> tuple[str, ...]:
    """Return the statements of a stamp-card database of so many rows."""
    numbers = {"users": rows // 12, "stamps": rows * 8 // 12, "rewards": rows * 3 // 12}
    return tuple(statement.strip() for statement in _SCHEMA.format(**numbers).split(";") if statement.strip())


def main(arguments: Iterable[str]) -> int:
    """Measure and print."""
    rows = int(float(next(iter(arguments), "12")) * 1_000_000)
    with world() as made:
        print(f"loading {rows} rows", flush=True)
        endpoint = made.database("bench", schema(rows))
        measure(made, endpoint, rows)
    return 0


def measure(made: World, endpoint: Endpoint, rows: int) -> None:
    """Compare the pass with counts and with the usual recipe."""
    table = Table(
        f"Content of {rows / 1e6:g} million rows in {len(TABLES)} tables, {JOBS} connections or workers"
    )
    parallel = {
        **READING, **HEAP_ONLY, "max_parallel_workers_per_gather": str(JOBS), "min_parallel_table_scan_size": "0",
    }  # fmt: skip

    def each(query: str) -> None:
        with connect(endpoint, settings=parallel) as session:
            for name in TABLES:
                session.raw.execute(query.format(name))  # type: ignore[call-overload]

    def take(wanted: Wanted) -> None:
        with team(endpoint, jobs=JOBS, settings=READING) as readers:
            catalogue = read_catalogue(readers.session)
            planned = readings(catalogue, catalogue.relations, wanted, jobs=JOBS)
            answers = readers.ask([task for reading in planned for task in reading.tasks])
            if any(answer.error for answer in answers.values()):
                raise SystemExit("a table could not be read")

    table.add("parallel heap count(*)", lambda: each("SELECT count(*) FROM public.{}"))
    table.add("pass: rows, 64-bit row hashes, NOT NULL", lambda: take(Wanted()))
    table.add("the same with the sums that name a differing row", lambda: take(Wanted(locate=True)))
    table.add("the same with the heap's side of every index sum", lambda: take(Wanted(indexes=True)))
    table.add(
        "usual recipe: sum(hashtextextended(t::text, 0))",
        lambda: each("SELECT count(*), sum(hashtextextended(t::text, 0)) FROM public.{} t"),
    )
    table.measure(made)
    table.show()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
