"""
summary.json: what one run did and proved, in a stable schema.

Everything a reader outside needs is here, free of row data and secrets: the HTML pages are made
from it, the history takes one line from it, and docs/summary.schema.json is generated from these
models. Fields are added, never renamed or removed, while `schema_version` stays.
"""

import json
import os
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from fixtures.evidence import Verdict, redact_value

FILE: Final = "summary.json"
SCHEMA_VERSION: Final = 1


class Part(BaseModel):
    """
    Base of every object: unknown fields are errors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class Status(StrEnum):
    """The outcome of one test of the runbook."""

    PASSED = "passed"
    FAILED = "failed"
    BROKEN = "broken"
    SKIPPED = "skipped"
    NOT_RUN = "not-run"


class Objective(StrEnum):
    """Whether a promise was kept."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "unknown"


class Asked(Part):
    """One check and its answer."""

    id: str = Field(description="stable name")
    step: str = Field(description="test that asked")
    verdict: Verdict
    blocking: bool = Field(description="whether anything but pass or not-applicable stops the run")
    source: str = Field(default="", description="where the expected value came from")
    object: str = Field(default="", description="what was looked at; never row data")
    expected: str = ""
    actual: str = ""
    reason: str = Field(default="", description="why it is not a pass")


class Step(Part):
    """One test of the runbook."""

    id: str = Field(description="name in the manifest, such as s07.content")
    number: int = Field(ge=0, le=11, description="step of the runbook")
    title: str
    phase: str = ""
    status: Status
    seconds: float = Field(ge=0)
    reason: str = Field(default="", description="why it did not pass")
    checks: tuple[str, ...] = Field(default=(), description="ids of its checks")
    facts: dict[str, str | int | float | bool | None] = Field(
        default_factory=dict, description="what it recorded, in order"
    )
    notes: tuple[str, ...] = ()


class Target(Part):
    """What was restored to."""

    kind: str = Field(description="time, lsn, xid, name, latest or snapshot")
    value: str = ""
    at: datetime | None = Field(default=None, description="UTC, for a time target")
    exclusive: bool = False
    last_recovered_commit: datetime | None = None
    gap_s: float | None = Field(default=None, description="target minus last recovered commit, seconds")


class Stamps(Part):
    """The run's clock, UTC."""

    damage: datetime | None = None
    detected: datetime | None = None
    declared: datetime | None = Field(default=None, description="T0")
    locked: datetime | None = None
    served: datetime | None = Field(
        default=None, description="first successful outside probe after maintenance was lifted"
    )


class Rpo(Part):
    """Recovery point: damage (else lock) minus last recovered commit."""

    objective_s: float | None = None
    measured_s: float | None = None
    counted_from: Literal["damage", "lock"] = "damage"
    transactions: int | None = Field(default=None, description="lost with the discarded window; null unknown")
    rows: int | None = None
    verdict: Objective = Objective.UNKNOWN


class Rto(Part):
    """Recovery time: T0 to the first user served."""

    objective_s: float | None = None
    measured_s: float | None = None
    damage_to_served_s: float | None = None
    verdict: Objective = Objective.UNKNOWN


class TableLoss(Part):
    """What a restore discards of one table."""

    database: str = ""
    table: str
    inserted: int | None = Field(default=None, description="null: not counted")
    updated: int | None = Field(default=None, description="null: not counted")
    deleted: int | None = Field(default=None, description="null: not counted")
    storage_replaced: bool = Field(default=False, description="dropped, truncated or rewritten")


class DiscardedWindow(Part):
    """What lies between target and lock."""

    start: datetime | None = Field(default=None, alias="from", description="target")
    end: datetime | None = Field(default=None, alias="to", description="lock")
    seconds: float | None = None
    transactions: int | None = Field(default=None, description="null when they could not be counted")
    rows: int | None = None
    tables: tuple[TableLoss, ...] = ()
    notes: tuple[str, ...] = ()
    retained: str = Field(default="", description="where the discarded rows are kept")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Protection(Part):
    """Whether what is served is archived and has a base backup."""

    state: Literal["PROTECTED", "UNPROTECTED", "NOT COMMISSIONED"] = "NOT COMMISSIONED"
    since: datetime | None = None
    detail: str = ""


class UndoEntry(Part):
    """One change and what became of its reverse."""

    name: str
    when: str = Field(description="rollback or release")
    state: Literal["standing", "undone", "failed", "held", "discharged"]
    detail: str = ""


class Rollback(Part):
    """What was undone and what there is to go back to."""

    performed: bool = False
    complete: bool | None = Field(default=None, description="null when none was performed")
    reason: str = ""
    entries: tuple[UndoEntry, ...] = ()
    target_statement: str = Field(default="", description="what there is to go back to")


class Approval(Part):
    """A gate that was passed."""

    gate: str
    at: datetime
    people: dict[str, str] = Field(default_factory=dict, description="role -> who, and how")
    shown: tuple[str, ...] = Field(default=(), description="what they saw")
    hash: str = Field(default="", description="what the approval is bound to")


class Note(Part):
    """A remark of the Scribe, or an event."""

    at: datetime
    text: str
    author: str = ""


class Moment(Part):
    """One line of the timeline."""

    at: datetime
    what: str
    kind: Literal["stamp", "step", "change", "gate", "note", "rollback", "run"] = "run"


class Sample(Part):
    """One look at the service after the cutover."""

    at: datetime
    p95_ms: float | None = None
    p99_ms: float | None = None
    error_rate: float | None = None


class Service(Part):
    """The service while it was watched."""

    p95_objective_ms: float | None = None
    p99_objective_ms: float | None = None
    samples: tuple[Sample, ...] = ()


class StageDrill(Part):
    """A stage drill: the real backup, restored, verified and discarded."""

    chosen: str = Field(description="how the target was chosen: latest, random or given")
    seed: int | None = Field(default=None, description="of a random target")
    window_from: datetime | None = Field(default=None, description="a random target was chosen from here")
    window_to: datetime | None = None
    restore_s: float | None = Field(default=None, description="step 5; null unless it passed")
    verify_s: float | None = Field(default=None, description="steps 6 to 8; null unless they passed")
    restore_and_verify_s: float | None = Field(
        default=None, description="both; a part of an RTO and never to be compared with one"
    )
    discarded: bool = Field(default=False, description="whether the copy is proven to be gone")
    wipe: tuple[Asked, ...] = Field(default=(), description="what was asked after the wipe")
    not_proven: tuple[str, ...] = Field(
        default=(), description="what a restore has and this drill does not show"
    )


class Summary(Part):
    """
    One run.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str
    mode: Literal["incident", "drill", "inspect", "stage"]
    bindings: str | None = Field(
        default=None, description="the drill's world; restore-only for a stage drill; null in an incident"
    )
    disaster: str = Field(default="", description="what a drill damaged")
    simulated: str = Field(default="", description='what of a drill was simulated; "" where nothing was')
    started_at: datetime
    finished_at: datetime | None = None
    exit_code: int
    verdict: str = Field(description="one headline, worst news first")
    production: str = Field(description="production's name")
    production_state: str = ""
    provider: str
    backup_id: str = ""
    safety_copy: str = ""
    target: Target | None = None
    stamps: Stamps = Stamps()
    rpo: Rpo = Rpo()
    rto: Rto = Rto()
    discarded_window: DiscardedWindow = DiscardedWindow()
    protected: Protection = Protection()
    rollback: Rollback = Rollback()
    restored: str = Field(default="", description="how to reach the restored instance; never a secret")
    steps: tuple[Step, ...] = ()
    checks: tuple[Asked, ...] = ()
    audit: tuple[Asked, ...] = Field(default=(), description="what the outside audit of a drill found")
    approvals: tuple[Approval, ...] = ()
    people: dict[str, str] = Field(default_factory=dict, description="role -> name")
    break_glass: str = Field(default="", description="reason for passing a two-person gate alone")
    notes: tuple[Note, ...] = ()
    open_questions: tuple[str, ...] = Field(default=(), description="non-blocking checks that are not green")
    timeline: tuple[Moment, ...] = ()
    service: Service = Service()
    stage: StageDrill | None = Field(default=None, description="only of a stage drill")
    ticket: str = ""
    journal_head: str = Field(default="", description="hash of the journal's last line when this was written")
    versions: dict[str, str] = Field(default_factory=dict)

    def count(self, *statuses: str) -> int:
        """Return how many tests ended in one of the statuses."""
        return sum(step.status in statuses for step in self.steps)


def write_summary(path: Path, summary: Summary) -> None:
    """
    Write a summary, redacted once more, so that a reader sees all of it or the one before.
    """
    text = json.dumps(to_json(summary), ensure_ascii=False, indent=2) + "\n"
    partial = path.with_name(f".{path.name}.tmp")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_summary(path: Path) -> Summary:
    """
    Read a summary back.
    """
    return Summary.model_validate_json(path.read_bytes())


def to_json(summary: Summary) -> dict[str, Any]:
    """
    Return a summary as redacted JSON values.
    """
    cleaned = redact_value(summary.model_dump(mode="json", by_alias=True))
    return dict(cleaned) if isinstance(cleaned, dict) else {}


def redacted(summary: Summary) -> Summary:
    """
    Return a summary as its file would read: what the pages are made from.
    """
    return Summary.model_validate(to_json(summary))


def schema_text() -> str:
    """
    Return the JSON Schema of summary.json.
    """
    schema = Summary.model_json_schema(by_alias=True, mode="serialization")
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
