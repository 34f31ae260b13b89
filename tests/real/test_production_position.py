"""Moments of production: what counts as flushed."""

from fixtures.postgres.session import connect
from fixtures.production.position import WRITABLE, flushed, mark_in


def test_an_idle_server_right_after_a_switch_counts_as_flushed(new_server):
    """Behind a fresh segment's header there is nothing to wait for."""
    server = new_server()
    job = server.start({"fsync": "off", "autovacuum": "off", "archive_mode": "off"})
    server.wait_ready(job)
    with connect(server.endpoint, settings=WRITABLE) as session:
        session.do("SELECT pg_current_xact_id()")
        session.do("SELECT pg_switch_wal()")
        now = mark_in(session).lsn

        assert flushed(session, at_least=now).value <= now.value


def test_an_asynchronous_commit_is_flushed_before_it_is_read(new_server):
    """A commit the writer left in memory is waited for."""
    server = new_server()
    job = server.start({"fsync": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "0"})
    server.wait_ready(job)
    with connect(server.endpoint, settings=WRITABLE) as session:
        session.do("SET synchronous_commit = off")
        session.do("CREATE TABLE public.t AS SELECT 1 AS x")
        now = mark_in(session).lsn

        assert flushed(session, at_least=now) >= now
