"""
What it costs to name the one row that differs: from a manifest's sums alone / a content pass, beside a diff tool.

`python -m benchmarks.naming [MILLIONS]`, six million rows by default. The manifest's way needs one database; namidiff, a
maintained fork of data-diff, needs both, the one before and the one after. It is not of this project's lock: `make
bench-tools` puts it, hash-verified, into a place of its own.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchmarks.content import JOBS
from benchmarks.world import LOAD_S, Table, World, world
from fixtures.checks.asking import READING
from fixtures.checks.manifested import key_of, weighed
from fixtures.checks.passes import Wanted, readings
from fixtures.checks.references import table_sums
from fixtures.checks.relations import read_catalogue
from fixtures.checks.sums import TableSum
from fixtures.command import run
from fixtures.postgres.lanes import team
from fixtures.postgres.session import Endpoint

TOOLS: Final = Path(__file__).parent.parent / ".venv-bench" / "bin"
TABLE: Final = "public.stamps"
_SCHEMA: Final = """
CREATE TABLE stamps (id bigserial PRIMARY KEY, user_id bigint NOT NULL, at timestamptz NOT NULL, shop int NOT NULL,
    note text);
INSERT INTO stamps (user_id, at, shop, note)
    SELECT 1 + (i * 7919::bigint) % 1000000, timestamptz '2025-01-01' + i * interval '100 ms', i % 500,
        CASE WHEN i % 4 = 0 THEN 'note ' || i END
    FROM generate_series(1, {rows}) i
"""
_CHANGE: Final = "UPDATE stamps SET shop = shop + 1 WHERE id = {row}"


def main(arguments: Iterable[str]) -> int:
    """Measure and print."""
    rows = int(float(next(iter(arguments), "6")) * 1_000_000)
    with world() as made:
        print(f"loading {rows} rows, twice", flush=True)
        statements = _SCHEMA.format(rows=rows).split(";")
        before = made.database("before", statements)
        after = made.database("after", [*statements, _CHANGE.format(row=rows // 2)])
        measure(made, before, after, rows)
    return 0


def measure(made: World, before: Endpoint, after: Endpoint, rows: int) -> None:
    """Compare the ways to name the row, all in one run."""
    table = Table(f"One changed row of {rows / 1e6:g} million, {JOBS} connections")
    manifest = _sums(before)
    known = _sums(after)

    def take() -> None:
        with team(after, jobs=JOBS, settings=READING) as readers:
            catalogue = read_catalogue(readers.session)
            planned = readings(catalogue, catalogue.relations, Wanted(), jobs=JOBS)
            readers.ask([task for reading in planned for task in reading.tasks])

    def name() -> None:
        with team(after, jobs=JOBS, settings=READING) as readers:
            catalogue = read_catalogue(readers.session)
            weighted = weighed(readers, catalogue, TABLE, jobs=JOBS)
        _found(
            key_of(
                manifest, TableSum(rows=known.rows, checksum=known.checksum, max_key=None, weighted=weighted)
            )
        )

    def tell_and_name() -> None:
        _found(key_of(manifest, _sums(after)))

    def _found(key: int | None) -> None:
        if key != rows // 2:
            raise SystemExit(f"named the row {key}")

    table.add("content pass: rows, 64-bit row hashes, NOT NULL", take)
    table.add("naming the row of a table the pass found to differ", name)
    table.add("both in one reading", tell_and_name)
    tool = TOOLS / "namidiff"
    if tool.exists():
        table.add("namidiff, with both databases", lambda: _namidiff(tool, before, after, rows))
    else:
        print("namidiff is not here: make bench-tools", flush=True)
    table.measure(made)
    table.show()


def _sums(endpoint: Endpoint) -> TableSum:
    """Return what a manifest holds of the table."""
    with team(endpoint, jobs=JOBS, settings=READING) as readers:
        return table_sums(readers, read_catalogue(readers.session), jobs=JOBS, locate=True)[TABLE]


def _namidiff(tool: Path, before: Endpoint, after: Endpoint, rows: int) -> None:
    told = run(
        [tool, f"postgresql:///{before.database}", "stamps", f"postgresql:///{after.database}", "stamps", "-k", "id",
         "-c", "%"],
        timeout_s=LOAD_S, env=after.environment(),
    )  # fmt: skip
    if str(rows // 2) not in told.stdout:
        raise SystemExit("namidiff named another row")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
