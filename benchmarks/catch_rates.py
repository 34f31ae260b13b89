"""
How many faults of the corpus other verifiers catch: pg_amcheck, pg_verifybackup, a dump to nowhere.

`python -m benchmarks.catch_rates [SUBJECT ...]` does each fault of tests/faults/ to a restored copy of its own, runs the three,
and writes benchmarks/catch_rates.json, from which docs/checks.md shows the rates. What our own checks must see of
each fault is held by tests/faults/, not measured here.

- pg_amcheck examines both databases with everything it has (heapallindexed, parent-check, checkunique).
- pg_verifybackup looks at backups, never at a restored result: it gets the base backup, with the same damage where
  the fault is one of files.
- A dump to nowhere is pg_dumpall into /dev/null: it reads every row and every definition.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from fixtures.command import run
from fixtures.errors import RunbookError
from fixtures.postgres.binaries import embedded_binaries
from tests.faults import physical
from tests.faults.catalogue import SUBJECTS
from tests.faults.fault import Fault
from tests.faults.schema import STORY
from tests.faults.world import Copy, World, copy_of, faulty, incident

RESULT: Final = Path(__file__).with_suffix(".json")
VERIFIERS: Final = ("pg_amcheck", "pg_verifybackup", "pg_dumpall")
#: a verifier that hangs has not said that all is well
TIMEOUT_S: Final = 60.0
CLEAN: Final = Fault(name="nothing", fires={})


def main(chosen: Sequence[str]) -> int:
    """Measure all subjects or the chosen ones, print, write."""
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    caught: dict[str, dict[str, int]] = known.get("subjects", {})
    by: dict[str, list[str]] = known.get("caught_by", {})
    with _folder() as folder, incident(folder, embedded_binaries(folder), STORY) as world:
        alarms = [name for name, seen in _tried(world, CLEAN).items() if seen]
        if alarms:
            print(f"the clean copy raises alarms: {', '.join(alarms)}")
            return 1
        for subject, every in SUBJECTS.items():
            if chosen and subject not in chosen:
                continue
            seen_of = dict.fromkeys(VERIFIERS, 0)
            faults = [fault for fault in every if fault.fires]
            for fault in faults:
                seen = _tried(world, fault)
                by[fault.name] = [name for name in VERIFIERS if seen[name]]
                for name in by[fault.name]:
                    seen_of[name] += 1
                print(f"{fault.name}: {', '.join(by[fault.name]) or 'none'}", flush=True)
            caught[subject] = {"faults": len(faults), **seen_of}
            RESULT.write_text(
                json.dumps({"subjects": caught, "caught_by": by}, indent=1) + "\n", encoding="utf-8"
            )
    return 0


def _tried(world: World, fault: Fault) -> dict[str, bool]:
    """Return which verifiers report a fault."""
    of_files = fault is CLEAN or (fault in physical.FAULTS and fault.offline is not None)
    seen = {
        "pg_verifybackup": _backup(world, fault) if of_files else False
    }  # any other leaves the backup as it is
    with copy_of(world, fault.target) as copy, faulty(copy, fault, references=False):
        seen["pg_dumpall"] = _fails(copy, "pg_dumpall", "--no-sync", "-f", "/dev/null")
        seen["pg_amcheck"] = _fails(
            copy,
            "pg_amcheck",
            *(f"--database={name}" for name in STORY.names),
            "--install-missing",
            "--heapallindexed",
            "--parent-check",
            "--checkunique",
        )
    return {name: seen[name] for name in VERIFIERS}


def _fails(copy: Copy, tool: str, *arguments: str) -> bool:
    server = copy.server
    try:
        result = run(
            [server.binaries.tool(tool), "-h", server.sockets, "-p", str(server.port), "-U", "postgres", *arguments],
            timeout_s=TIMEOUT_S, user=server.binaries.user, check=False,
        )  # fmt: skip
    except RunbookError:
        return True
    return result.returncode != 0


def _backup(world: World, fault: Fault) -> bool:
    """Ask pg_verifybackup of the base backup, damaged like the copy where the fault is one of files."""
    binaries = world.production.binaries
    with _folder() as folder:
        data = folder / "data"
        run(["cp", "-a", world.base_backups / "full", data], timeout_s=TIMEOUT_S)
        binaries.own(folder)
        if fault.offline is not None:
            server = replace(world.production, data=data)
            # a backup is no cluster to the programs that give damaged pages valid checksums
            with suppress(RunbookError):
                fault.offline(Copy(world, world.restored("right"), server))
        result = run(
            [binaries.tool("pg_verifybackup"), "--no-parse-wal", data],
            timeout_s=TIMEOUT_S, user=binaries.user, check=False,
        )  # fmt: skip
    return result.returncode != 0


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="rrc-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
