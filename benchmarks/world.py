"""
A throwaway cluster for measurements, and a clock for what its processes spend.

Ratios of processor time are the steadier ones: wall clock is shared with whatever else runs here.
"""

import os
import platform
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from psycopg import sql

from fixtures.command import run, wait_for
from fixtures.postgres.binaries import embedded_binaries
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import Endpoint, connect

#: a cache that holds the data: what is measured is the checks' work, not the disk
SETTINGS: Final = {
    "fsync": "off", "shared_buffers": "512MB", "max_wal_size": "8GB", "wal_level": "minimal", "max_wal_senders": "0",
    "autovacuum": "off", "listen_addresses": "", "maintenance_work_mem": "256MB",
}  # fmt: skip
LOAD_S: Final = 3600.0
#: seconds for a closed connection's process to end
ENDED_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds of wall clock, and of processor time of the server and its clients together."""

    wall_s: float
    cpu_s: float


@dataclass(slots=True)
class Table:
    """Named pieces of work of one run; the first one is what the others are compared with."""

    title: str
    works: dict[str, Callable[[], object]] = field(default_factory=dict)
    rows: list[tuple[str, Spent]] = field(default_factory=list)

    def add(self, name: str, work: Callable[[], object]) -> None:
        """Have a piece of work measured."""
        self.works[name] = work

    def measure(self, world: "World", *, rounds: int = 5) -> None:
        """Do all in turn, some times over, so that a busy minute is everybody's; keep each one's cheapest."""
        taken: dict[str, list[Spent]] = {name: [] for name in self.works}
        for number in range(rounds):
            print(f"  round {number + 1} of {rounds}", flush=True)
            for name, work in self.works.items():
                taken[name].append(world.spent(work))
        for name, spent in taken.items():
            wall, cpu = min(each.wall_s for each in spent), min(each.cpu_s for each in spent)
            self.rows.append((name, Spent(wall_s=wall, cpu_s=cpu)))

    def show(self) -> None:
        """Print the ratios."""
        base = self.rows[0][1]
        print(f"\n{self.title}\nmachine: {machine()}\n")
        print(f"| {'measured':58} | wall, s | CPU, s | wall ratio | CPU ratio |")
        print("| --- | --- | --- | --- | --- |")
        for name, spent in self.rows:
            wall, cpu = spent.wall_s / base.wall_s, spent.cpu_s / base.cpu_s
            print(f"| {name:58} | {spent.wall_s:.2f} | {spent.cpu_s:.2f} | {wall:.2f} | {cpu:.2f} |")


@dataclass(frozen=True, slots=True)
class World:
    """A running cluster."""

    server: Server

    def database(self, name: str, statements: Sequence[str]) -> Endpoint:
        """Make a database, fill it, vacuum it and write it out."""
        with connect(self.server.endpoint) as session:
            session.do(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        endpoint = self.server.endpoint.on(name)
        with connect(endpoint, settings={"search_path": "public", "synchronous_commit": "off"}) as session:
            for statement in (*statements, "VACUUM (FREEZE, ANALYZE)", "CHECKPOINT"):
                session.raw.execute(statement)  # type: ignore[call-overload]
        return endpoint

    def spent(self, work: Callable[[], object]) -> Spent:
        """Return what a piece of work cost."""
        wall, cpu = time.monotonic(), self._cpu()
        work()
        return Spent(wall_s=time.monotonic() - wall, cpu_s=self._cpu() - cpu)

    def tool(self, *argv: str, endpoint: Endpoint) -> None:
        """Run one of the server's programs against a database."""
        program, *rest = argv
        run([self.server.binaries.tool(program), *rest], timeout_s=LOAD_S, env=endpoint.environment())

    def _cpu(self) -> float:
        """Add up this process, its children that ended, and every process of the server, ended or not."""
        # a backend that is just ending would be counted neither by itself nor by its parent
        wait_for(lambda: not self._backends(), timeout_s=ENDED_S, what="the server's connections have ended")
        own = os.times()
        total = own.user + own.system + own.children_user + own.children_system
        for number, parent, ticks in _processes():
            if number == self.server.pid():
                total += sum(ticks) / os.sysconf("SC_CLK_TCK")
            elif parent == self.server.pid():
                total += sum(ticks[:2]) / os.sysconf("SC_CLK_TCK")
        return total

    def _backends(self) -> list[int]:
        postmaster = self.server.pid()
        return [number for number, parent, _ in _processes() if parent == postmaster and _serves(number)]


def _processes() -> Iterator[tuple[int, int, list[int]]]:
    """Yield pid, parent, and ticks: user and system, own and of children that ended."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:  # ended meanwhile
            continue
        words = rest.split()
        yield int(name.split()[0]), int(words[1]), [int(word) for word in words[11:15]]


def _serves(number: int) -> bool:
    """Whether a server process is, or just was, a connection's or a parallel worker."""
    try:
        title = (Path("/proc") / str(number) / "cmdline").read_text()
    except OSError:
        return False
    return "[local]" in title or "parallel worker" in title or not title


@contextmanager
def world() -> Iterator[World]:
    """Make a cluster in a folder of its own and throw it away."""
    # ended from outside, it must not leave a server behind either
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="rrbench-", dir="/tmp"))
    home.chmod(0o755)
    binaries = embedded_binaries(home)
    binaries.own(home)
    server = Server(binaries, home / "data", free_port(), home, "postgres", home / "logs")
    server.initdb()
    job = server.start(SETTINGS)
    try:
        server.wait_ready(job)
        yield World(server)
    finally:
        server.kill(job)
        shutil.rmtree(home)


def machine() -> str:
    """Return what the figures were taken on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} processors ({model}), {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}"
