"""
Sessions of the runbook as processes: without any terminal, and at one of their own.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.runbook.incident_parts import NAME, PASSWORD, PASSWORD_ENV

#: seconds; reached only when something hangs
SESSION_S = 300
PROMPT = re.compile(r"GATE (\w+) for (\w+) ([^\n\r]*)\r?\n.*?anything else stops here: $", re.DOTALL)
#: what a session needs of the checkout
PARTS = ("conftest.py", "pyproject.toml", "runbook.toml", "fixtures", "runbook_tests", "reports", "docs")
#: gates at which the Owner types production's name
TYPED = frozenset({"production_name", "cutover", "release"})


@dataclass
class Session:
    """A finished session."""

    code: int
    output: str
    gates: list[tuple[str, str]] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        """The run's id, as the session printed it."""
        found = re.search(r"\d{8}T\d{6}Z-[0-9a-f]{4}", self.output)
        return found[0] if found else ""


@dataclass
class Sessions:
    """
    Sessions in a copy of the checkout, with production's configuration.

    Attributes:
        checkout: the copy; what a run writes stays in it.
        config: production's file.
    """

    checkout: Path
    config: Path

    def edit(self, old: str, new: str) -> None:
        """Change production's configuration."""
        text = self.config.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the configuration"
        self.config.write_text(text.replace(old, new))

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start a session without any terminal."""
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *arguments], cwd=self.checkout, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env=self._environment(env),
        )  # fmt: skip

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Session:
        """Run a session without any terminal to its end."""
        child = self.start(*arguments, env=env)
        output, _ = child.communicate(timeout=SESSION_S)
        return Session(child.returncode, output)

    def incident(self, *arguments: str) -> Session:
        """Run an incident with production's configuration, without a terminal."""
        return self.run(f"--config={self.config}", *arguments)

    def at_terminal(self, *arguments: str, answer: Callable[[str, str], str] | None = None) -> Session:
        """
        Run a session at a terminal of its own, and answer its gates.

        Args:
            answer: (gate, role) -> what is typed; by default what the gate wants.
        """
        answer = answer or (lambda gate, role: NAME if gate in TYPED and role == "owner" else "yes")
        master, slave = os.openpty()
        take_terminal = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        child = subprocess.Popen(
            [sys.executable, "-c", take_terminal, sys.executable, "-m", "pytest", *arguments], cwd=self.checkout,
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=self._environment(None),
        )  # fmt: skip
        os.close(slave)
        try:
            return self._converse(child, master, answer)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            os.close(master)

    def _converse(
        self, child: "subprocess.Popen[bytes]", master: int, answer: Callable[[str, str], str]
    ) -> Session:
        shown, since, gates = b"", 0, []
        while True:
            ready, _, _ = select.select([master], [], [], SESSION_S)
            assert ready, f"the session says nothing any more:\n{shown[-3000:].decode()}"
            try:
                piece = os.read(master, 65536)
            except OSError:  # the other side is gone
                piece = b""
            if not piece:
                break
            shown += piece
            question = PROMPT.search(shown[since:].decode(errors="replace"))
            if question:
                since = len(shown)
                gates.append((question[1], question[2]))
                os.write(master, answer(question[1], question[2]).encode() + b"\n")
        return Session(child.wait(timeout=SESSION_S), shown.decode(errors="replace"), gates)

    def _environment(self, changes: Mapping[str, str] | None) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_") and k != "CI"}
        return {**kept, PASSWORD_ENV: PASSWORD, "COLUMNS": "200", **(changes or {})}


def copy_part(source: Path, target: Path) -> None:
    """Copy a file or folder of the checkout, without what runs left in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", "node_modules", "runs", "leases")
        shutil.copytree(source, target, ignore=ignored)
    else:
        shutil.copy(source, target)
