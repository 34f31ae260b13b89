"""
What a summary says of a stage drill alone: how long it took, that the copy is gone, what it left open.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fixtures.manifest import STAGED, step_of
from fixtures.state import RunState
from reports import summary as model

RESTORE: Final = frozenset({5})
VERIFY: Final = frozenset({6, 7, 8})
#: what a restore has and a stage drill does not show, whatever came of it
NOT_PROVEN: Final = (
    "the write lock (step 2)",
    "the safety copy and the packs of discarded rows (steps 3 to 5)",
    "that no id is handed out twice (step 6)",
    "the cutover, the service after it and its protection (steps 9 to 11)",
    "that a whole restore keeps its RTO: restore and verify are a part of it",
)
ALONE: Final = "the comparison with production, which was not asked: identity stands on the configuration"


def stage_of(state: RunState, steps: Sequence[model.Step]) -> model.StageDrill | None:
    """Return a stage drill's part of the summary, None for other runs."""
    if state.mode != "stage":
        return None
    facts: Mapping[str, Any] = state.started.get("stage") or {}
    restore_s, verify_s = _seconds(steps, RESTORE), _seconds(steps, VERIFY)
    asked = (state.actions.get("production_state") or {}).get("result", {}).get("state") == "reachable"
    return model.StageDrill(
        chosen=str(facts.get("chosen", "given")),
        seed=facts.get("seed"),
        window_from=_time(facts.get("from")),
        window_to=_time(facts.get("to")),
        restore_s=restore_s,
        verify_s=verify_s,
        restore_and_verify_s=round(restore_s + verify_s, 3)
        if restore_s is not None and verify_s is not None
        else None,
        discarded=state.discarded,
        wipe=tuple(model.Asked.model_validate(check) for check in state.wiped.get("checks", ())),
        not_proven=NOT_PROVEN if asked else (*NOT_PROVEN, ALONE),
    )


def _seconds(steps: Iterable[model.Step], numbers: frozenset[int]) -> float | None:
    own = [step for step in steps if step.id in STAGED and step_of(step.id).number in numbers]
    if any(step.status is not model.Status.PASSED for step in own):
        return None
    return round(sum(step.seconds for step in own), 3)


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
