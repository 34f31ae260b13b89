"""What a session leaves: the record of its run, processes, folders, Allure's verdicts."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from fixtures.command import start_ticks, wait_for
from fixtures.journal import Event, read_journal
from fixtures.manifest import MANIFEST

#: bound of one wait, seconds; reached only when something hangs
WAIT_S = 120.0
CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def finish(child: "subprocess.Popen[str]") -> str:
    """Wait for a session's end; return what it said."""
    return child.communicate(timeout=WAIT_S)[0]


def kill(child: "subprocess.Popen[str]") -> None:
    """End a session as the out-of-memory killer does: nothing of it runs any more."""
    os.kill(child.pid, signal.SIGKILL)
    child.communicate(timeout=WAIT_S)


def wait_for_world(root: Path, child: "subprocess.Popen[str]", *, job: str = "app") -> Path:
    """Wait until a drill's world has started a program; return the world's folder."""
    found: list[Path] = []

    def started() -> bool:
        assert child.poll() is None, child.communicate()[0]
        for path in (root / "reports" / "runs").glob("*/world.json"):
            data = json.loads(path.read_text())
            if any(entry["name"] == job and entry["pid"] for entry in data["jobs"]):
                found.append(Path(data["folder"]))
        return bool(found)

    wait_for(started, timeout_s=WAIT_S, what=f"the world's {job} runs", interval_s=0.02)
    return found[0]


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that name a path below a folder."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if start_ticks(int(entry.name)) is not None and any(f"{folder}/" in word for word in words):
            lines.append(" ".join(words))
    return lines


def events(folder: Path, kind: str, **data: Any) -> list[Event]:
    """Return a run's events of a kind; reading checks the hash chain."""
    return [
        event
        for event in read_journal(folder)
        if event.kind == kind and all(event.data.get(key) == value for key, value in data.items())
    ]


def allure_statuses(folder: Path) -> dict[str, str]:
    """Return Allure's status per test of the runbook."""
    found = {}
    for file in (folder / "allure-results").glob("*-result.json"):
        result = json.loads(file.read_text())
        story = next(label["value"] for label in result["labels"] if label["name"] == "story")
        assert story not in found, f"two results of {story}"
        found[story] = result["status"]
    return found


def assert_interrupted(folder: Path, test: str) -> None:
    """The interrupted test is broken, those before it passed, none after it ran: on both records."""
    steps = {
        step["id"]: step["status"] for step in json.loads((folder / "summary.json").read_text())["steps"]
    }
    allure = allure_statuses(folder)
    position = MANIFEST.index(test)

    assert {steps[name] for name in MANIFEST[:position]} <= {"passed"}
    assert steps[test] == "broken"
    assert {steps[name] for name in MANIFEST[position + 1 :]} <= {"not-run", "skipped"}
    assert set(allure) == set(MANIFEST)
    assert {allure[name] for name in MANIFEST[:position]} <= {"passed"}
    assert allure[test] == "broken"
    assert {allure[name] for name in MANIFEST[position + 1 :]} <= {"skipped"}


def slow_copies(folder: Path) -> tuple[dict[str, str], Path]:
    """
    Return an environment in which the copy of a base backup waits, and the file that lets it go on.

    Every other use of cp passes through.
    """
    folder.mkdir(mode=0o755)
    go = folder / "go"
    program = folder / "cp"
    program.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        f"  *--reflink=auto*) while ! test -e '{go}'; do sleep 0.05; done ;;\n"
        'esac\nexec /bin/cp "$@"\n'
    )
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}, go
