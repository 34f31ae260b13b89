"""What a restore gives up is counted per table, from the log, deletes and dropped tables included."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import TypeAdapter

from fixtures.evidence import Verdict
from fixtures.postgres.lsn import Lsn
from fixtures.postgres.server import Server
from fixtures.postgres.session import connect
from fixtures.production.discarded import DiscardedWindow, TableLoss, discarded_window, filenode_map
from fixtures.production.filenodes import FilenodeMap
from fixtures.production.position import mark

CHEAP = {"fsync": "off", "listen_addresses": "", "autovacuum": "off", "track_commit_timestamp": "on"}


@dataclass
class World:
    """A server, its target position and the names of storage there."""

    server: Server
    start: Lsn
    start_at: datetime
    earlier: FilenodeMap

    def arguments(self, **other: Any) -> dict[str, Any]:
        now = mark(self.server.endpoint)
        with connect(self.server.endpoint) as session:
            session.do("SELECT pg_switch_wal()")
        return {
            "databases": ["postgres"], "start_lsn": self.start, "start_at": self.start_at,
            "lock_lsn": now.lsn, "lock_at": now.at, "timeline": 1, "binaries": self.server.binaries,
            "folders": [self.server.data / "pg_wal"], "production": self.server.endpoint,
            "filenodes": self.earlier, **other,
        }  # fmt: skip


@pytest.fixture
def world(new_server: Callable[..., Server]) -> World:
    """Five tables with rows, and a transaction that is open at the target."""
    server = new_server("gone")
    server.wait_ready(server.start(CHEAP))
    with connect(server.endpoint) as session:
        for name in ("kept", "cleared", "removed", "rewritten", "wide"):
            table = sql.Identifier("public", name)
            session.do(sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, note text)").format(table))
            session.do(sql.SQL("INSERT INTO {} SELECT g, 'x' FROM generate_series(1, 30) g").format(table))
        session.do("CHECKPOINT")
    with psycopg.connect(server.endpoint.conninfo()) as writer:
        writer.execute("INSERT INTO kept SELECT g, 'open' FROM generate_series(100, 104) g")
        with connect(server.endpoint) as session:
            session.do("INSERT INTO public.kept VALUES (99, 'last one kept')")
        now = mark(server.endpoint)
        world = World(server, now.lsn, now.at, filenode_map(server.endpoint, ["postgres"]))
        writer.execute("SAVEPOINT a")
        writer.execute("INSERT INTO kept VALUES (105, 'open')")
        writer.execute("ROLLBACK TO a")
        writer.execute("INSERT INTO kept VALUES (106, 'open')")
        writer.commit()
    return world


def losses(window: DiscardedWindow) -> dict[str, TableLoss]:
    return {loss.table.removeprefix("postgres.public."): loss for loss in window.tables}


def test_every_kind_of_loss_is_counted_exactly(world: World) -> None:
    """INSERT, UPDATE, DELETE, TRUNCATE, a rewrite, DROP, a new table; ANALYZE is no loss."""
    with connect(world.server.endpoint) as session:
        session.do("UPDATE public.kept SET note = 'y' WHERE id <= 4")
        session.do("DELETE FROM public.kept WHERE id > 20 AND id <= 30")
        session.do("TRUNCATE public.cleared")
        session.do("INSERT INTO public.cleared VALUES (1, 'second life'), (2, 'second life')")
        session.do("DROP TABLE public.removed")
        session.do("VACUUM FULL public.rewritten")
        session.do("CREATE TABLE public.made (id int)")
        session.do("INSERT INTO public.made VALUES (1), (2), (3)")
        session.do(
            "UPDATE public.wide SET note = (SELECT string_agg(md5(g::text), '') FROM generate_series(1, 500) g) WHERE id = 1"
        )
        session.do("ALTER TABLE public.wide ALTER note SET STORAGE EXTERNAL")
        session.do("ANALYZE public.kept")
        session.do("BEGIN")
        session.do("DELETE FROM public.kept")
        session.do("ROLLBACK")

    window = discarded_window(**world.arguments())

    found = losses(window)
    assert (found["kept"].inserted, found["kept"].updated, found["kept"].deleted) == (6, 4, 10)
    assert (found["cleared"].inserted, found["cleared"].storage) == (2, "replaced")
    assert (found["removed"].written, found["removed"].storage) == (0, "dropped")
    assert found["rewritten"].storage == "replaced"
    assert (found["made"].inserted, found["made"].storage) == (3, "")
    assert (found["wide"].inserted, found["wide"].updated) == (0, 1)
    assert set(found) == {"kept", "cleared", "removed", "rewritten", "made", "wide"}
    assert window.transactions == 11
    assert window.schema_changes == 2
    assert window.maintenance == 1
    assert window.verdict is Verdict.PASS
    adapter = TypeAdapter(DiscardedWindow)
    assert adapter.validate_json(adapter.dump_json(window)) == window


def test_an_empty_window_is_empty(world: World) -> None:
    """A target at the lock gives up nothing."""
    arguments = world.arguments()
    arguments["start_lsn"] = arguments["lock_lsn"]

    window = discarded_window(**arguments)

    assert (window.transactions, window.rows, window.verdict) == (0, 0, Verdict.PASS)


def test_without_the_copys_names_dropped_tables_are_not_claimed(world: World) -> None:
    """Storage nobody can name makes the answer unverified, never silently short."""
    with connect(world.server.endpoint) as session:
        session.do("DROP TABLE public.removed")

    window = discarded_window(**world.arguments(filenodes=None))

    assert window.verdict is Verdict.COULD_NOT_VERIFY
    assert any("no catalog" in note for note in window.notes)


def test_a_production_that_is_down_is_counted_by_the_copys_names(world: World) -> None:
    """The log and the restored copy's catalogs are enough."""
    with connect(world.server.endpoint) as session:
        session.do("DELETE FROM public.kept WHERE id <= 5")

    window = discarded_window(**world.arguments(production=None))

    assert losses(window)["kept"].deleted == 5


def test_without_the_log_commit_times_count_what_is_left(world: World) -> None:
    """Rows written are counted, deletes are said to be missing."""
    with connect(world.server.endpoint) as session:
        session.do("UPDATE public.cleared SET note = 'y' WHERE id <= 4")
        session.do("DELETE FROM public.cleared WHERE id > 20")

    window = discarded_window(**world.arguments(folders=[]))

    assert (window.method, window.verdict) == ("commit-timestamps", Verdict.COULD_NOT_VERIFY)
    assert (losses(window)["cleared"].written, losses(window)["cleared"].deleted) == (4, None)
    assert losses(window)["kept"].written == 6
    assert any("deletes" in note for note in window.notes)


def test_with_nothing_to_read_the_window_is_not_verified(world: World, tmp_path: Path) -> None:
    """Neither log nor production: no number is made up."""
    window = discarded_window(**world.arguments(folders=[tmp_path], production=None))

    assert (window.method, window.transactions) == ("none", None)
    assert window.verdict is Verdict.COULD_NOT_VERIFY
    assert datetime.now(UTC) > world.start_at
