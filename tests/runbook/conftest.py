"""
The runbook itself under test: a copy of the checkout, sessions as processes, their journal and summary.

A copy, because a run writes into its checkout's reports folder and the tests leave nothing behind.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fixtures.command import wait_for
from fixtures.journal import read_journal
from fixtures.state import RunState, fold

ROOT = Path(__file__).resolve().parents[2]
#: what a session needs of the checkout
PARTS = ("conftest.py", "pyproject.toml", "runbook.toml", "fixtures", "runbook_tests", "reports", "docs")
#: bound of one session, seconds; reached only when something hangs
SESSION_S = 300


@dataclass
class Session:
    """A finished session."""

    code: int
    output: str


@dataclass
class Checkout:
    """A copy of the checkout in which sessions run."""

    root: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str, env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start a session without a terminal, in its own process group."""
        child = subprocess.Popen(
            [sys.executable, "-m", "pytest", *arguments],
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}, **(env or {})},
        )
        self.processes.append(child)
        return child

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> Session:
        """Run a session to its end."""
        child = self.start(*arguments, env=env)
        output, _ = child.communicate(timeout=SESSION_S)
        return Session(child.returncode, output)

    @property
    def folder(self) -> Path:
        """The newest run's folder."""
        return (self.root / "reports" / "runs" / "latest").resolve()

    def state(self) -> RunState:
        """The newest run as its journal tells it."""
        return fold(read_journal(self.folder))

    def summary(self) -> dict[str, Any]:
        """The newest run's summary.json."""
        loaded: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return loaded

    def world_folder(self) -> Path:
        """The drill world's folder, which is gone after codes 0, 1 and 2."""
        return Path(json.loads((self.folder / "world.json").read_text())["folder"])

    def status(self, test: str) -> str:
        """One test's status in the summary."""
        return next(step["status"] for step in self.summary()["steps"] if step["id"] == test)

    def wait_for_event(self, child: "subprocess.Popen[str]", kind: str, **data: Any) -> None:
        """Wait until a running session has journalled an event."""
        runs = self.root / "reports" / "runs"

        def seen() -> bool:
            if child.poll() is not None:
                pytest.fail(
                    f"the session ended ({child.returncode}) before {kind} {data}:\n{child.communicate()[0][-3000:]}"
                )
            if not (runs / "latest").exists():
                return False
            return any(
                event.kind == kind and all(event.data.get(key) == value for key, value in data.items())
                for event in read_journal(self.folder)
            )

        wait_for(seen, timeout_s=SESSION_S, what=f"event {kind} {data}", interval_s=0.02)

    def edit(self, old: str, new: str, *, file: str = "runbook.toml") -> None:
        """Change the copy's configuration."""
        path = self.root / file
        text = path.read_text()
        if old not in text:
            pytest.fail(f"{file} has no {old!r}")
        path.write_text(text.replace(old, new))

    def close(self) -> None:
        """End every session and every world that is left."""
        for child in self.processes:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            if child.stdout is not None and not child.stdout.closed:
                child.communicate()
        subprocess.run(
            [sys.executable, "-m", "fixtures.drill.clean"],
            cwd=self.root,
            check=True,
            capture_output=True,
            timeout=120,
        )


@pytest.fixture
def new_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Checkout]]:
    """Make copies of the checkout; everything they started is ended."""
    made: list[Checkout] = []

    def make() -> Checkout:
        root = tmp_path_factory.mktemp("checkout")
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(
                    source,
                    root / part,
                    ignore=shutil.ignore_patterns("__pycache__", "node_modules", "runs", "leases"),
                )
            else:
                shutil.copy(source, root / part)
        made.append(Checkout(root))
        return made[-1]

    yield make
    for checkout in made:
        checkout.close()
        shutil.rmtree(checkout.root)


#: the shipped drill, shrunk: what is tested is what happens, not how much of it
FAST = (
    ("users = 2000 ", "users = 200 "),
    ('warmup = "3s"', 'warmup = "1s"'),
    ('window = "10s"', 'window = "3s"'),
    ('interval = "1s"\np95_ms = 500 ', 'interval = "500ms"\np95_ms = 5000 '),
    ("p99_ms = 2000", "p99_ms = 9000"),
    ("error_rate = 0.01", "error_rate = 0.01\nmin_requests = 1"),
    ('proof_window = "2s"', 'proof_window = "500ms"'),
)


@pytest.fixture
def checkout(new_checkout: Callable[[], Checkout]) -> Checkout:
    """One copy of the checkout with a small, fast drill."""
    made = new_checkout()
    for old, new in FAST:
        made.edit(old, new)
    return made
