"""A small production with an archive, a base backup and a damage, for the tests of restores."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fixtures.command import end_job, run, wait_for
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.lsn import Lsn
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import Session, connect
from fixtures.providers.base import Cluster, Site
from fixtures.providers.basebackup.backend import BaseBackupDirectory
from fixtures.settings import BaseBackupProvider

ROWS = 4


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One commit of production: id of the row it wrote, transaction, time, position behind it."""

    row: int
    xid: int
    at: datetime
    end: Lsn


@dataclass(frozen=True, kw_only=True)
class World:
    """Production as it stands after the damage."""

    home: Path
    server: Server
    archive: Path
    base_backups: Path
    commits: tuple[Mark, ...]
    damage: Mark
    after: Mark
    lock_lsn: Lsn
    system_identifier: str

    def provider(
        self, run_id: str, *, archive: Path | None = None, base_backups: Path | None = None, **changes: object
    ) -> BaseBackupDirectory:
        """Return a provider for a run of its own; `changes` replace fields of its cluster."""
        cluster = Cluster(
            **{
                "system_identifier": self.system_identifier,
                "timeline": 1,
                "major": 18,
                "data_directory": str(self.server.data),
                "port": self.server.port,
                **changes,
            }
        )
        sockets = Path(tempfile.mkdtemp(prefix="s", dir=self.home))
        self.server.binaries.own(sockets)
        site = Site(
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
        settings = BaseBackupProvider(
            base_backups=base_backups or self.base_backups, archive=archive or self.archive
        )
        return BaseBackupDirectory(settings, site)

    def archive_copy(self, name: str) -> Path:
        """Copy the archive, for a test that damages it."""
        target = self.home / name
        run(["cp", "-a", self.archive, target], timeout_s=60)
        return target


@contextmanager
def production(public_dir: Path, binaries: Binaries) -> Iterator[World]:
    """Make it; everything is ended and removed behind it by whoever owns `public_dir`."""
    home = Path(tempfile.mkdtemp(prefix="w", dir=public_dir))
    home.chmod(0o755)
    archive, base_backups = home / "archive", home / "base"
    for folder in (archive, base_backups):
        folder.mkdir()
    binaries.own(home)
    server = Server(binaries, home / "data", free_port(), home, "postgres", home / "logs")
    server.initdb()
    with (server.data / "postgresql.conf").open("a") as conf:
        conf.write(
            "listen_addresses = ''\nfsync = off\nwal_level = replica\narchive_mode = on\n"
            f"archive_command = 'test ! -f {archive}/%f && cp %p {archive}/%f'\n"
            "track_commit_timestamp = on\nwork_mem = '5MB'\nlog_timezone = 'UTC'\n"
            f"data_directory = '{server.data}'\n"
        )
    job = server.start()
    try:
        server.wait_ready(job)
        with connect(server.endpoint) as session:
            yield _story(session, home, server, archive, base_backups)
    finally:
        end_job(job)


def write_row(session: Session, row: int) -> Mark:
    """Commit one row."""
    session.do("BEGIN")
    session.do("INSERT INTO public.t VALUES (%s, 'x')", (row,))
    return _commit(session, row)


def _story(session: Session, home: Path, server: Server, archive: Path, base_backups: Path) -> World:
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
    run(
        [
            server.binaries.tool("pg_basebackup"), "-h", server.sockets, "-p", str(server.port),
            "-U", "postgres", "-D", base_backups / "full", "-c", "fast", "-X", "none",
        ],
        timeout_s=60, user=server.binaries.user,
    )  # fmt: skip
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
    session.do("BEGIN")
    session.do("DELETE FROM public.t")
    damage = _commit(session, -1)
    after = write_row(session, 100)
    lock_lsn = Lsn.parse(session.value("SELECT pg_current_wal_insert_lsn()"))
    session.do("CREATE TABLE public.locked ()")
    last = session.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
    session.do("SELECT pg_switch_wal()")
    wait_for((archive / last).is_file, timeout_s=30, what="the last segment is archived")
    wait_for(
        lambda: session.value("SELECT last_archived_wal FROM pg_stat_archiver") >= last,
        timeout_s=30,
        what="the archiver is done",
    )
    identifier = str(session.value("SELECT system_identifier FROM pg_control_system()"))
    return World(
        home=home, server=server, archive=archive, base_backups=base_backups, commits=tuple(commits),
        damage=damage, after=after, lock_lsn=lock_lsn, system_identifier=identifier,
    )  # fmt: skip


def _commit(session: Session, row: int) -> Mark:
    xid = session.value("SELECT pg_current_xact_id()::text::int")
    session.do("COMMIT")
    at = session.value("SELECT pg_xact_commit_timestamp(%s::text::xid)", (str(xid),))
    end = Lsn.parse(session.value("SELECT pg_current_wal_insert_lsn()"))
    return Mark(row=row, xid=xid, at=at, end=end)
