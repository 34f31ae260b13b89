"""Reconciliation packs hold exactly the rows written after a moment, readable by their owner only."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from fixtures.errors import RefusedError, StepError
from fixtures.postgres.server import Server
from fixtures.postgres.session import connect
from fixtures.production.pack import DELETES, MANIFEST, snapshot_of, verify_pack, write_pack

CHEAP = {"fsync": "off", "listen_addresses": "", "autovacuum": "off"}


def start(new_server: Callable[..., Server], *, timestamps: str = "on") -> Server:
    server = new_server("pack")
    server.wait_ready(server.start({**CHEAP, "track_commit_timestamp": timestamps}))
    with connect(server.endpoint) as session:
        session.do('CREATE SCHEMA "odd.one"')
        session.do("CREATE TABLE public.stamps (id int PRIMARY KEY, note text, extra json)")
        session.do('CREATE TABLE "odd.one"."a/b" (id int)')
        session.do("CREATE TABLE public.quiet (id int)")
        session.do("INSERT INTO public.quiet VALUES (1)")
        session.do("INSERT INTO public.stamps SELECT g, 'before' FROM generate_series(1, 20) g")
        session.do("CHECKPOINT")
    return server


def change(server: Server) -> None:
    """Insert, update and delete after the moment."""
    with connect(server.endpoint) as session:
        session.do(
            "INSERT INTO public.stamps VALUES (100, E'tab\\t \"quote\" \\\\ back\\nline', E'{\"a\":\\n1}')"
        )
        session.do("UPDATE public.stamps SET note = 'after' WHERE id IN (3, 4)")
        session.do("DELETE FROM public.stamps WHERE id = 9")
        session.do('INSERT INTO "odd.one"."a/b" VALUES (7)')


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("bound", ["time", "snapshot", "both"])
def test_a_pack_holds_exactly_the_rows_written_since(
    new_server: Callable[..., Server], tmp_path: Path, bound: str
) -> None:
    """Each bound alone finds the same rows; quotes, tabs and line breaks come through."""
    server = start(new_server, timestamps="on" if bound != "snapshot" else "off")
    since, snapshot = datetime.now(UTC), snapshot_of(server.endpoint)
    change(server)

    report = write_pack(
        source=server.endpoint, databases=["postgres"], folder=tmp_path / "after-target",
        since=None if bound == "snapshot" else since, snapshot="" if bound == "time" else snapshot,
    )  # fmt: skip

    stamps = rows(tmp_path / "after-target/postgres/public.stamps.jsonl")
    assert sorted(row["id"] for row in stamps) == [3, 4, 100]
    assert next(row for row in stamps if row["id"] == 100)["note"] == 'tab\t "quote" \\ back\nline'
    assert rows(tmp_path / "after-target/postgres/odd%2Eone.a%2Fb.jsonl") == [{"id": 7}]
    assert not (tmp_path / "after-target/postgres/public.quiet.jsonl").exists()
    assert report.rows == 4
    assert report.complete
    assert DELETES in report.notes
    assert verify_pack(tmp_path / "after-target") == report


def test_a_pack_is_private(new_server: Callable[..., Server], tmp_path: Path) -> None:
    """Files are 0600 and folders 0700, whatever the umask; the manifest holds no row."""
    server = start(new_server)
    snapshot = snapshot_of(server.endpoint)
    change(server)

    write_pack(source=server.endpoint, databases=["postgres"], folder=tmp_path / "pack", snapshot=snapshot)

    for path in (tmp_path / "pack", *(tmp_path / "pack").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    assert "after" not in (tmp_path / "pack" / MANIFEST).read_text()


def test_an_open_transactions_savepoint_is_not_lost(
    new_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Rows of a transaction open at the moment are in, also those written in a savepoint."""
    server = start(new_server, timestamps="off")
    with psycopg.connect(server.endpoint.conninfo()) as writer:
        writer.execute("INSERT INTO stamps VALUES (200, 'top')")
        writer.execute("SAVEPOINT a")
        writer.execute("INSERT INTO stamps VALUES (201, 'savepoint')")
        writer.execute("RELEASE a")
        with connect(server.endpoint) as session:
            session.do("INSERT INTO public.quiet VALUES (2)")
        snapshot = snapshot_of(server.endpoint)
        writer.commit()

    report = write_pack(
        source=server.endpoint, databases=["postgres"], folder=tmp_path / "pack", snapshot=snapshot
    )

    assert sorted(row["id"] for row in rows(tmp_path / "pack/postgres/public.stamps.jsonl")) == [200, 201]
    assert len(report.notes) == 2


def test_a_second_pack_sets_the_first_aside(new_server: Callable[..., Server], tmp_path: Path) -> None:
    """A repeated rollback never removes rows that an earlier pack saved."""
    server = start(new_server)
    snapshot = snapshot_of(server.endpoint)
    change(server)
    arguments = {"source": server.endpoint, "databases": ["postgres"], "folder": tmp_path / "pack"}
    write_pack(**arguments, snapshot=snapshot)
    with connect(server.endpoint) as session:
        session.do("DELETE FROM public.stamps")

    again = write_pack(**arguments, snapshot=snapshot)

    assert again.rows == 1
    assert verify_pack(tmp_path / "pack.earlier-1").rows == 4


def test_times_that_do_not_reach_back_are_not_complete(
    new_server: Callable[..., Server], tmp_path: Path
) -> None:
    """A time before commit times were kept cannot be covered, and the pack says so."""
    server = start(new_server)

    report = write_pack(
        source=server.endpoint, databases=["postgres"], folder=tmp_path / "pack",
        since=datetime(2020, 1, 1, tzinfo=UTC),
    )  # fmt: skip

    assert not report.complete


def test_without_commit_times_or_a_snapshot_a_pack_is_refused(
    new_server: Callable[..., Server], tmp_path: Path
) -> None:
    """No guess is written; nothing is left behind."""
    server = start(new_server, timestamps="off")

    with pytest.raises(RefusedError, match="RB409"):
        write_pack(
            source=server.endpoint, databases=["postgres"], folder=tmp_path / "pack", since=datetime.now(UTC)
        )

    assert list(tmp_path.iterdir()) == []


def test_a_changed_pack_is_found(new_server: Callable[..., Server], tmp_path: Path) -> None:
    """One changed byte, or a wider mode, is not the pack that was written."""
    server = start(new_server)
    snapshot = snapshot_of(server.endpoint)
    change(server)
    write_pack(source=server.endpoint, databases=["postgres"], folder=tmp_path / "pack", snapshot=snapshot)
    file = tmp_path / "pack/postgres/public.stamps.jsonl"

    file.chmod(0o644)
    with pytest.raises(StepError, match="RB409"):
        verify_pack(tmp_path / "pack")
    file.chmod(0o600)
    verify_pack(tmp_path / "pack")
    file.write_bytes(file.read_bytes()[:-2] + b"x\n")
    with pytest.raises(StepError, match="RB409"):
        verify_pack(tmp_path / "pack")


@pytest.mark.parametrize("kept", [False, True])
def test_large_objects_an_administrator_may_not_read_are_named(
    new_server: Callable[..., Server], tmp_path: Path, kept: bool
) -> None:
    """A managed service's may not; where there are none, nothing is missing."""
    server = start(new_server)
    snapshot = snapshot_of(server.endpoint)
    with connect(server.endpoint) as session:
        session.do("CREATE ROLE master LOGIN IN ROLE pg_monitor")
        session.do('GRANT USAGE ON SCHEMA "odd.one" TO master')
        for schema in ('"odd.one"', "public"):
            session.do(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO master")
        if kept:
            session.do("SELECT lo_from_bytea(0, 'kept'::bytea)")
    change(server)
    endpoint = replace(server.endpoint, user="master")

    report = write_pack(source=endpoint, databases=["postgres"], folder=tmp_path / "pack", snapshot=snapshot)

    assert report.rows == 4
    assert report.complete is not kept
    assert any("1 large objects are not in it" in note for note in report.notes) is kept
