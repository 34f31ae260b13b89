"""
A production of somebody else's: a shop with its own cluster, schema, ledger, application and scripts.

Nothing of the drill's world is used. Its runbook.toml is the one of docs/how-to/incident.md, with
other paths and ports. Customers order all the time and remember what they were told, so that a test
can say what must be served without asking the runbook.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from fixtures.command import JobRef, end_job, run, spawn, start_ticks, wait_for
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.server import Server, free_port
from tests.runbook.incident_parts import (
    ADMIN,
    APP,
    BEFORE_MIGRATIONS,
    MIGRATIONS,
    PASSWORD,
    ROOT,
    ROWS,
    SCRIPTS,
    Order,
    configuration,
)
from tests.runbook.incident_sessions import PARTS, Sessions, copy_part


class Shop(Sessions):
    """The production, its surroundings, and sessions of the runbook against it."""

    def __init__(self, public_dir: Path, binaries: Binaries) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="i", dir=public_dir))
        self.home.chmod(0o755)
        super().__init__(self.home / "checkout", self.home / "production.toml")
        for part in PARTS:
            copy_part(ROOT / part, self.checkout / part)
        self.binaries = binaries
        self.port, self.app_port = free_port(), free_port()
        for name in ("pg", "archive", "backups", "archive-2", "backups-2"):
            (self.home / name).mkdir()
            binaries.own(self.home / name)
        for name in ("restored", "safety", "tickets", "bin", "migrations"):
            (self.home / name).mkdir()
        self.server = Server(
            binaries, self.home / "pg" / "data", self.port, self.home / "pg", ADMIN, self.home / "logs"
        )
        self.env_file = self.home / "app.env"
        self.orders: list[Order] = []
        self.target = self.damaged_at = self.before = self.after = datetime.now(UTC)
        self.target_lsn = self.target_xid = ""
        self._jobs: list[JobRef] = []
        self._quiet = threading.Event()
        self._customers: list[threading.Thread] = []

    # -- life ------------------------------------------------------------------------------------

    def build(self) -> "Shop":
        """Make the cluster, its backup, its application; open the shop."""
        password = self.home / "pw"
        password.write_text(PASSWORD)
        self.binaries.own(password)
        self.server.initdb("--no-sync", f"--pwfile={password}", "--auth-local=scram-sha-256")
        password.unlink()
        with (self.server.data / "postgresql.conf").open("a") as conf:
            conf.write(
                "listen_addresses = '127.0.0.1'\nmax_connections = 60\nwal_level = replica\narchive_mode = on\n"
                f"archive_command = 'test ! -f {self.home}/archive/%f && cp %p {self.home}/archive/%f'\n"
                "autovacuum_naptime = '1d'\nmax_wal_size = '256MB'\nwork_mem = '6MB'\n"
            )
        # nobody gets in without a password, not even over the socket
        (self.server.data / "pg_hba.conf").write_text(
            f"host all,replication {ADMIN} 127.0.0.1/32 scram-sha-256\nhost shop shop_app 127.0.0.1/32 scram-sha-256\n"
        )
        self.start_postgres()
        self._scripts()
        self._schema()
        self.base_backup("monday")
        self.env_file.write_text(
            "SHOP_THEME=dark\nMAINTENANCE=off\n"
            f"DATABASE_URL=postgresql://shop_app:app%3Asecret%2F8302@127.0.0.1:{self.port}/shop\n"
        )
        self.command("settlement", "resume")
        self._jobs.append(
            spawn(
                [sys.executable, APP, "serve", str(self.app_port), self.env_file],
                name="shop",
                folder=self.home / "logs",
            )
        )
        wait_for(lambda: self.get("/up") == 200, timeout_s=30, what="the shop is open")
        self.config.write_text(
            configuration(self.home, self.binaries, port=self.port, app_port=self.app_port)
        )
        self.open_doors()
        return self

    def damage(self) -> "Shop":
        """Let the right moment pass, deploy a migration, and lose every payment."""
        self.wait_for_orders(20)
        self.before = datetime.now(UTC)
        with self.admin() as session:
            self.target_xid = self._order_of_ours(session)
            session.execute("SELECT pg_create_restore_point('before the deploy')")
            self.target = session.execute("SELECT clock_timestamp()").fetchone()[0]
            self.target_lsn = session.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()[0]
        self.after = datetime.now(UTC)
        self.wait_for_orders(20)
        self.migrate("20260301000000_notes")
        with self.admin() as session:
            self.damaged_at = session.execute("SELECT clock_timestamp()").fetchone()[0]
            session.execute("UPDATE shop.orders SET cents = 0")
            session.execute("TRUNCATE shop.payments")
        self.wait_for_orders(20)
        return self

    def close(self) -> None:
        """End everything and remove it."""
        self.close_doors()
        for job in self._jobs:
            end_job(job)
        # sessions that hang and the restored server's keeper first: it would start its server again
        self._kill(lambda words: "keeper.sh" in words or "pytest" in words)
        for pid_file in self.home.rglob("postmaster.pid"):
            with suppress(OSError, ValueError):
                pid = int(pid_file.read_text().splitlines()[0])
                os.kill(pid, signal.SIGQUIT)
                wait_for(lambda pid=pid: start_ticks(pid) is None, timeout_s=30, what=f"server {pid} ended")
        self._kill(lambda _: True)
        shutil.rmtree(self.home)

    # -- the cluster -----------------------------------------------------------------------------

    def admin(self, database: str = "shop", *, port: int = 0) -> "psycopg.Connection[tuple[Any, ...]]":
        """Log in as the administrator."""
        return psycopg.connect(
            host="127.0.0.1",
            port=port or self.port,
            user=ADMIN,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
        )

    def start_postgres(self) -> None:
        """Start production."""
        self.server.start(name="production")
        wait_for(self.answers, timeout_s=60, what="production answers")

    def stop_postgres(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Production goes down, by default as after a power cut."""
        pid = self.server.pid()
        assert pid is not None
        os.kill(pid, how)
        wait_for(lambda: start_ticks(pid) is None, timeout_s=60, what="production is down")

    def answers(self) -> bool:
        """Whether production takes a log-in."""
        try:
            self.admin("postgres").close()
        except psycopg.Error:
            return False
        return True

    def base_backup(self, name: str) -> None:
        """Take a plain base backup whose log comes from the archive."""
        run(
            [
                self.binaries.tool("pg_basebackup"), "-h", "127.0.0.1", "-p", str(self.port), "-U", ADMIN,
                "-D", self.home / "backups" / name, "-c", "fast", "-X", "none",
            ],
            timeout_s=120, user=self.binaries.user, env={"PGPASSWORD": PASSWORD},
        )  # fmt: skip

    def archive_everything(self) -> None:
        """Switch the segment and wait for the archive."""
        with self.admin() as session:
            session.execute("SELECT pg_create_restore_point('something to archive')")
            last = session.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()[0]
        wait_for((self.home / "archive" / last).is_file, timeout_s=60, what="the last segment is archived")

    def migrate(self, name: str) -> None:
        """Run one migration and record it as Prisma does."""
        folder = self.home / "migrations" / name
        folder.mkdir(exist_ok=True)
        file = folder / "migration.sql"
        file.write_text(MIGRATIONS[name])
        with self.admin() as session, session.transaction():
            session.execute("SET LOCAL ROLE shop_owner")
            session.execute(file.read_bytes())
            session.execute(
                "INSERT INTO shop._prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count)"
                " VALUES (%s, %s, %s, clock_timestamp(), 1)",
                (str(uuid.uuid4()), hashlib.sha256(file.read_bytes()).hexdigest(), name),
            )

    def access_rules(self) -> tuple[Any, ...]:
        """Return what the lock changes: limits, read-only defaults, log-in of the application."""
        with self.admin("postgres") as session:
            return (
                session.execute(
                    "SELECT datname, datconnlimit, datallowconn, (SELECT setconfig FROM pg_db_role_setting"
                    " WHERE setdatabase = d.oid AND setrole = 0) FROM pg_database d ORDER BY 1"
                ).fetchall(),
                session.execute(
                    "SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname ~ '^shop' ORDER BY 1"
                ).fetchall(),
            )

    def traces(self) -> dict[str, Any]:
        """Return what a session that must change nothing may not change; the shop must be quiet."""
        with self.admin("postgres") as session:
            database = session.execute(
                "SELECT pg_snapshot_xmax(pg_current_snapshot())::text,"
                " (SELECT system_identifier FROM pg_control_system())::text"
            ).fetchone()
        return {
            "database": database, "rules": self.access_rules(), "files": self.files(),
            "env": self.env_file.read_text(), "reports": self.reports(), "up": self.get("/up"),
        }  # fmt: skip

    def files(self) -> dict[str, tuple[int, int]]:
        """Return size and time of every file a session may make or change."""
        places = (
            "archive",
            "backups",
            "restored",
            "safety",
            "tickets",
            "archive-2",
            "backups-2",
            "migrations",
        )
        return {
            str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
            for place in places
            for path in sorted((self.home / place).rglob("*"))
        }

    def reports(self) -> list[str]:
        """Return everything below the checkout's reports folder, byte code aside."""
        return sorted(
            str(path)
            for path in (self.checkout / "reports").rglob("*")
            if "__pycache__" not in path.parts and path.suffix != ".pyc"
        )

    # -- the application -------------------------------------------------------------------------

    def command(self, name: str, *arguments: str) -> str:
        """Run one of the shop's own scripts."""
        return run([self.home / "bin" / name, *arguments], timeout_s=30).stdout.strip()

    def get(self, path: str) -> int:
        """Return the status of a request, 0 when nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.app_port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def open_doors(self) -> None:
        """Let customers order; they remember what they were told."""
        self._quiet.clear()
        self._customers = [threading.Thread(target=self._shopping, args=(number,)) for number in (1, 2)]
        for customer in self._customers:
            customer.start()

    def close_doors(self) -> None:
        """No customer orders any more."""
        self._quiet.set()
        for customer in self._customers:
            customer.join()
        self._customers = []

    def be_quiet(self) -> None:
        """Nobody and nothing writes, so that every change seen is the runbook's."""
        self.close_doors()
        self.command("settlement", "pause")

    def wait_for_orders(self, number: int) -> None:
        """Wait until so many more orders were taken."""
        enough = len(self.orders) + number
        wait_for(lambda: len(self.orders) >= enough, timeout_s=60, what=f"{number} orders are taken")

    def order(self, number: int) -> bool:
        """Order something as a customer; remember it when it was taken."""
        key, cents, sent = str(uuid.uuid4()), 100 + len(self.orders) % 900, datetime.now(UTC)
        body = json.dumps({"customer": number, "cents": cents, "key": key}).encode()
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.app_port}/orders", data=body, timeout=10
            ) as answer:
                taken = bool(json.load(answer)["accepted"])
        except (OSError, ValueError):
            return False
        if taken:
            self.orders.append(Order(key, cents, sent, datetime.now(UTC)))
        return taken

    def served_orders(self) -> dict[str, int]:
        """Return key -> cents of what the application's present database holds."""
        url = self.command("database-url", "read")
        with psycopg.connect(url) as session:
            return dict(session.execute("SELECT key, cents FROM shop.orders").fetchall())

    def wrong_orders(self) -> list[Order]:
        """
        Return what is served wrong: lost or altered though taken before the target, or back though sent after.

        Every kind of target lies between `before` and `after`; what was under way just then may be either.
        """
        served = self.served_orders()
        lost = [
            order
            for order in self.orders
            if order.taken < self.before and served.get(order.key) != order.cents
        ]
        old = [f"old-{number}" for number in range(1, 401) if served.get(f"old-{number}") != number]
        back = [
            order
            for order in self.orders
            if self.after < order.sent < self.damaged_at and order.key in served
        ]
        return [*lost, *back, *(Order(key, 0, self.before, self.before) for key in old)]

    # -- private ---------------------------------------------------------------------------------

    def _scripts(self) -> None:
        words = {
            "@PYTHON@": sys.executable,
            "@APP@": str(APP),
            "@ENV@": str(self.env_file),
            "@HOME@": str(self.home),
        }
        for name, body in SCRIPTS.items():
            for word, value in words.items():
                body = body.replace(word, value)  # noqa: PLW2901 - filled word by word
            file = self.home / "bin" / name
            file.write_text(f"#!/bin/sh\n{body.strip()}\n")
            file.chmod(0o755)

    def _schema(self) -> None:
        for database, statements in BEFORE_MIGRATIONS.items():
            with self.admin(database) as session:
                for statement in statements:
                    session.execute(statement)
        for name in sorted(MIGRATIONS)[:2]:
            self.migrate(name)
        with self.admin() as session:
            for statement in ROWS:
                session.execute(statement)

    def _order_of_ours(self, session: "psycopg.Connection[tuple[Any, ...]]") -> str:
        with session.transaction():
            session.execute("INSERT INTO shop.customers (email) VALUES ('marked@example.com')")
            xid: str = session.execute("SELECT pg_current_xact_id()::text").fetchone()[0]
        return xid

    def _shopping(self, number: int) -> None:
        while not self._quiet.wait(0.02):
            self.order(number)

    def _kill(self, chosen: Callable[[str], bool]) -> None:
        # the world's folder is in the command line of everything it started, and of nothing else
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = entry.read_bytes().decode(errors="replace")
                if str(self.home) in words and chosen(words):
                    os.kill(int(entry.parent.name), signal.SIGKILL)


@contextmanager
def open_shop(public_dir: Path, binaries: Binaries) -> Iterator[Shop]:
    """Build a shop; end and remove it whatever happens."""
    shop = Shop(public_dir, binaries)
    try:
        yield shop.build()
    finally:
        shop.close()
