"""What the project's own tests share: short folders, server programs, throwaway clusters."""

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from fixtures.postgres.binaries import Binaries, embedded_binaries
from fixtures.postgres.server import Server, free_port

pytest_plugins = ["pytester", "tests.missing", "tests.engine"]

# a runner in the background starts with Ctrl-C ignored, one under nohup with a lost terminal, and its
# children would inherit that: what sessions do on either is one of the things tested here
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


#: modules of tests/runbook whose tests share something: a production, or the engine's whole content
TOGETHER = ("test_containers.py", "test_incident.py", "test_incident_programs.py", "test_stage.py")
#: the lab, the last parameter of the contract's tests
LAB = re.compile(r"[a-z_]+(?:-s3)?(?=]$)")


class ByWorld(LoadScopeScheduling):
    """Keeps in one worker what shares a world: a module, a lab of the contract; a session shares nothing."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        if file.endswith("/test_providers.py"):
            lab = LAB.search(nodeid)
            return f"{file}[{lab[0]}]" if lab else file
        return nodeid if "/runbook/" in file and not file.endswith(TOGETHER) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByWorld:
    """Take our own: pytest-xdist's groups are lost on pytest 9.2, whose node ids cannot be changed."""
    return ByWorld(config, log)


@pytest.fixture(scope="session")
def public_dir() -> Iterator[Path]:
    """A short folder an unprivileged server user can enter; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="rrb-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def binaries(public_dir: Path) -> Binaries:
    """PostgreSQL 18 from the wheel."""
    return embedded_binaries(public_dir)


@pytest.fixture
def new_server(public_dir: Path, binaries: Binaries) -> Iterator[Callable[..., Server]]:
    """Make clusters that are ended and removed after the test: `new_server("prod", initdb=True)`."""
    made: list[tuple[Server, Path]] = []

    def make(name: str = "pg", *, initdb: bool = True) -> Server:
        home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=public_dir))
        home.chmod(0o755)
        binaries.own(home)
        server = Server(binaries, home / "data", free_port(), home, "postgres", home / "logs")
        made.append((server, home))
        if initdb:
            server.initdb()
        return server

    yield make
    for server, home in made:
        pid = server.pid()
        if pid is not None:
            os.kill(pid, 3)  # SIGQUIT: a throwaway's failing archive_command would hang a clean stop
            server_gone(pid)
        shutil.rmtree(home)


def server_gone(pid: int) -> None:
    """Wait until a postmaster has ended."""
    from fixtures.command import start_ticks, wait_for

    wait_for(lambda: start_ticks(pid) is None, timeout_s=30, what=f"server {pid} ended")
