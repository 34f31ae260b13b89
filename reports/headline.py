"""
The one line everybody reads: what became of the run, worst news first.
"""

from typing import TYPE_CHECKING, Final

from fixtures.errors import ExitCode

if TYPE_CHECKING:
    from reports.summary import StageDrill, Summary

#: kind of session -> what exit code 0 means there
DONE: Final = {"inspect": "INSPECTED", "stage": "RESTORED, VERIFIED, DISCARDED"}


def headline(summary: "Summary", *, released: bool = False) -> str:
    """
    Return the verdict.

    Args:
        summary: everything but the verdict.
        released: whether production was given back to its users.
    """
    parts = [_outcome(summary, released=released)]
    if summary.break_glass:
        parts.append("BREAK-GLASS")
    if summary.stage is not None:
        parts += _of_stage(summary.stage, exit_code=summary.exit_code)
    elif summary.stamps.served is not None or summary.exit_code == ExitCode.SERVED:
        parts.append(f"RPO {summary.rpo.verdict.value}")
        parts.append(f"RTO {summary.rto.verdict.value}")
    if summary.protected.state == "UNPROTECTED":
        parts.append("UNPROTECTED")
    if summary.rollback.complete is False:
        parts.append("ROLLBACK INCOMPLETE")
    elif summary.rollback.performed and summary.stage is None:
        parts.append("rolled back")
    if summary.open_questions:
        number = len(summary.open_questions)
        parts.append(f"{number} open question{'s' if number > 1 else ''}")
    return " · ".join(parts)


def _of_stage(stage: "StageDrill", *, exit_code: int) -> list[str]:
    parts = []
    if exit_code == ExitCode.SERVED and stage.restore_and_verify_s is not None:
        parts.append(f"restore and verify {stage.restore_and_verify_s:.1f} s")
    if exit_code != ExitCode.SERVED and stage.discarded:
        parts.append("the copy is discarded")
    return [*parts, "STAGE DRILL: lock, safety copy and cutover not proven"]


def _outcome(summary: "Summary", *, released: bool) -> str:
    if released and summary.exit_code == ExitCode.SERVED:
        return "NOT RESTORED, production given back to its users"
    stopped = next((step for step in summary.steps if step.status.value in {"failed", "broken"}), None)
    at = f" at {stopped.title}" if stopped is not None else ""
    words = {
        ExitCode.SERVED: DONE.get(summary.mode, "RESTORED AND SERVED"),
        ExitCode.FAILED: f"NOT RESTORED, failed{at}",
        ExitCode.INTERRUPTED: "INTERRUPTED",
        ExitCode.INTERNAL: f"INTERNAL ERROR{at}, nothing changed",
        ExitCode.USAGE: f"REFUSED{at}, nothing changed",
        ExitCode.PERSON_MUST_ACT: f"A PERSON MUST ACT{at and ', failed' + at}",
        ExitCode.SUSPENDED: "SUSPENDED, resumable",
        ExitCode.REPORT_FAILED: f"{'VERIFIED' if summary.stage else 'SERVED'}, BUT NOT CLEAN{at and ', failed' + at}",
    }
    try:
        return words[ExitCode(summary.exit_code)]
    except ValueError:
        return f"exit code {summary.exit_code}"
