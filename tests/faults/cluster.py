"""Faults of the whole: another cluster, another moment, and what would act on the world."""

import shutil
from dataclasses import replace
from datetime import timedelta

import psycopg

from fixtures.command import run
from tests.faults.fault import FAIL, OPEN, Fault, sql
from tests.faults.structure import OWNED, fails
from tests.faults.world import Copy, started

DATABASES = "privileges.databases"


def _append(name: str, line: str) -> object:
    def write(copy: Copy) -> None:
        with (copy.server.data / name).open("a") as file:
            file.write(f"\n{line}\n")

    return write


def _other_cluster(copy: Copy) -> None:
    """Replace the copy by a dump of it, restored into a cluster of another birth."""
    server, home = copy.server, copy.server.data.parent
    with started(copy):
        dump = run(
            [server.binaries.tool("pg_dumpall"), "-h", server.sockets, "-p", str(server.port), "-U", "postgres",
             "-f", home / "all.sql"],
            timeout_s=60, user=server.binaries.user,
        )  # fmt: skip
        assert dump.returncode == 0
    shutil.rmtree(server.data)
    server.initdb("--wal-segsize=1")
    with started(copy):
        run(
            [server.binaries.tool("psql"), "-h", server.sockets, "-p", str(server.port), "-U", "postgres", "-q",
             "-d", "postgres", "-f", home / "all.sql"],
            timeout_s=60, user=server.binaries.user, check=False,
        )  # fmt: skip


def _not_recovered(copy: Copy) -> None:
    """Replace it by the base backup and all the log, started without a word of recovery."""
    data, world = copy.server.data, copy.world
    shutil.rmtree(data)
    run(["cp", "-a", world.base_backups / "full", data], timeout_s=60)
    for segment in world.archive.glob("00000001*"):
        shutil.copy(segment, data / "pg_wal")
    data.chmod(0o700)
    copy.server.binaries.own(data)


def _production(copy: Copy) -> None:
    copy.fields["restored"] = copy.world.production.endpoint


def _later_target(copy: Copy) -> None:
    target = copy.world.targets["right"]
    at = target.at + timedelta(hours=1)
    copy.fields["target"] = replace(target, at=at, value=at.isoformat())


def _stranger(copy: Copy) -> None:
    endpoint = copy.server.endpoint.on("shop")
    copy.fields["capture"] = copy.world.capture
    copy.kept.append(psycopg.connect(endpoint.conninfo(), application_name="somebody"))


#: a standby that nobody feeds
_STANDBY = {"restore_command": "false", "recovery_target_timeline": "latest", "recovery_target_time": ""}
#: what one database has, and nothing of the other
_SWAPPED = {
    **{f"structure.{name}:shop": FAIL for name in (
        "tables", "columns", "constraints", "indexes_present", "triggers_present", "views", "functions", "types", "sequences",
        "extensions", "replication", "other",
    )},
    **{f"structure.{name}:ledger": FAIL for name in ("tables", "columns", "constraints", "indexes_present", "views")},
    "structure.policies:shop": OPEN,
    "moment.heartbeat_after:shop": OPEN,
    "moment.heartbeat_last:shop": OPEN,
    "surroundings.unlogged_tables:ledger": OPEN,
}  # fmt: skip

FAULTS: tuple[Fault, ...] = (
    Fault(name="recovery stopped too early", target="early", stops=True, fires=fails("moment.last_commit")),
    Fault(name="recovery stopped too late", target="late", stops=True,
          fires=fails("moment.last_commit", "moment.next_commit", "moment.heartbeat_after:shop")),
    Fault(name="the target was another one", online=_later_target, stops=True, fires=fails("moment.last_commit")),
    Fault(name="the copy is of another cluster", offline=_other_cluster, stops=True, fires=fails("identity.system", "identity.timeline")),
    Fault(name="the copy is on production's timeline", offline=_not_recovered, stops=True, fires=fails("identity.timeline")),
    Fault(name="what answers is production", online=_production, stops=True, fires=fails("identity.directory", "identity.timeline")),
    Fault(name="recovery has not ended", late=True, offline=_append("standby.signal", ""), settings=_STANDBY,
          stops=True, fires={"identity.timeline": OPEN}),
    sql("a database is missing", "identity.database:ledger", "DROP DATABASE ledger", late=True, stops=True),
    sql("a database is half dropped", "identity.database:ledger",
        "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'ledger'", late=True, stops=True),
    sql("a database is closed", "identity.database:ledger", "ALTER DATABASE ledger ALLOW_CONNECTIONS false",
        late=True, stops=True),
    sql("two databases changed places", _SWAPPED,
        "ALTER DATABASE shop RENAME TO x", "ALTER DATABASE ledger RENAME TO shop",
        "ALTER DATABASE x RENAME TO ledger", database="postgres", late=True, stops=True),
    sql("a database has another encoding", DATABASES, "UPDATE pg_database SET encoding = 0 WHERE datname = 'ledger'"),
    sql("a database nobody asks about", {DATABASES: FAIL, "privileges.cluster": FAIL, "surroundings.unlisted_databases": OPEN},
        "CREATE DATABASE extra TEMPLATE ledger"),
    sql("a transaction is in doubt", "recovery.prepared", "BEGIN", "UPDATE notes SET body = 'x' WHERE id = 1",
        "PREPARE TRANSACTION 'left'"),
    sql("a subscription would dial", {"surroundings.subscriptions": FAIL, "structure.replication:shop": FAIL},
        "CREATE SUBSCRIPTION dials CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false, slot_name = 'x')",
        "UPDATE pg_subscription SET subenabled = true"),
    sql("a replication slot is left", {"surroundings.slots": OPEN}, "SELECT pg_create_physical_replication_slot('left_over')"),
    sql("a foreign server is new", {"surroundings.foreign_servers:shop": OPEN, **fails("structure.foreign_data:shop", *OWNED)},
        "CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'production')",
        "CREATE USER MAPPING FOR app SERVER other OPTIONS (user 'app')"),
    sql("a job would run", {"surroundings.jobs:shop": OPEN, **fails("structure.tables:shop", "structure.columns:shop", *OWNED)},
        "CREATE SCHEMA cron", "CREATE TABLE cron.job (jobid int, jobname text, active boolean)",
        "INSERT INTO cron.job VALUES (1, 'mail everybody', true)", "ANALYZE cron.job"),
    sql("an unlogged table lost its rows", {"surroundings.unlogged_tables:shop": OPEN,
        **fails("structure.tables:shop", "structure.columns:shop", *OWNED)}, "CREATE UNLOGGED TABLE emptied (i int)"),
    sql("the planner has no statistics", {"surroundings.statistics:shop": OPEN},
        "DELETE FROM pg_statistic WHERE starelid = 'stamps'::regclass"),
    sql("a collation sorts otherwise", {"surroundings.collations:shop": OPEN},
        "UPDATE pg_collation SET collversion = '0' WHERE collname = 'german'"),
    sql("the database sorts otherwise", {"surroundings.collations:ledger": OPEN},
        "UPDATE pg_database SET datcollversion = '0' WHERE datname = 'ledger'"),
    sql("a function's library is not there", fails("structure.functions:shop", "structure.libraries:shop"),
        "UPDATE pg_proc SET probin = '$libdir/gone' WHERE proname = 'similarity'"),
    Fault(name="commits wait for a standby that is not there", settings={"synchronous_standby_names": "gone"},
          fires=fails("surroundings.synchronous_standbys")),
    Fault(name="everybody may log in", offline=_append("pg_hba.conf", "host all all 0.0.0.0/0 trust"),
          fires=fails("surroundings.access")),
    Fault(name="a log-in rule is not understood", online=_append("pg_hba.conf", "hosst all all nowhere"),
          fires={"surroundings.configuration": OPEN}),
    Fault(name="a setting is not understood", online=_append("postgresql.auto.conf", "unheard_of = 1"),
          fires={"surroundings.configuration": OPEN}),
    Fault(name="it would follow another server", settings={"primary_conninfo": "host=production"},
          fires={"surroundings.recovery_left": OPEN}),
    Fault(name="somebody is connected already", online=_stranger, fires={"surroundings.sessions": OPEN}),
)  # fmt: skip
