"""
reports/history.jsonl: one line per finished run, for comparison with earlier restores and drills.
"""

import fcntl
import json
import os
from datetime import datetime
from pathlib import Path
from typing import IO, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from reports.summary import Objective, Summary

FILE: Final = "history.jsonl"


class Line(BaseModel):
    """
    One finished run. Unknown keys are kept out, so that an older reader survives a newer line.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: str
    at: datetime
    mode: str
    bindings: str | None = None
    disaster: str = ""
    production: str
    provider: str
    exit_code: int
    verdict: str
    rto_s: float | None = None
    rto: Objective = Objective.UNKNOWN
    rpo_s: float | None = None
    rpo: Objective = Objective.UNKNOWN
    discarded_rows: int | None = None
    restore_and_verify_s: float | None = None
    protected: str = ""
    step_seconds: dict[str, float] = {}


def line_of(summary: Summary) -> Line:
    """
    Return a run's line.
    """
    return Line(
        run_id=summary.run_id,
        at=summary.finished_at or summary.started_at,
        mode=summary.mode,
        bindings=summary.bindings,
        disaster=summary.disaster,
        production=summary.production,
        provider=summary.provider,
        exit_code=summary.exit_code,
        verdict=summary.verdict,
        rto_s=summary.rto.measured_s,
        rto=summary.rto.verdict,
        rpo_s=summary.rpo.measured_s,
        rpo=summary.rpo.verdict,
        discarded_rows=summary.discarded_window.rows,
        restore_and_verify_s=summary.stage.restore_and_verify_s if summary.stage else None,
        protected=summary.protected.state,
        step_seconds={step.id: step.seconds for step in summary.steps if step.seconds},
    )


def append(path: Path, summary: Summary) -> None:
    """
    Append a run's line, durably; a run that ends again (after a resume) gets another line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = json.dumps(line_of(summary).model_dump(mode="json"), ensure_ascii=False).encode() + b"\n"
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if _torn(file):
            raw = b"\n" + raw
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Line]:
    """
    Return each run's last line, oldest run first; lines torn by a dying machine are left out.
    """
    if not path.exists():
        return []
    found: dict[str, Line] = {}
    for raw in path.read_bytes().split(b"\n"):
        try:
            line = Line.model_validate_json(raw)
        except ValidationError:
            continue
        found.pop(line.run_id, None)
        found[line.run_id] = line
    return list(found.values())


def _torn(file: IO[bytes]) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"
