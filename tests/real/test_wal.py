"""Commits and changes read from a real write-ahead log."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fixtures.errors import ProviderError
from fixtures.postgres.lineage import ancestry
from fixtures.postgres.lsn import Lsn, segment_name
from fixtures.postgres.pages import record_end
from fixtures.postgres.server import Server
from fixtures.postgres.session import connect
from fixtures.postgres.wal import Change, RelFile, commits, restore_points, segment_file

CHEAP = {"fsync": "off", "max_prepared_transactions": "2", "listen_addresses": ""}


@dataclass
class Log:
    """A finished server's WAL and what is known about it."""

    server: Server
    wal: Path
    start: Lsn
    end: Lsn
    facts: dict[str, int]
    table: RelFile


@pytest.fixture
def log(new_server: Callable[..., Server]) -> Log:
    """A short history: inserts, sub-transactions, an abort, a prepared transaction, a truncate."""
    server = new_server("wal")
    job = server.start(CHEAP)
    server.wait_ready(job)
    facts: dict[str, int] = {}
    with connect(server.endpoint) as session:
        session.do("CREATE TABLE public.t (id int PRIMARY KEY, v text)")
        database = session.value("SELECT oid FROM pg_database WHERE datname = current_database()")
        file = RelFile(database, session.value("SELECT pg_relation_filenode('public.t')"))
        start = Lsn.parse(session.value("SELECT pg_current_wal_insert_lsn()"))
        for name, statements in {
            "insert": ["INSERT INTO public.t SELECT g, 'x' FROM generate_series(1, 10) g"],
            "update": ["UPDATE public.t SET v = 'y' WHERE id <= 4"],
            "sub": ["SAVEPOINT a", "DELETE FROM public.t WHERE id = 1", "SAVEPOINT b",
                    "DELETE FROM public.t WHERE id = 2", "ROLLBACK TO b", "RELEASE a"],
        }.items():  # fmt: skip
            session.do("BEGIN")
            for statement in statements:
                session.do(statement)
            facts[name] = session.value("SELECT pg_current_xact_id()::text::int")
            session.do("COMMIT")
        session.do("BEGIN")
        session.do("DELETE FROM public.t")
        session.do("ROLLBACK")
        session.do("SELECT pg_create_restore_point('before prepared')")
        session.do("BEGIN")
        session.do("INSERT INTO public.t VALUES (20, 'p')")
        facts["prepared"] = session.value("SELECT pg_current_xact_id()::text::int")
        session.do("PREPARE TRANSACTION 'two'")
        session.do("COMMIT PREPARED 'two'")
        session.do("TRUNCATE public.t")
        end = Lsn.parse(session.value("SELECT pg_current_wal_insert_lsn()"))
    server.stop()
    return Log(server, server.data / "pg_wal", start, end, facts, file)


def test_commits_are_read_with_their_rows(log: Log) -> None:
    """Each commit has its xid, its time and the rows it changed; an aborted one is not there."""
    found = list(commits(log.server.binaries, [log.wal], timeline=1, start=log.start, end=log.end, rows=True))

    assert list(log.facts.values()) == [commit.xid for commit in found[:4]]
    assert Change(inserted=10) == found[0].changes[log.table]
    assert Change(updated=4) == found[1].changes[log.table]
    assert Change(deleted=1) == found[2].changes[log.table]
    assert Change(inserted=1) == found[3].changes[log.table]
    assert log.table in found[4].dropped
    assert len(found) == 5
    assert all(commit.at.tzinfo is UTC and commit.at <= datetime.now(UTC) for commit in found)


def test_a_commits_end_is_where_the_next_record_begins(log: Log) -> None:
    """The last commit ends at the position the server reported behind it."""
    found = list(commits(log.server.binaries, [log.wal], timeline=1, start=log.start, end=log.end))

    assert log.end == found[-1].next_lsn
    assert all(commit.lsn < commit.next_lsn for commit in found)


def test_without_an_end_the_read_goes_to_the_end_of_the_log(log: Log) -> None:
    """Recycled and missing segments behind the end are no error."""
    bounded = list(commits(log.server.binaries, [log.wal], timeline=1, start=log.start, end=log.end))
    unbounded = list(commits(log.server.binaries, [log.wal], timeline=1, start=log.start))

    assert bounded == unbounded


def test_restore_points_are_found_by_name(log: Log) -> None:
    """A named point has its position."""
    found = list(restore_points(log.server.binaries, [log.wal], timeline=1, start=log.start))

    assert [point.name for point in found] == ["before prepared"]
    assert log.start < found[0].lsn < log.end


def test_a_missing_segment_before_the_end_is_refused(log: Log) -> None:
    """A read with an end never stops early in silence."""
    beyond = Lsn(log.end.value + 64 * 16 * 1024 * 1024)

    with pytest.raises(ProviderError) as error:
        list(commits(log.server.binaries, [log.wal], timeline=1, start=log.start, end=beyond))

    assert error.value.code == "RB302"


def test_segments_are_taken_from_the_first_folder_that_has_them(log: Log, tmp_path: Path) -> None:
    """An empty archive is filled up from the rescued log; a truncated segment is refused."""
    name = segment_name(1, log.start.segment())
    archive = tmp_path / "archive"
    archive.mkdir()
    expected = list(commits(log.server.binaries, [log.wal], timeline=1, start=log.start, end=log.end))

    assert expected == list(
        commits(log.server.binaries, [archive, log.wal], timeline=1, start=log.start, end=log.end)
    )

    shutil.copyfile(log.wal / name, archive / name)
    with (archive / name).open("r+b") as file:
        file.truncate(8_000_000)
    with pytest.raises(ProviderError, match="8000000 bytes"):
        list(commits(log.server.binaries, [archive, log.wal], timeline=1, start=log.start, end=log.end))


def test_a_finished_segment_is_taken_before_a_partial_one(log: Log, tmp_path: Path) -> None:
    """A receiver's segment, cut short when it lost its connection, holds less than the one that was rescued."""
    archive, rescued = tmp_path / "archive", tmp_path / "rescued"
    for folder in (archive, rescued):
        shutil.copytree(log.wal, folder)
    last = segment_name(1, log.end.segment())
    (archive / last).rename(archive / f"{last}.partial")

    chain = ancestry([archive], 1)

    assert segment_file([archive, rescued], log.end.segment(), chain=chain) == rescued / last
    (rescued / last).unlink()
    assert segment_file([archive, rescued], log.end.segment(), chain=chain) == archive / f"{last}.partial"


def test_damage_inside_the_log_is_not_its_end(log: Log, tmp_path: Path) -> None:
    """A flipped byte inside a bounded read is refused."""
    for path in log.wal.glob("0*"):
        shutil.copyfile(path, tmp_path / path.name)
    name = tmp_path / segment_name(1, log.start.segment())
    with name.open("r+b") as file:
        file.seek(log.start.value % (16 * 1024 * 1024) + 64)
        file.write(b"\xff" * 16)

    with pytest.raises(ProviderError) as error:
        list(commits(log.server.binaries, [tmp_path], timeline=1, start=log.start, end=log.end))

    assert error.value.code == "RB302"


def test_a_bound_right_behind_a_segments_header_ends_the_read(new_server: Callable[..., Server]) -> None:
    """There a base backup begins; what is before it is read, and nothing behind it."""
    server = new_server("bound")
    server.wait_ready(server.start({**CHEAP, "wal_keep_size": "1GB"}))
    xids, ends = [], []
    with connect(server.endpoint) as session:
        session.do("CREATE TABLE public.t (id int)")
        start = Lsn.parse(session.value("SELECT pg_current_wal_insert_lsn()"))
        for row in range(4):
            session.do("SELECT pg_switch_wal()")
            session.do("BEGIN")
            session.do("INSERT INTO public.t VALUES (%s)", (row,))
            xids.append(session.value("SELECT pg_current_xact_id()::text::int"))
            session.do("COMMIT")
            number = Lsn.parse(session.value("SELECT pg_current_wal_lsn()")).segment()
            ends.append(Lsn((number + 1) * 16 * 1024 * 1024))
    server.stop()

    for count, end in enumerate(ends[:-1], 1):
        for within in (0, 1, 40):
            bound = Lsn(end.value + within)
            found = commits(server.binaries, [server.data / "pg_wal"], timeline=1, start=start, end=bound)
            assert [commit.xid for commit in found] == xids[:count]


def test_a_record_over_a_page_end_counts_the_page_header() -> None:
    """The end of a record skips the short header, and the long one at a segment's start."""
    assert Lsn(8192 + 24 + 8) == record_end(Lsn(8192 - 16), 24)
    assert Lsn(16 * 1024 * 1024 + 40 + 8) == record_end(Lsn(16 * 1024 * 1024 - 16), 24)
    assert Lsn(8192) == record_end(Lsn(8192 - 16), 16)
