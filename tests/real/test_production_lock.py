"""The write lock on a real server: it closes, it is proven, it opens again as it was."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from pydantic import TypeAdapter

from fixtures.command import wait_for
from fixtures.errors import DatabaseError, RefusedError, StepError
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.server import Server
from fixtures.postgres.session import Endpoint, answers, connect
from fixtures.production.counters import Counted, count
from fixtures.production.lock import (
    LockOriginal,
    client_sessions,
    close,
    commits_since,
    drain,
    is_closed,
    mark,
    open_again,
    open_layers,
    original,
    prove,
)
from fixtures.production.proof import traffic_between
from tests.real.entrances import is_writable

#: a superuser's, whom the lock does not hold off
LIFTED = {"default_transaction_read_only": "off", "search_path": "public"}
CHEAP = {"fsync": "off", "max_prepared_transactions": "2", "listen_addresses": "", "autovacuum": "off"}


@pytest.fixture
def production(new_server: Callable[..., Server]) -> Server:
    """A cluster with one database, one table and an application role."""
    server = new_server("prod")
    server.wait_ready(server.start(CHEAP))
    with connect(server.endpoint) as session:
        session.do("CREATE ROLE shop LOGIN")
        session.do("CREATE DATABASE shop OWNER shop")
    with connect(server.endpoint.on("shop")) as session:
        session.do("CREATE TABLE public.stamps (id int PRIMARY KEY, note text)")
        session.do("GRANT ALL ON public.stamps TO shop")
        session.do("GRANT ALL ON SCHEMA public TO shop")
    return server


def app(server: Server) -> Endpoint:
    return Endpoint(str(server.sockets), server.port, "shop", "shop")


@contextmanager
def raw(endpoint: Endpoint) -> Iterator[psycopg.Connection]:
    connection = psycopg.connect(endpoint.conninfo())
    try:
        yield connection
    finally:
        connection.close()


def locked(server: Server) -> tuple[LockOriginal, dict]:
    """Close it; return what was and what `prove` needs."""
    before = original(server.endpoint, ["shop"], app_role="shop")
    since = mark(server.endpoint)
    done = close(server.endpoint, ["shop"], app_role="shop")
    return before, {"since": since, "own_xids": done.xids, "binaries": server.binaries}


def test_a_closed_production_is_proven_and_refuses_the_application(production: Server) -> None:
    """The proof covers the time from the position on, by transaction ids alone."""
    before, facts = locked(production)

    proof = prove(production.endpoint, ["shop"], window_s=0.05, **facts)

    assert (proof.traffic.finished, proof.traffic.method) == (0, "xid")
    assert is_closed(production.endpoint, ["shop"], app_role="shop")
    assert not is_writable(app(production)).writable
    assert any("postgres: superuser" in line for line in proof.bypasses)
    assert commits_since(production.endpoint, proof.until, binaries=None) == 0
    for value in (before, proof):
        adapter = TypeAdapter(type(value))
        assert value == adapter.validate_json(adapter.dump_json(value))


def test_open_again_restores_exactly_what_was(production: Server) -> None:
    """A limit, a read-only setting and a role without log-in come back as they were, twice."""
    with connect(production.endpoint) as session:
        session.do("ALTER DATABASE shop CONNECTION LIMIT 7")
        session.do("ALTER DATABASE shop SET work_mem = '5MB'")
        session.do("ALTER DATABASE shop SET default_transaction_read_only = 'off'")
        session.do("CREATE DATABASE other")
    images = []
    for phase in ("before", "after", "again"):
        if phase == "before":
            before = original(production.endpoint, ["shop", "other"], app_role="shop")
        elif phase == "after":
            close(production.endpoint, ["shop", "other"], app_role="shop")
            close(production.endpoint, ["shop", "other"], app_role="shop")
            open_again(production.endpoint, before)
        else:
            open_again(production.endpoint, before)
        with connect(production.endpoint) as session:
            images.append(
                (
                    session.rows("SELECT datname, datconnlimit, datallowconn FROM pg_database ORDER BY 1"),
                    session.rows(
                        "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2"
                    ),
                    session.rows("SELECT rolname, rolcanlogin FROM pg_roles ORDER BY 1"),
                )
            )

    assert images[0] == images[1] == images[2]
    assert is_writable(app(production)).writable


def test_closing_twice_changes_nothing_the_second_time(production: Server) -> None:
    """A repeated close commits no transaction of its own."""
    first = close(production.endpoint, ["shop"], app_role="shop")
    again = close(production.endpoint, ["shop"], app_role="shop")

    assert (len(first.xids), len(again.xids)) == (1, 0)


def test_an_open_layer_is_named(production: Server) -> None:
    """Each layer that somebody opened behind our back is a sentence."""
    locked(production)
    with connect(production.endpoint, settings={"default_transaction_read_only": "off"}) as session:
        session.do("ALTER ROLE shop LOGIN")

    assert open_layers(production.endpoint, ["shop"], app_role="shop") == ("role shop can log in",)


def test_an_idle_writer_is_reported_by_the_drain_and_ended_by_the_lock(production: Server) -> None:
    """What it had not committed is gone; the proof does not count it."""
    with raw(app(production)) as writer:
        writer.execute("INSERT INTO stamps VALUES (1, 'open')")
        drained = drain(production.endpoint, ["shop"], timeout_s=0.1)
        _, facts = locked(production)
        proof = prove(production.endpoint, ["shop"], window_s=0.05, **facts)
        with pytest.raises(psycopg.Error):
            writer.commit()

    assert [(each.role, each.state) for each in drained.leftovers] == [("shop", "idle in transaction")]
    assert proof.traffic.client == 0
    with connect(production.endpoint.on("shop")) as session:
        assert session.value("SELECT count(*) FROM public.stamps") == 0


def test_the_drain_waits_for_a_writer_that_finishes(production: Server) -> None:
    """A transaction that commits in time is no leftover, and its row stays."""
    with raw(app(production)) as writer:
        writer.execute("INSERT INTO stamps VALUES (1, 'in time')")
        timer = threading.Timer(0.2, writer.commit)
        timer.start()
        drained = drain(production.endpoint, ["shop"], timeout_s=20)
        timer.join()

    assert drained.leftovers == ()


def test_a_superuser_that_keeps_writing_breaks_the_proof(production: Server) -> None:
    """The lock does not hold superusers off, so the proof must see them."""
    _, facts = locked(production)
    stop = threading.Event()

    def write() -> None:
        with raw(production.endpoint.on("shop")) as writer:
            writer.execute("SET default_transaction_read_only = off")
            writer.commit()
            number = 0
            while not stop.is_set():
                writer.execute("INSERT INTO public.stamps VALUES (%s, 'x')", (number,))
                writer.commit()
                number += 1
                started.set()

    started = threading.Event()
    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert started.wait(20)
        with pytest.raises(StepError) as error:
            prove(production.endpoint, ["shop"], window_s=0.3, **facts)
    finally:
        stop.set()
        thread.join()

    assert error.value.code == "RB402"


def test_a_commit_between_the_position_and_the_lock_breaks_the_proof(production: Server) -> None:
    """It would be missing from a restore to the position: the log shows it, over SQL or from files."""
    since = mark(production.endpoint)
    with connect(app(production)) as session:
        session.do("INSERT INTO public.stamps VALUES (1, 'late')")
    done = close(production.endpoint, ["shop"], app_role="shop")

    for folders in ([], [production.data / "pg_wal"]):
        with pytest.raises(StepError, match="1 client transactions"):
            prove(
                production.endpoint, ["shop"], window_s=0, binaries=production.binaries,
                wal_folders=folders, since=since, own_xids=done.xids,
            )  # fmt: skip
    assert commits_since(production.endpoint, since, own_xids=done.xids, binaries=production.binaries) == 1


def test_statistics_and_settings_are_not_client_commits(production: Server) -> None:
    """ANALYZE moves the log and the ids; the log tells it from a client. Without it: no proof."""
    with connect(production.endpoint.on("shop")) as session:
        session.do("INSERT INTO public.stamps SELECT g, 'x' FROM generate_series(1, 500) g")
    _, facts = locked(production)
    with connect(
        production.endpoint.on("shop"), settings={"default_transaction_read_only": "off"}
    ) as session:
        session.do("ANALYZE public.stamps")
        session.do("ALTER ROLE shop CONNECTION LIMIT 3")

    proof = prove(production.endpoint, ["shop"], window_s=0, **facts)

    assert (proof.traffic.client, proof.traffic.statistics, proof.traffic.administrative) == (0, 1, 1)
    assert proof.traffic.method == "wal"
    with pytest.raises(StepError, match="cannot be told"):
        prove(production.endpoint, ["shop"], window_s=0, **{**facts, "binaries": None})


def test_schema_changes_are_client_commits(production: Server) -> None:
    """A CREATE TABLE touches catalogs only, and is no maintenance."""
    _, facts = locked(production)
    with connect(
        production.endpoint.on("shop"), settings={"default_transaction_read_only": "off"}
    ) as session:
        session.do("CREATE TABLE public.extra (id int)")

    with pytest.raises(StepError, match="1 client transactions"):
        prove(production.endpoint, ["shop"], window_s=0, **facts)


def test_a_prepared_transaction_breaks_the_proof(production: Server) -> None:
    """It has no session to end and can still be committed."""
    with connect(app(production)) as session:
        session.do("BEGIN")
        session.do("INSERT INTO public.stamps VALUES (1, 'prepared')")
        session.do("PREPARE TRANSACTION 'two'")
    _, facts = locked(production)

    with pytest.raises(StepError, match="prepared transaction in shop"):
        prove(production.endpoint, ["shop"], window_s=0, **facts)


def test_the_runbook_never_locks_itself_out(production: Server) -> None:
    """An administrator that is the application's role, or no superuser, is refused before any change."""
    with pytest.raises(RefusedError, match="RB402"):
        close(app(production), ["shop"], app_role="shop")
    with pytest.raises(RefusedError, match="role nobody_home does not exist"):
        original(production.endpoint, ["shop"], app_role="nobody_home")

    assert is_writable(app(production)).writable


def test_a_log_in_is_refused_while_closed(production: Server) -> None:
    """The application's role gets no session at all."""
    locked(production)

    with pytest.raises(DatabaseError, match="RB503"), connect(app(production)):
        pass


def test_files_are_optional(production: Server, binaries: Binaries, tmp_path: Path) -> None:
    """A folder that does not hold the log is passed over."""
    _, facts = locked(production)
    with connect(
        production.endpoint.on("shop"), settings={"default_transaction_read_only": "off"}
    ) as session:
        session.do("ANALYZE")

    proof = prove(production.endpoint, ["shop"], window_s=0, wal_folders=[tmp_path], **facts)

    assert binaries.major
    assert proof.traffic.client == 0


# -- an administrator who is no superuser, as on a managed service ------------------------------------


@pytest.fixture
def managed(production: Server) -> Endpoint:
    """The owner of the database, who may change the application's role and end sessions, over a password."""
    with connect(production.endpoint) as session:
        session.do("CREATE ROLE keeper LOGIN CREATEROLE IN ROLE pg_signal_backend, pg_monitor")
        session.do("CREATE ROLE reader LOGIN")
        session.do("GRANT shop TO keeper WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
        session.do("ALTER DATABASE shop OWNER TO keeper")
        session.do("GRANT CONNECT ON DATABASE shop TO reader")
    return Endpoint(str(production.sockets), production.port, "keeper", "shop")


def test_an_owner_locks_everybody_else_out(production: Server, managed: Endpoint) -> None:
    """Without a superuser the lock takes CONNECT away; the owner still gets in, and puts it back exactly."""
    reader = Endpoint(str(production.sockets), production.port, "reader", "shop")
    query = (
        "SELECT a.grantee::regrole, a.privilege_type FROM pg_database,"
        " aclexplode(coalesce(datacl, acldefault('d', datdba))) AS a WHERE datname = 'shop' ORDER BY 1, 2"
    )
    with connect(production.endpoint) as session:
        granted = session.rows(query)
    before = original(managed, ["shop"], app_role="shop")
    since = mark(managed)

    with raw(reader), raw(production.endpoint.on("shop")):
        done = close(managed, ["shop"], app_role="shop")

    assert done.ended == 1  # a superuser's session is no owner's to end
    assert is_closed(managed, ["shop"], app_role="shop")
    close(managed, ["shop"], app_role="shop")
    for refused in (reader, app(production)):
        with pytest.raises(DatabaseError), connect(refused):
            pass
    proof = prove(managed, ["shop"], window_s=0.05, binaries=None, since=since, own_xids=done.xids)
    assert "role keeper: owns shop, can lift its lock" in proof.bypasses
    for _ in range(2):
        open_again(managed, before)
    with connect(production.endpoint) as session:
        assert session.rows(query) == granted
    assert is_writable(app(production)).writable


def napping(server: Server, naptime: str) -> None:
    """Set how often autovacuum looks."""
    with connect(server.endpoint) as session:
        session.do(sql.SQL("ALTER SYSTEM SET autovacuum_naptime = {}").format(naptime))
        session.rows("SELECT pg_reload_conf()")


def test_autovacuum_is_told_from_a_client_without_the_log(production: Server, managed: Endpoint) -> None:
    """What commits behind the lock changed no row, as the server counted: no client's. One connected is a doubt."""
    production.stop()
    production.wait_ready(production.start({**CHEAP, "autovacuum": "on"}))
    napping(production, "1h")
    with connect(production.endpoint.on("shop")) as session:
        session.do("INSERT INTO public.stamps SELECT g, 'x' FROM generate_series(1, 500) g")
    since = mark(managed)
    own = close(managed, ["shop"], app_role="shop").xids
    counted = count(managed, ["shop"])
    facts = {"since": since, "own_xids": own, "counted": counted, "binaries": production.binaries}
    assert TypeAdapter(Counted).validate_json(TypeAdapter(Counted).dump_json(counted)) == counted

    napping(production, "1s")
    with connect(production.endpoint.on("shop")) as session:
        query = "SELECT sum(autoanalyze_count) > 0 FROM pg_stat_user_tables"
        wait_for(lambda: session.value(query), timeout_s=60, what="autovacuum has analyzed the table")

    proof = prove(managed, ["shop"], window_s=0, **facts)
    assert (proof.traffic.method, proof.traffic.client) == ("counts", 0)
    assert proof.traffic.statistics > 0
    assert commits_since(managed, **{**facts, "since": since}) == 0
    with pytest.raises(StepError, match="cannot be told"):
        prove(managed, ["shop"], window_s=0, **{**facts, "counted": None})
    with raw(production.endpoint.on("shop")), pytest.raises(StepError, match="connected, and may not"):
        prove(managed, ["shop"], window_s=0, **facts)


#: what a superuser, whom the lock does not hold off, can commit
WRITES = (
    "INSERT INTO stamps VALUES (1, 'x')", "UPDATE stamps SET note = 'y'", "DELETE FROM stamps",
    "WITH rows AS (INSERT INTO stamps VALUES (2, 'x')) SELECT", "TRUNCATE stamps", "CREATE TABLE more (id int)",
    "DROP TABLE more", "GRANT SELECT ON stamps TO reader", "SELECT lo_create(77)", "GRANT pg_monitor TO reader",
    "ALTER TABLE stamps ALTER note TYPE varchar(9)", "BEGIN; ANALYZE; INSERT INTO stamps VALUES (3, 'z'); COMMIT",
)  # fmt: skip


def test_a_clients_commit_is_a_doubt_without_the_log(production: Server, managed: Endpoint) -> None:
    """Whatever a client changed is in the counts once it is gone, together with an ANALYZE too."""
    close(managed, ["shop"], app_role="shop")
    for write in WRITES:
        counted = count(managed, ["shop"])
        with connect(production.endpoint.on("shop"), application="sneaky", settings=LIFTED) as session:
            session.do(write)
        gone(managed)
        found = traffic_between(
            managed, counted.mark, mark(managed), own_xids=(), binaries=None, wal_folders=(), segment_bytes=1,
            counted=counted,
        )  # fmt: skip
        assert (found.method, found.doubt) == ("none", "rows changed in shop, as the server counted"), write


def test_counts_that_say_nothing_are_not_believed(production: Server, managed: Endpoint) -> None:
    """Commits before the counts, counters that can be switched off, an access method of its own, a crash."""
    since = mark(managed)

    def doubt(*, before: Sequence[str] = (), after: Sequence[str] = ("ANALYZE stamps",)) -> str:
        superuser = production.endpoint.on("shop")
        for statement in before:
            with connect(superuser, settings=LIFTED) as session:
                session.do(statement)
        gone(managed)
        counted = count(managed, ["shop"])
        for statement in after:
            # a backend that is killed takes its own session with it
            with suppress(DatabaseError), connect(superuser, settings=LIFTED) as session:
                session.do(statement)
        wait_for(lambda: answers(managed), timeout_s=60, what="production is back")
        gone(managed)
        started = since if before == ("ANALYZE",) else counted.mark
        return traffic_between(
            managed, started, mark(managed), own_xids=(), binaries=None, wal_folders=(), segment_bytes=1,
            counted=counted,
        ).doubt  # fmt: skip

    analyzed = ("INSERT INTO stamps SELECT g FROM generate_series(1, 9) g",)
    assert doubt(before=analyzed) == ""
    assert "before the last client was gone" in doubt(before=("ANALYZE",))
    killed = "COPY (SELECT) TO PROGRAM 'kill -9 $PPID'"
    assert "were reset" in doubt(after=("ANALYZE stamps", killed))
    assert "were reset" in doubt(after=("ANALYZE stamps", "SELECT pg_stat_reset()"))
    switched = ("ALTER ROLE postgres SET track_counts = off",)
    assert "track_counts" in doubt(before=switched)
    back = (
        "ALTER ROLE postgres RESET track_counts",
        "CREATE ACCESS METHOD own TYPE TABLE HANDLER heap_tableam_handler",
    )
    assert "access method" in doubt(before=(*back, "CREATE TABLE elsewhere (id int) USING own"))


def test_a_commit_in_a_database_that_is_not_locked_is_a_doubt(production: Server, managed: Endpoint) -> None:
    """A table made where there was none, or a new database: a physical copy would take it back as well."""
    close(managed, ["shop"], app_role="shop")
    for write, words in (
        ("CREATE TABLE jobs AS SELECT 1 AS id", "rows changed in postgres"),
        ("CREATE DATABASE later", "were reset"),
    ):
        counted = count(managed, ["shop"])
        with connect(production.endpoint, application="sneaky", settings=LIFTED) as session:
            session.do(write)
            session.rows("SELECT pg_stat_force_next_flush()")
        found = traffic_between(
            managed, counted.mark, mark(managed), own_xids=(), binaries=None, wal_folders=(), segment_bytes=1,
            counted=counted,
        )  # fmt: skip
        assert (found.method, words in found.doubt) == ("none", True), found.doubt
    counted = count(managed, ["shop"])
    with connect(production.endpoint.on("shop")) as session:
        session.do("ANALYZE public.stamps, pg_catalog.pg_class")
    gone(managed)
    facts = {"since": counted.mark, "binaries": None, "counted": counted}
    reader = replace(managed, user="reader", database="postgres")
    with raw(reader), pytest.raises(StepError, match="connected, and may not"):
        prove(managed, ["shop"], window_s=0, **facts)
    with raw(production.endpoint):
        assert prove(managed, ["shop"], window_s=0, **facts).traffic.method == "counts"


def gone(endpoint: Endpoint) -> None:
    """Wait until no other session is left in the database."""
    with connect(endpoint) as session:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND pid <> pg_backend_pid()"
        wait_for(lambda: session.value(query) == 0, timeout_s=60, what="the other sessions are gone")


def test_an_administrator_without_the_means_is_refused(production: Server, managed: Endpoint) -> None:
    """What it lacks is named, and nothing was changed."""
    with connect(production.endpoint) as session:
        session.do("ALTER DATABASE shop OWNER TO postgres")
        session.do("REVOKE pg_signal_backend FROM keeper")

    with pytest.raises(RefusedError) as caught:
        close(managed, ["shop"], app_role="shop")

    assert "ownership of database shop, membership in pg_signal_backend" in caught.value.fact
    assert is_writable(app(production)).writable


def test_an_administrator_who_cannot_see_sessions_is_refused(production: Server, managed: Endpoint) -> None:
    """Other roles' sessions would neither be counted nor ended, and could write on behind the lock."""
    with connect(production.endpoint) as session:
        session.do("REVOKE pg_monitor FROM keeper")

    with raw(app(production)) as client:
        assert client_sessions(managed, ["shop"]) == 0  # this is why
        with pytest.raises(RefusedError, match=r"membership in pg_read_all_stats"):
            close(managed, ["shop"], app_role="shop")
        client.execute("SELECT 1")


def _connects(server: Server) -> list[tuple[object, ...]]:
    with connect(server.endpoint) as session:
        return session.rows(
            "SELECT a.grantor::regrole::text, a.grantee::regrole::text, a.privilege_type, a.is_grantable"
            " FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) AS a"
            " WHERE datname = 'shop' ORDER BY 1, 2, 3"
        )


def test_the_right_to_grant_a_connection_comes_back_too(production: Server, managed: Endpoint) -> None:
    """A grant option is taken with the grant, and given back with it, also to who has the plain grant by then."""
    with connect(production.endpoint) as session:
        session.do("GRANT CONNECT ON DATABASE shop TO reader WITH GRANT OPTION")
    granted = _connects(production)
    assert ("keeper", "reader", "CONNECT", True) in granted
    before = original(managed, ["shop"], app_role="shop")

    close(managed, ["shop"], app_role="shop")
    with connect(production.endpoint) as session:
        session.do("GRANT CONNECT ON DATABASE shop TO reader")
    open_again(managed, before)

    assert _connects(production) == granted


def test_grants_that_could_not_be_put_back_are_not_taken(production: Server, managed: Endpoint) -> None:
    """Only who made a grant can make it again: another's is refused before anything is changed."""
    with connect(production.endpoint) as session:
        session.do("CREATE ROLE other LOGIN")
        session.do("GRANT CONNECT ON DATABASE shop TO reader WITH GRANT OPTION")
        session.do("SET ROLE reader")
        session.do("GRANT CONNECT ON DATABASE shop TO other")
    granted = _connects(production)

    with pytest.raises(RefusedError, match=r"granted by others than the database's owner.*: reader on shop"):
        close(managed, ["shop"], app_role="shop")

    assert _connects(production) == granted
    assert is_writable(app(production)).writable


def test_an_owner_who_enters_like_everybody_else_does_not_lock_itself_out(
    production: Server, managed: Endpoint
) -> None:
    """An owner whose own grant was revoked gets in by PUBLIC's, which the lock takes."""
    with connect(production.endpoint) as session:
        session.do("REVOKE CONNECT ON DATABASE shop FROM keeper")

    with pytest.raises(RefusedError, match=r"CONNECT on database shop for its owner, by name"):
        close(managed, ["shop"], app_role="shop")

    assert is_writable(app(production)).writable


@pytest.mark.parametrize("superuser", [False, True])
def test_a_role_that_is_not_there_does_not_keep_the_database_closed(
    production: Server, managed: Endpoint, superuser: bool
) -> None:
    """It was dropped while locked; or this is a copy, and it was made after the copy's target."""
    administrator = production.endpoint if superuser else managed
    before = original(administrator, ["shop"], app_role="shop")
    close(administrator, ["shop"], app_role="shop")
    with connect(production.endpoint) as session:
        session.do("REVOKE CONNECT ON DATABASE shop FROM reader")
        session.do("DROP ROLE reader")

    open_again(administrator, before)

    assert is_writable(app(production)).writable
