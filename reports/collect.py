"""
Reads one run's journal into its summary. Reads nothing else, so that any machine can do it again.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from fixtures.allure_guard import step_title
from fixtures.errors import ExitCode
from fixtures.evidence import Verdict, redact
from fixtures.journal import Event, read_journal
from fixtures.manifest import CLOSE_OUT, MANIFEST, step_of
from fixtures.settings import parse_duration
from fixtures.state import RunState, fold
from reports import summary as model
from reports.headline import headline
from reports.stage import stage_of

#: settings whose text or number a step may have recorded
_FACTS: Final[TypeAdapter[dict[str, str | int | float | bool | None]]] = TypeAdapter(
    dict[str, str | int | float | bool | None]
)
#: exit codes after which a drill's world is still there
_KEPT: Final = frozenset({ExitCode.PERSON_MUST_ACT, ExitCode.SUSPENDED})
#: events that change the world or the run, in the reader's words
_MILESTONES: Final = {
    "run-started": "run started",
    "run-resumed": "run resumed",
    "switching": "POINT OF NO RETURN: the switch began",
    "switched-back": "connections point back at production",
    "released": "production is given back to its users",
    "closed": "run closed",
}


def collect(folder: Path, *, exit_code: int) -> model.Summary:
    """
    Return the summary of a run.

    Args:
        folder: the run's folder.
        exit_code: what the session ends with.

    Raises:
        JournalError: RB203 or RB201, when the journal is missing or broken.
    """
    events = read_journal(folder)
    state = fold(events)
    started, options = state.started, state.started.get("options", {})
    drill = started.get("drill") or {}
    found = _Actions(state)
    steps = tuple(_step(test, state) for test in MANIFEST)
    draft = model.Summary(
        run_id=folder.name,
        mode=options.get("mode", "incident"),
        bindings=_bindings(options.get("mode"), drill),
        disaster=drill.get("disaster") or "",
        simulated=drill.get("simulated") or "",
        started_at=events[0].at if events else datetime.now(UTC),
        finished_at=next((event.at for event in reversed(events) if event.kind == "run-ended"), None),
        exit_code=exit_code,
        verdict="",
        production=started.get("production", ""),
        production_state=found.result("production_state").get("state", ""),
        provider=started.get("provider", ""),
        backup_id=found.instance().get("backup_id") or "",
        safety_copy=_safety_copy(found),
        target=_target(state, found),
        stamps=model.Stamps(**{key: state.stamps.get(key) for key in model.Stamps.model_fields}),
        rpo=_rpo(state, found),
        rto=_rto(state, found),
        discarded_window=_discarded(state, found),
        protected=_protection(found),
        rollback=_rollback(events, state),
        restored=_restored(state, found, exit_code),
        steps=steps,
        checks=tuple(
            asked for test in MANIFEST if test != CLOSE_OUT for asked in _checks(state.evidence.get(test, []))
        ),
        audit=tuple(_checks(state.evidence.get(CLOSE_OUT, []))) if state.mode != "stage" else (),
        approvals=tuple(_approval(event) for event in events if event.kind == "gate-passed"),
        people=_people(state),
        break_glass=options.get("break_glass", ""),
        notes=tuple(_note(note) for note in state.notes),
        timeline=_timeline(events),
        service=_service(found),
        stage=stage_of(state, steps),
        ticket=str(found.result("declared").get("ticket") or ""),
        journal_head=events[-1].sha if events else "",
        versions=_versions(found),
    )
    draft = draft.model_copy(update={"open_questions": _open_questions(draft.checks)})
    final = draft.model_copy(update={"verdict": headline(draft, released=state.released)})
    return model.redacted(final)


class _Actions:
    """Results of finished actions, as JSON; empty where an action was not done."""

    def __init__(self, state: RunState) -> None:
        self.state = state

    def result(self, name: str) -> Mapping[str, Any]:
        return self.state.actions.get(name, {}).get("result") or {}

    def config(self, name: str, key: str) -> Mapping[str, Any]:
        return self.state.actions.get(name, {}).get("config", {}).get(key) or {}

    def instance(self) -> Mapping[str, Any]:
        return self.result("restored").get("instance") or {}

    def objective_s(self, name: str) -> float | None:
        text = self.config("target_reachable", "objectives").get(name)
        return parse_duration(text).total_seconds() if text else None


def _bindings(mode: str | None, drill: Mapping[str, Any]) -> str | None:
    return {"drill": drill.get("kind"), "stage": "restore-only"}.get(mode or "")


def _step(test: str, state: RunState) -> model.Step:
    step, result = step_of(test), state.results.get(test)
    records = state.evidence.get(test, [])
    facts: dict[str, Any] = {}
    for record in records:
        facts |= _FACTS.validate_python(record.get("facts", {}))
    return model.Step(
        id=test,
        number=step.number,
        title=step_title(test),
        phase=step.phase,
        status=model.Status(result.status) if result else model.Status.NOT_RUN,
        seconds=result.seconds if result else 0.0,
        reason=result.reason if result else "the session ended before it began",
        checks=tuple(asked.id for asked in _checks(records)),
        facts=facts,
        notes=tuple(note for record in records for note in record.get("notes", ())),
    )


def _checks(records: Iterable[Mapping[str, Any]]) -> list[model.Asked]:
    return [model.Asked.model_validate(check) for record in records for check in record.get("checks", ())]


def _target(state: RunState, found: _Actions) -> model.Target | None:
    chosen = found.result("target_reachable").get("target") or state.started.get("options", {}).get("target")
    if not chosen:
        return None
    at, recovered = _time(chosen.get("at")), _time(found.instance().get("last_commit_at"))
    return model.Target(
        kind=chosen["kind"],
        value=chosen.get("value") or "",
        at=at,
        exclusive=bool(chosen.get("exclusive")),
        last_recovered_commit=recovered,
        gap_s=_between(recovered, at),
    )


def _rpo(state: RunState, found: _Actions) -> model.Rpo:
    recovered = _time(found.instance().get("last_commit_at"))
    damage, locked = state.stamps.get("damage"), state.stamps.get("locked")
    objective, measured = found.objective_s("rpo"), _between(recovered, damage or locked)
    window = found.result("discarded_window")
    return model.Rpo(
        objective_s=objective,
        measured_s=measured,
        counted_from="damage" if damage else "lock",
        transactions=_count(window.get("transactions")),
        rows=_count(window.get("rows")),
        verdict=_kept(measured, objective),
    )


def _rto(state: RunState, found: _Actions) -> model.Rto:
    served = state.stamps.get("served")
    objective, measured = found.objective_s("rto"), _between(state.stamps.get("declared"), served)
    return model.Rto(
        objective_s=objective,
        measured_s=measured,
        damage_to_served_s=_between(state.stamps.get("damage"), served),
        verdict=_kept(measured, objective),
    )


def _discarded(state: RunState, found: _Actions) -> model.DiscardedWindow:
    result, pack = found.result("discarded_window"), found.result("discarded_kept")
    window = result.get("window") or {}
    start, end = _time(result.get("from_at")), state.stamps.get("locked")
    fields = model.TableLoss.model_fields
    retained = ""
    if pack:
        where = pack.get("folder") or "no pack"
        retained = f"{where}: {pack.get('rows', 0)} rows, " + (
            "complete" if pack.get("complete") else "not proven complete: the safety copy is the guarantee"
        )
    # the JSON names "from" and "to" are no Python names, so the fields go in by alias
    return model.DiscardedWindow.model_validate(
        {
            "from": start,
            "to": end,
            "seconds": _between(start, end),
            "transactions": _count(result.get("transactions")),
            "rows": _count(result.get("rows")),
            "tables": [
                {key: value for key, value in table.items() if key in fields}
                for table in window.get("tables", ())
            ],
            "notes": window.get("notes", ()),
            "retained": retained,
        }
    )


def _protection(found: _Actions) -> model.Protection:
    service = found.result("commissioned")
    if not service:
        return model.Protection(detail="nothing was commissioned")
    since = _time(service.get("unprotected_since"))
    detail = (
        f"archived and read back: {service.get('archived_segment') or 'nothing'}; "
        f"first base backup: {service.get('base_backup') or 'none'}; kept running by: {service.get('supervisor') or 'nothing'}"
    )
    return model.Protection(state="UNPROTECTED" if since else "PROTECTED", since=since, detail=detail)


def _rollback(events: Sequence[Event], state: RunState) -> model.Rollback:
    entries: dict[int, model.UndoEntry] = {}
    fates = {"undone": "undone", "undo-failed": "failed", "undo-held": "held", "discharged": "discharged"}
    for event in events:
        data = event.data
        if event.kind == "intent" and data.get("undo"):
            undo = data["undo"]
            entries[event.seq] = model.UndoEntry(name=undo["name"], when=undo["when"], state="standing")
        elif event.kind in fates and data.get("intent") in entries:
            told = str(data.get("outcome") or data.get("error") or "")
            change = {"state": fates[event.kind], "detail": told}
            entries[data["intent"]] = entries[data["intent"]].model_copy(update=change)
    last = [event for event in events if event.kind == "rolling-back"]
    return model.Rollback(
        performed=state.rolled_back is not None,
        complete=state.rolled_back,
        reason=str(last[-1].data.get("reason", "")) if last and state.rolled_back is not None else "",
        entries=tuple(entries.values()),
        target_statement=_statement(state),
    )


def _statement(state: RunState) -> str:
    if state.mode == "stage":
        return "production was not touched"
    found = state.actions.get("production_state", {}).get("result") or {}
    if found.get("state") in {"down", "unknown"}:
        return "NO ROLLBACK TARGET: production was not serving when the run began"
    if state.closed:
        return "the old production, fenced, as it was at the lock"
    if state.switched:
        return "the application points at the restored database; production stands behind its fence"
    return "the application points at production as it was before the run"


def _restored(state: RunState, found: _Actions, exit_code: int) -> str:
    instance, service = found.instance(), found.result("commissioned")
    if not instance:
        return ""
    if state.started.get("options", {}).get("mode") == "drill" and exit_code not in _KEPT:
        return "gone with the drill's throwaway world"
    if state.discarded:
        return "discarded, and proven to be gone"
    ref = instance["ref"]
    if service:
        return f"{service['host']}:{service['port']}"
    return f"psql -h {ref['host']} -p {ref['port']} -U {ref['user']} (isolated; {ref['name']})"


def _safety_copy(found: _Actions) -> str:
    kept = found.result("safety_copy")
    return f"{kept.get('mode', '')} at {kept.get('place', '')}" if kept else ""


def _approval(event: Event) -> model.Approval:
    data = event.data
    return model.Approval(
        gate=data["gate"], at=event.at, people=data.get("people", {}), shown=tuple(data.get("shown", ())),
        hash=data.get("hash", ""),
    )  # fmt: skip


def _people(state: RunState) -> dict[str, str]:
    roles = state.actions.get("declared", {}).get("config", {}).get("roles") or {}
    return {str(role): str(name) for role, name in sorted(roles.items())}


def _note(note: Mapping[str, Any]) -> model.Note:
    return model.Note(
        at=note["at"], text=str(note.get("text", "")), author=str(note.get("author") or note.get("by") or "")
    )


def _timeline(events: Sequence[Event]) -> tuple[model.Moment, ...]:
    moments = []
    for event in events:
        data, what, at, kind = event.data, "", event.at, "run"
        if event.kind in _MILESTONES:
            what = _MILESTONES[event.kind]
        elif event.kind == "stamp":
            what, kind = {"declared": "T0 declared"}.get(data["name"], data["name"]), "stamp"
            at = datetime.fromisoformat(data["at"])
        elif event.kind == "result" and data["status"] != "skipped":
            what, kind = f"{step_title(data['test'])}: {data['status']}", "step"
        elif event.kind == "done":
            what, kind = data["action"], "change"
        elif event.kind == "gate-passed":
            what, kind = f"gate {data['gate']} passed", "gate"
        elif event.kind == "note":
            what, kind = str(data.get("text", "")), "note"
        elif event.kind == "rolling-back":
            what, kind = f"ROLLBACK began: {data['reason']}", "rollback"
        elif event.kind == "rolled-back":
            what, kind = f"rollback {'complete' if data['complete'] else 'INCOMPLETE'}", "rollback"
        elif event.kind == "suspended":
            what = f"suspended: {data['reason']}".splitlines()[0]
        elif event.kind == "run-ended":
            what = f"ended with exit code {data['exit_code']}: {data['meaning']}"
        if what:
            moments.append(model.Moment.model_validate({"at": at, "what": redact(what), "kind": kind}))
    return tuple(sorted(moments, key=lambda moment: moment.at))


def _service(found: _Actions) -> model.Service:
    own = found.config("watched", "monitoring")
    samples = (found.result("watched").get("report") or {}).get("samples") or ()
    fields = model.Sample.model_fields
    return model.Service(
        p95_objective_ms=own.get("p95_ms"),
        p99_objective_ms=own.get("p99_ms"),
        samples=tuple(
            model.Sample(**{key: value for key, value in sample.items() if key in fields})
            for sample in samples
            if sample.get("at")
        ),
    )


def _versions(found: _Actions) -> dict[str, str]:
    cluster = found.result("production_state").get("cluster") or {}
    known = {
        "PostgreSQL": cluster.get("major"),
        "system identifier": cluster.get("system_identifier"),
        "timeline before": cluster.get("timeline"),
        "timeline restored": (found.result("opened").get("instance") or {}).get("timeline"),
        "Python": f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}",
        "pytest": version("pytest"),
        "allure-pytest": version("allure-pytest"),
    }
    return {name: str(value) for name, value in known.items() if value}


def _open_questions(checks: Iterable[model.Asked]) -> tuple[str, ...]:
    unclear = {Verdict.COULD_NOT_VERIFY, Verdict.NOT_CONFIGURED}
    found = [check for check in checks if check.verdict in unclear and not check.blocking]
    return tuple(
        f"{check.id} {check.object}".strip() + f": {check.verdict.value}"
        + (f", {check.reason}" if check.reason else "")
        for check in found
    )  # fmt: skip


def _kept(measured_s: float | None, objective_s: float | None) -> model.Objective:
    if measured_s is None or objective_s is None:
        return model.Objective.UNKNOWN
    return model.Objective.MET if measured_s <= objective_s else model.Objective.MISSED


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _time(value: object) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) and value else None


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else round((end - start).total_seconds(), 3)
