"""Production's state as the probes see it, and what is read and rescued from it."""

import shutil
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.errors import ProviderError, ToolError
from fixtures.postgres.lsn import Lsn, segment_name
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import Endpoint, connect
from fixtures.postgres.wal import commits
from fixtures.production.capture import capture, sequence_high_water
from fixtures.production.rescue import rescue_wal
from fixtures.production.state import (
    State,
    cluster_of,
    cluster_of_files,
    probe,
    sizes,
    unlisted_databases,
)
from tests.limits import small_files

CHEAP = {"fsync": "off", "listen_addresses": "", "autovacuum": "off"}
BOUND_S = 20.0


@pytest.fixture
def server(new_server: Callable[..., Server]) -> Server:
    """A server with one database of an application."""
    made = new_server("state")
    made.wait_ready(made.start(CHEAP))
    with connect(made.endpoint) as session:
        session.do("CREATE DATABASE shop")
    with connect(made.endpoint.on("shop")) as session:
        session.do("CREATE TABLE public.stamps (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, note text)")
        session.do("INSERT INTO public.stamps (note) SELECT 'x' FROM generate_series(1, 50)")
    return made


def test_a_healthy_production_is_reachable(server: Server) -> None:
    """Its facts are read; a second point of view is told apart."""
    report = probe(server.endpoint, second=["true"])
    alone = probe(server.endpoint, second=["false"])

    assert (report.state, report.from_here, report.from_second) == (State.REACHABLE, True, True)
    assert report.facts["version"].startswith(str(server.binaries.major))
    assert alone.state is State.REACHABLE
    assert "not from the second" in alone.notes[0]


@pytest.mark.parametrize(
    ("declared", "agrees"), [("auto", True), ("damaged", True), ("down", False), ("read-only", False)]
)
def test_a_persons_word_is_weighed_against_the_probes(server: Server, declared: str, agrees: bool) -> None:
    """Damage nobody can see from outside is believed; a server that answers is not down."""
    report = probe(server.endpoint, declared=declared)

    assert (report.contradiction == "") is agrees
    if not agrees:
        assert report.state is State.REACHABLE


def test_a_read_only_production_is_told(server: Server) -> None:
    """A server that opens only read-only transactions is read-only."""
    with connect(server.endpoint) as session:
        session.do("ALTER SYSTEM SET default_transaction_read_only = on")
        session.do("SELECT pg_reload_conf()")

    assert probe(server.endpoint).state is State.READ_ONLY


def test_damage_is_seen_in_any_database(server: Server) -> None:
    """A missing table file and a database that cannot be opened are damage, named without rows."""
    with connect(server.endpoint.on("shop")) as session:
        table = server.data / session.value("SELECT pg_relation_filepath('public.stamps')")
        oid = session.value("SELECT oid::int8 FROM pg_database WHERE datname = 'shop'")
    server.stop()
    table.unlink()
    server.wait_ready(server.start(CHEAP, name="second"))
    missing = probe(server.endpoint)
    server.stop()
    shutil.move(server.data / "base" / str(oid), server.data / "base" / "gone")
    server.wait_ready(server.start(CHEAP, name="third"))
    broken = probe(server.endpoint.on("shop"))

    assert missing.state is State.DAMAGED
    assert missing.damage == ("database shop: 1 relations have no file",)
    assert broken.state is State.DAMAGED
    assert any("shop" in line for line in broken.damage)


@contextmanager
def speechless() -> Iterator[int]:
    """A port that takes connections and hangs up: something is there, but no server answers."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield listener.server_address[1]
        finally:
            listener.shutdown()
            thread.join()


def test_a_stopped_production_is_down_and_a_hidden_one_unknown(server: Server, tmp_path: Path) -> None:
    """Refused is down; refused here but answering elsewhere, or without a word, is unknown."""
    server.stop()
    tcp = Endpoint("127.0.0.1", free_port(), "postgres")
    unseen = Endpoint(str(tmp_path / "nowhere"), 5432, "postgres")

    assert probe(server.endpoint).state is State.DOWN
    assert probe(tcp).state is State.DOWN
    assert probe(tcp, second=["true"]).state is State.UNKNOWN
    with speechless() as port:
        assert probe(Endpoint("127.0.0.1", port, "postgres")).state is State.UNKNOWN
    assert probe(unseen).state is State.UNKNOWN
    assert probe(tcp, declared="unknown").state is State.UNKNOWN


def test_a_refused_log_in_is_not_down(server: Server) -> None:
    """Something answers there: only a person can say what."""
    report = probe(Endpoint(str(server.sockets), server.port, "nobody_home"))

    assert report.state is State.UNKNOWN
    assert "nobody_home" in report.facts["answer"]


def test_the_cluster_is_the_same_from_its_files(server: Server) -> None:
    """What the running server says equals what its control file says."""
    running = cluster_of(server.endpoint)
    server.stop()

    stopped = cluster_of_files(server.binaries, server.data, superuser="postgres")

    assert (running.system_identifier, running.timeline, running.major, running.segment_bytes) == (
        stopped.system_identifier, stopped.timeline, stopped.major, stopped.segment_bytes,
    )  # fmt: skip
    assert running.control == stopped.control
    assert running.data_directory == str(server.data)


def test_an_unlisted_database_with_tables_is_named(server: Server) -> None:
    """An empty database needs no entry; one with tables, or that cannot be looked into, does."""
    with connect(server.endpoint) as session:
        session.do("CREATE DATABASE empty")
        session.do("CREATE DATABASE closed ALLOW_CONNECTIONS false")

    assert unlisted_databases(server.endpoint, ["shop"]) == ("closed",)
    assert unlisted_databases(server.endpoint, []) == ("closed", "shop")
    assert unlisted_databases(server.endpoint, ["shop", "closed"]) == ()
    assert sizes(server.endpoint, ["shop"])["shop"] > 1_000_000


def test_a_capture_holds_what_is_not_default_and_no_secret(server: Server) -> None:
    """Settings pinned by our own session are told too; passwords are not."""
    with connect(server.endpoint) as session:
        session.do("ALTER SYSTEM SET statement_timeout = '7min'")
        session.do("ALTER SYSTEM SET work_mem = '9MB'")
        session.do("SELECT pg_reload_conf()")
        session.do("CREATE ROLE app LOGIN PASSWORD 'correct-horse' CONNECTION LIMIT 5")
        session.do("CREATE ROLE team NOLOGIN")
        session.do("GRANT team TO app")
        session.do("SELECT pg_create_physical_replication_slot('standby')")
    with connect(server.endpoint.on("shop")) as session:
        session.do("CREATE PUBLICATION events FOR ALL TABLES")
    with (server.data / "pg_hba.conf").open("a") as file:
        file.write('host all all 10.0.0.0/8 radius radiusservers="127.0.0.1" radiussecrets="correct-horse"\n')

    found = capture(server.endpoint)

    assert (found.settings["statement_timeout"], found.settings["work_mem"]) == ("7min", "9MB")
    assert found.settings["fsync"] == "off"
    assert "shared_memory_type" not in found.settings
    assert found.roles["app"].startswith("LOGIN CONNECTION LIMIT 5")
    assert found.memberships[-1] == "app in team" or "app in team" in found.memberships
    assert found.slots == ("standby",)
    assert found.publications == ("shop.events",)
    assert any(line.startswith("local all all") for line in found.hba)
    assert any("radiusservers=127.0.0.1" in line for line in found.hba)
    assert "correct-horse" not in repr(found)


def test_sequences_show_the_last_value_handed_out(server: Server) -> None:
    """Unused sequences are left out."""
    with connect(server.endpoint.on("shop")) as session:
        session.do("CREATE SEQUENCE public.unused")

    assert sequence_high_water(server.endpoint, ["shop"]) == {"shop.public.stamps_id_seq": 50}


def archiving(new_server: Callable[..., Server], command: str) -> tuple[Server, Path]:
    server = new_server("arch")
    archive = server.sockets / "archive"
    archive.mkdir()
    server.binaries.own(archive)
    settings = {"archive_mode": "on", "archive_command": command.format(archive=archive)}
    server.wait_ready(server.start({**CHEAP, **settings}))
    with connect(server.endpoint) as session:
        session.do("CREATE TABLE public.t (id int)")
    return server, archive


def last_commit(server: Server, folders: list[Path]) -> int:
    return [each.xid for each in commits(server.binaries, folders, timeline=1, start=Lsn(16 * 1024 * 1024))][
        -1
    ]


def test_a_working_archiver_brings_the_log_away(new_server: Callable[..., Server], tmp_path: Path) -> None:
    """Nothing is copied; a second rescue finds nothing new to do."""
    server, archive = archiving(new_server, "cp %p {archive}/%f")
    facts = {"data_directory": server.data, "archive": archive, "folder": tmp_path / "wal"}
    with connect(server.endpoint) as session:
        xid = session.value("SELECT pg_current_xact_id()::text::int")

    for _ in range(2):
        rescued = rescue_wal(server.endpoint, **facts, binaries=server.binaries, timeout_s=BOUND_S)
        assert (rescued.complete, rescued.archived, rescued.copied) == (True, True, ())
    assert last_commit(server, [archive]) == xid


@pytest.mark.parametrize("way", ["files", "sql"])
def test_a_failing_archiver_is_bypassed(new_server: Callable[..., Server], way: str) -> None:
    """The segments it did not bring away are copied from pg_wal, or read over SQL."""
    server, archive = archiving(new_server, "false")
    with connect(server.endpoint) as session:
        session.do("SELECT pg_switch_wal()")
        xid = session.value("SELECT pg_current_xact_id()::text::int")
    folder = server.sockets / "rescued"

    rescued = rescue_wal(
        server.endpoint, data_directory=server.data if way == "files" else None, archive=archive,
        folder=folder, binaries=server.binaries, timeout_s=BOUND_S,
    )  # fmt: skip

    assert (rescued.complete, rescued.archived) == (True, False)
    assert rescued.source == {"files": "data directory", "sql": "sql"}[way]
    assert rescued.last_segment in rescued.copied
    assert last_commit(server, [folder]) == xid
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_down_productions_log_is_copied(new_server: Callable[..., Server], tmp_path: Path) -> None:
    """Recycled segments are left out, archived ones too; a full disk is named; without files nothing is claimed."""
    server, archive = archiving(new_server, "cp %p {archive}/%f")
    with connect(server.endpoint) as session:
        session.do("SELECT pg_switch_wal()")
        session.do("INSERT INTO public.t VALUES (1)")
        xid = session.value("SELECT pg_current_xact_id()::text::int")
        session.do("CHECKPOINT")
    server.stop()
    facts = {"archive": archive, "binaries": server.binaries, "timeout_s": BOUND_S}
    recycled = server.data / "pg_wal" / segment_name(1, 90)
    newest = max((server.data / "pg_wal").glob("00000001" + "?" * 16))
    shutil.copy(newest, recycled)

    with (
        small_files(1024 * 1024),
        pytest.raises(ProviderError, match=r"RB308[^$]*File too large[^$]*free space"),
    ):
        rescue_wal(server.endpoint, data_directory=server.data, folder=server.sockets / "rescued", **facts)
    rescued = rescue_wal(
        server.endpoint, data_directory=server.data, folder=server.sockets / "rescued", **facts
    )
    blind = rescue_wal(None, data_directory=None, folder=server.sockets / "blind", **facts)

    assert rescued.complete
    assert recycled.name not in rescued.copied
    assert not set(rescued.copied) & {path.name for path in archive.iterdir()}
    assert last_commit(server, [archive, server.sockets / "rescued"]) == xid
    assert (blind.complete, blind.source) == (False, "none")
    # what it held last is no recycled segment, wherever it lies: what cannot be read is not counted as rescued
    whole = newest.read_bytes()
    for name, harmed in ((newest.name, b"\xff" * 64 + whole[64:]), (newest.name, whole[: 1024 * 1024])):
        (server.data / "pg_wal" / name).write_bytes(harmed)
        torn = rescue_wal(
            server.endpoint, data_directory=server.data, folder=server.sockets / "torn", **facts
        )
        assert (torn.complete, f"but {name}, which cannot be read" in torn.reason) == (False, True)
    newest.write_bytes(whole)
    if server.binaries.user is not None:  # as root the copies are for another user, who may not get there
        tmp_path.chmod(0o700)
        with pytest.raises(ToolError, match=r"RB504 \w+ cannot enter"):
            rescue_wal(None, data_directory=server.data, folder=tmp_path / "rescued", **facts)
