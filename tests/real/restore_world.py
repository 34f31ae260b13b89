"""A small production with an archive, a base backup and a damage, for the tests of restores."""

import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from fixtures.command import end_job, wait_for
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.lsn import Lsn, segment_name
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import Session, connect
from fixtures.providers.base import Cluster, Site
from fixtures.providers.local.backend import LocalProvider
from tests.real.restore_labs import Lab

ROWS = 4
#: a program that has to be started per segment takes its time
ARCHIVED_S = 120


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One commit of production: id of the row it wrote, transaction, time, position behind it."""

    row: int
    xid: int
    at: datetime
    end: Lsn

    @property
    def segment(self) -> str:
        """The segment that holds it."""
        return segment_name(1, Lsn(self.end.value - 1).segment())


@dataclass(frozen=True, kw_only=True)
class World:
    """Production as it stands after the damage."""

    home: Path
    server: Server
    lab: Lab
    commits: tuple[Mark, ...]
    damage: Mark
    after: Mark
    lock_lsn: Lsn
    system_identifier: str

    def site(self, run_id: str, **changes: object) -> Site:
        """Return the site of a run of its own; `changes` replace fields of its cluster."""
        cluster = Cluster(
            **{
                "system_identifier": self.system_identifier,
                "timeline": 1,
                "major": self.server.binaries.major,
                "data_directory": str(self.server.data),
                "port": self.server.port,
                **changes,
            }
        )
        sockets = Path(tempfile.mkdtemp(prefix="s", dir=self.home))
        self.server.binaries.own(sockets)
        return Site(
            run_id=run_id,
            directory=self.home / "restored",
            host="127.0.0.1",
            port=free_port(),
            sockets=sockets,
            logs=self.home / "logs" / run_id,
            binaries=self.server.binaries,
            cluster=cluster,
            timeout_s=60,
        )

    def provider(self, run_id: str, *, lab: Lab | None = None, **changes: object) -> LocalProvider:
        """Return a provider for a run of its own; `changes` replace fields of its cluster."""
        return (lab or self.lab).provider(self.site(run_id, **changes))

    def of(self, lab: Lab) -> "World":
        """Return the same production with another store."""
        return replace(self, lab=lab)


@contextmanager
def production(public_dir: Path, kind: Callable[..., Lab], binaries: Binaries) -> Iterator[World]:
    """Make it; everything is ended and removed behind it by whoever owns `public_dir`."""
    home = Path(tempfile.mkdtemp(prefix="w", dir=public_dir))
    home.chmod(0o755)
    binaries.own(home)
    server = Server(binaries, home / "data", free_port(), home, "postgres", home / "logs")
    server.initdb()
    lab = kind(home=home, server=server, place=home / "store")
    with ExitStack() as made:
        made.callback(lab.end)
        lab.make()
        _configure(server, lab)
        job = server.start()
        # not a fast shutdown: it would wait until all of the log is archived
        made.callback(end_job, job, first=signal.SIGQUIT)
        server.wait_ready(job)
        lab.prepare()
        with connect(server.endpoint) as session:
            yield _story(session, home, server, lab)


def _configure(server: Server, lab: Lab) -> None:
    with (server.data / "postgresql.conf").open("a") as conf:
        conf.write(
            "listen_addresses = ''\nfsync = off\nwal_level = replica\narchive_mode = on\n"
            "track_commit_timestamp = on\nwork_mem = '5MB'\nlog_timezone = 'UTC'\n"
            f"data_directory = '{server.data}'\narchive_command = '{lab.archive_command}'\n"
        )


def write_row(session: Session, row: int) -> Mark:
    """Commit one row."""
    session.do("BEGIN")
    session.do("INSERT INTO public.t VALUES (%s, 'x')", (row,))
    return _commit(session, row)


def _story(session: Session, home: Path, server: Server, lab: Lab) -> World:
    session.do("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1 user=nobody'")
    session.do("ALTER SYSTEM SET temp_buffers = '9MB'")
    session.do("CREATE ROLE app LOGIN")
    session.do(
        "CREATE SUBSCRIPTION feed CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p"
        " WITH (connect = false, slot_name = 'feed')"
    )
    session.do("ALTER SUBSCRIPTION feed ENABLE")
    session.do("CREATE TABLE public.t (id int PRIMARY KEY, v text)")
    write_row(session, 0)
    lab.back_up()
    # what production changed since the backup must come with its capture
    session.do("ALTER SYSTEM RESET temp_buffers")
    session.do("ALTER SYSTEM SET maintenance_work_mem = '33MB'")
    with (server.data / "pg_hba.conf").open("a") as rules:
        rules.write("host all app 127.0.0.1/32 scram-sha-256\n")
    session.do("SELECT pg_reload_conf()")
    commits = []
    for row in range(1, ROWS + 1):
        commits.append(write_row(session, row))
        session.do("SELECT pg_switch_wal()")
    session.do("SELECT pg_create_restore_point('before damage')")
    lab.approach()
    session.do("BEGIN")
    session.do("DELETE FROM public.t")
    damage = _commit(session, -1)
    after = write_row(session, 100)
    lock_lsn = Lsn.parse(session.value("SELECT pg_current_wal_insert_lsn()"))
    session.do("CREATE TABLE public.locked ()")
    last = session.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
    session.do("SELECT pg_switch_wal()")
    wait_for(
        lambda: session.value("SELECT last_archived_wal FROM pg_stat_archiver") >= last,
        timeout_s=ARCHIVED_S,
        what="the archiver is done",
    )
    identifier = str(session.value("SELECT system_identifier FROM pg_control_system()"))
    return World(
        home=home, server=server, lab=lab, commits=tuple(commits), damage=damage, after=after,
        lock_lsn=lock_lsn, system_identifier=identifier,
    )  # fmt: skip


def _commit(session: Session, row: int) -> Mark:
    xid = session.value("SELECT pg_current_xact_id()::text::int")
    session.do("COMMIT")
    at = session.value("SELECT pg_xact_commit_timestamp(%s::text::xid)", (str(xid),))
    end = Lsn.parse(session.value("SELECT pg_current_wal_insert_lsn()"))
    return Mark(row=row, xid=xid, at=at, end=end)
