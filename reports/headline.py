"""
The one line everybody reads: what became of the run, worst news first.
"""

from typing import TYPE_CHECKING

from fixtures.errors import ExitCode

if TYPE_CHECKING:
    from reports.summary import Summary


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
    if summary.stamps.served is not None or summary.exit_code == ExitCode.SERVED:
        parts.append(f"RPO {summary.rpo.verdict.value}")
        parts.append(f"RTO {summary.rto.verdict.value}")
    if summary.protected.state == "UNPROTECTED":
        parts.append("UNPROTECTED")
    if summary.rollback.complete is False:
        parts.append("ROLLBACK INCOMPLETE")
    elif summary.rollback.performed:
        parts.append("rolled back")
    if summary.open_questions:
        number = len(summary.open_questions)
        parts.append(f"{number} open question{'s' if number > 1 else ''}")
    return " · ".join(parts)


def _outcome(summary: "Summary", *, released: bool) -> str:
    if released and summary.exit_code == ExitCode.SERVED:
        return "NOT RESTORED, production given back to its users"
    stopped = next((step for step in summary.steps if step.status.value in {"failed", "broken"}), None)
    at = f" at {stopped.title}" if stopped is not None else ""
    words = {
        ExitCode.SERVED: "INSPECTED" if summary.mode == "inspect" else "RESTORED AND SERVED",
        ExitCode.FAILED: f"NOT RESTORED, failed{at}",
        ExitCode.INTERRUPTED: "INTERRUPTED",
        ExitCode.INTERNAL: f"INTERNAL ERROR{at}, nothing changed",
        ExitCode.USAGE: f"REFUSED{at}, nothing changed",
        ExitCode.PERSON_MUST_ACT: f"A PERSON MUST ACT{at and ', failed' + at}",
        ExitCode.SUSPENDED: "SUSPENDED, resumable",
        ExitCode.REPORT_FAILED: f"SERVED, BUT NOT CLEAN{at and ', failed' + at}",
    }
    try:
        return words[ExitCode(summary.exit_code)]
    except ValueError:
        return f"exit code {summary.exit_code}"
