"""
A minimal incident: a drill's throwaway production under a configuration without a [drill] table.

The world belongs to the test, so it outlives every session, and the drill's outside audit can judge
each state. Sessions run at a pseudo-terminal, where a person (a thread) passes every gate.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aftermath import WAIT_S, events, processes_of

from fixtures.command import wait_for
from fixtures.drill.audit import audit_rollback, audit_world
from fixtures.drill.world import World, build_world
from fixtures.evidence import Check
from fixtures.postgres.lsn import Lsn
from fixtures.postgres.session import Endpoint, answers
from fixtures.settings import Embedded

NAME = "stampcard-incident"
PROMPT = re.compile(r"type (yes|'[^']*') to go on, anything else stops here: $")
#: makes its standard input the controlling terminal, then becomes the session
CONTROLLING = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, '-m', 'pytest', *sys.argv[1:]])"
)
#: a switch of connection strings that can be stopped in the middle, and says where it is
WRITE = """
echo $$ > "$1/pid"; touch "$1/before"
until test -e "$1/go-before"; do sleep 0.02; done
printf %s "$DATABASE_URL" > "$2.new" && chmod 0600 "$2.new" && mv "$2.new" "$2"
touch "$1/after"
until test -e "$1/go-after"; do sleep 0.02; done
"""
#: stopping point -> the program that waits there, and the arguments by which it is told apart
STOPS = {
    "pg_dump": ("pg_dump", "*--format=directory*"),
    "proof": ("pg_restore", "*--dbname=proof_*"),
    "copy": ("cp", "*--reflink=auto*"),
    "replay": ("cp", "*RECOVERYXLOG*"),
}
#: a program that waits for a word, and counts how often it was started
SLOW = """#!/bin/sh
case "$*" in
{cases}
esac
exec '{real}' "$@"
"""
CASE = "  {words}) echo started >> '{home}/{name}.log'; while ! test -e '{home}/{name}.go'; do sleep 0.02; done ;;"


@contextmanager
def open_incident(checkout: Any, folder: Path) -> Iterator["Incident"]:
    """Make an incident below a folder the servers' user can enter; nothing of it is left behind."""
    home = Path(tempfile.mkdtemp(prefix="c", dir=folder))
    home.chmod(0o755)
    incident = Incident(checkout, home, home / "w")
    try:
        yield incident
    finally:
        incident.close()
    assert processes_of(home) == []
    shutil.rmtree(home)


class Terminal:
    """A session at a terminal of its own; a person answers its gates."""

    def __init__(self, *arguments: str, cwd: Path, env: Mapping[str, str], answering: bool = True) -> None:
        self.master, slave = os.openpty()
        self.text = ""
        self.answering = answering
        self._over = threading.Event()
        self.child = subprocess.Popen(
            [sys.executable, "-c", CONTROLLING, *arguments], cwd=cwd, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, env=dict(env),
        )  # fmt: skip
        os.close(slave)
        self._person = threading.Thread(target=self._attend)
        self._person.start()

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self.master, text.encode())

    def wait_for_text(self, text: str) -> None:
        """Wait until the session has said something."""
        wait_for(
            lambda: text in self.text, timeout_s=WAIT_S, what=f"the session says {text!r}", interval_s=0.02
        )

    def hang_up(self) -> None:
        """Lose the terminal."""
        self._over.set()
        self._person.join()
        os.close(self.master)
        self.master = -1

    def wait(self) -> int:
        """Wait for the session's end; return its code."""
        code = self.child.wait(timeout=WAIT_S)
        if self.master >= 0:
            self.hang_up()
        return code

    def kill(self) -> None:
        """End it as the out-of-memory killer does."""
        self.child.send_signal(signal.SIGKILL)
        self.wait()

    def _attend(self) -> None:
        answered = 0
        while not self._over.is_set():
            if not select.select([self.master], [], [], 0.05)[0]:
                continue
            try:
                self.text += os.read(self.master, 65536).decode(errors="replace")
            except OSError:
                return
            asked = PROMPT.search(self.text)
            if asked and self.answering and asked.start() > answered:
                answered = asked.start()
                self.type(asked[1].strip("'") + "\n")


class Incident:
    """One damaged production, its configuration, and the sessions that deal with it."""

    def __init__(self, checkout: Any, home: Path, folder: Path) -> None:
        self.checkout = checkout
        self.home = home
        self.world: World = build_world(
            run_id="incident", folder=folder, record=home / "world.json",
            shape=Embedded(users=200, warmup="1s", writers=2), seed=7, scale=1, disaster="drop",
            progress=lambda _tick: None,
        )  # fmt: skip
        self.terminals: list[Terminal] = []
        self.config = home / "production.toml"
        self.original = self.world.places.dsn.read_text()
        self._write_config()

    # -- sessions --------------------------------------------------------------------------------

    def begin(self, *, answering: bool = True) -> Terminal:
        """Start the incident."""
        at = self.world.damage.at.isoformat(timespec="microseconds")
        return self.session(
            f"--config={self.config}", f"--target-time={at}", "--exclusive", answering=answering
        )

    def resume(self) -> Terminal:
        """Go on; what a rollback's own switch left to be seen is taken away."""
        self.end_write()
        return self.session("--resume")

    def session(self, *arguments: str, answering: bool = True) -> Terminal:
        """Start a session at a terminal."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_") and k != "CI"}
        env["PATH"] = f"{self.home / 'bin'}:{env['PATH']}"
        self.terminals.append(Terminal(*arguments, cwd=self.checkout.root, env=env, answering=answering))
        return self.terminals[-1]

    def wait_for_event(self, terminal: Terminal, kind: str, *, since: int = 0, **data: Any) -> None:
        """Wait until a running session has journalled an event behind a position."""

        def seen() -> bool:
            if terminal.child.poll() is not None:
                pytest.fail(
                    f"the session ended ({terminal.child.returncode}) before {kind} {data}:\n{terminal.text[-3000:]}"
                )
            known = (self.checkout.root / "reports" / "runs" / "latest").exists()
            return known and any(event.seq > since for event in events(self.folder, kind, **data))

        wait_for(seen, timeout_s=WAIT_S, what=f"event {kind} {data}", interval_s=0.02)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.checkout.folder

    @property
    def position(self) -> int:
        """How many lines the journal has."""
        return len((self.folder / "journal.jsonl").read_bytes().splitlines())

    def shorten_monitoring(self) -> None:
        """Have had enough of watching."""
        text = self.config.read_text()
        assert text.count('"60s"') == 1
        self.config.write_text(text.replace('"60s"', '"2s"'))

    # -- stopping points -------------------------------------------------------------------------

    def hold(self, *names: str) -> None:
        """Make a program or a half of the switch wait from now on."""
        for name in names:
            self._gate(name).unlink(missing_ok=True)

    def let(self, *names: str) -> None:
        """Let them go on."""
        for name in names:
            self._gate(name).touch()

    def starts(self, name: str) -> int:
        """How often the program of a stopping point was started."""
        return len((self.home / f"{name}.log").read_text().splitlines())

    def wait_for_start(self, name: str, times: int = 1) -> None:
        """Wait until the program of a stopping point has been started so often."""
        wait_for(
            lambda: self.starts(name) >= times, timeout_s=WAIT_S, what=f"{name} was started", interval_s=0.02
        )

    def wait_in_switch(self, terminal: Terminal, half: str) -> None:
        """Wait until the switch stands before or after the writing of the connection string."""

        def there() -> bool:
            assert terminal.child.poll() is None, terminal.text[-3000:]
            return (self.home / half).exists()

        wait_for(there, timeout_s=WAIT_S, what=f"the switch stands {half} the write", interval_s=0.02)

    def end_write(self) -> None:
        """End the connection's own command, as the machine's crash would have."""
        with suppress(ProcessLookupError, FileNotFoundError):
            os.kill(int((self.home / "pid").read_text()), signal.SIGKILL)
        for name in ("before", "after", "pid"):
            (self.home / name).unlink(missing_ok=True)

    # -- what is so ------------------------------------------------------------------------------

    def writable(self) -> list[str]:
        """Return which databases take a write of the application."""
        ports = {"production": self.world.port}
        for event in events(self.folder, "port-fixed"):
            ports["restored"] = event.data["port"]
        return [name for name, port in ports.items() if self._takes_writes(port)]

    def restored(self) -> Endpoint | None:
        """Return the superuser's endpoint on the restored instance, None while there is none."""
        done = events(self.folder, "action-done", action="restored")
        if not done:
            return None
        ref = done[-1].data["result"]["instance"]["ref"]
        endpoint = Endpoint(ref["host"], ref["port"], ref["user"], self.world.production.database)
        return endpoint if answers(endpoint) else None

    def packs(self) -> list[Path]:
        """Return the reconciliation packs."""
        return sorted(path for path in (self.folder / "packs").glob("*") if path.is_dir())

    def audit_rolled_back(self) -> list[Check]:
        """Return what the outside audit finds wrong with a rolled back run."""
        mark = events(self.folder, "lock-position")[-1].data["mark"]
        checks = audit_rollback(
            self.world, lock_lsn=Lsn(int(mark["lsn"]["value"])),
            old=self.world.production, restored=self.restored(), packs=self.packs(),
        )  # fmt: skip
        return [check for check in checks if check.stops]

    def audit_served(self) -> list[Check]:
        """Return what the outside audit finds wrong with a run that serves users."""
        locked = events(self.folder, "action-done", action="writes_locked")[-1].data["result"]
        window = events(self.folder, "action-done", action="discarded_window")[-1].data["result"]
        served = self.restored()
        assert served is not None
        checks = audit_world(
            self.world, target_at=datetime.fromisoformat(window["from_at"]), exclusive=True,
            lock_lsn=Lsn.parse(locked["lock_lsn"]), served=served, old=self.world.production, packs=self.packs(),
        )  # fmt: skip
        return [check for check in checks if check.stops]

    def lease(self) -> dict[str, Any] | None:
        """Return the held lease."""
        files = list(self.world.places.leases.glob("*.lease.json"))
        return json.loads(files[0].read_text()) if files else None

    def close(self) -> None:
        """End everything."""
        for terminal in self.terminals:
            if terminal.child.poll() is None:
                terminal.child.kill()
            terminal.wait()
        self.end_write()
        self.world.teardown()

    def _takes_writes(self, port: int) -> bool:
        end = self.world.app_endpoint(port=port)
        try:
            with psycopg.connect(
                host=end.host, port=end.port, user=end.user, dbname=end.database, connect_timeout=5,
                password=end.password.reveal() if end.password else "",
            ) as session:  # fmt: skip
                session.execute("INSERT INTO public.heartbeat (at) VALUES (clock_timestamp())")
                session.rollback()
        except psycopg.Error:
            return False
        return True

    def _gate(self, name: str) -> Path:
        return self.home / (f"{name}.go" if name in STOPS else f"go-{name}")

    def _write_config(self) -> None:
        places = self.world.places
        shipped = tomllib.loads((self.checkout.root / "runbook.toml").read_text())
        del shipped["drill"]
        settings = _laid_over(shipped, self.world.bindings())
        bin_dir, programs = Path(settings["postgres"]["bin_dir"]), self.home / "programs"
        for folder in (programs, self.home / "bin"):
            folder.mkdir(mode=0o755)
        slow = {"pg_dump", "pg_restore"}
        for program in bin_dir.iterdir():
            if program.name not in slow:
                (programs / program.name).symlink_to(program)
        for name in slow:
            _slow(programs / name, self.home, real=bin_dir / name)
        _slow(self.home / "bin" / "cp", self.home, real=Path("/bin/cp"))
        self.let(*STOPS, "before", "after")
        settings["production"]["name"] = NAME
        settings["postgres"]["bin_dir"] = str(programs)
        settings["ticket"] = {"directory": str(self.home / "tickets")}
        settings["monitoring"]["window"] = "60s"
        settings["safety_copy"]["mode"] = "dump"
        settings["app"]["connections"] = [
            {
                "kind": "command", "database": self.world.production.database, "read": ["cat", str(places.dsn)],
                "write": ["sh", "-c", WRITE, "write", str(self.home), str(places.dsn)],
            }
        ]  # fmt: skip
        migrations = settings["databases"][0]["migrations"]
        migrations["directory"] = str(self.checkout.root / migrations["directory"])
        self.config.write_text(
            "".join(f"{key} = {_toml(value)}\n" for key, value in _scalars_first(settings))
        )


def _slow(path: Path, home: Path, *, real: Path) -> None:
    cases = []
    for name, (program, words) in STOPS.items():
        if program == path.name:
            cases.append(CASE.format(words=words, home=home, name=name))
            log = home / f"{name}.log"
            log.touch()
            log.chmod(0o666)  # a restored server runs as another user
    path.write_text(SLOW.format(cases="\n".join(cases), real=real))
    path.chmod(0o755)


def _laid_over(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = (
            _laid_over(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
        )
    return merged


def _scalars_first(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(settings.items(), key=lambda item: isinstance(item[1], dict | list))


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value)
