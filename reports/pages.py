"""
The page that needs nothing but a reader: summary.html, printable, no script, nothing fetched.
"""

from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fixtures.errors import ExitCode
from reports.charts import budget, latency, span
from reports.summary import Objective, Status, Summary

TEMPLATES: Final = Path(__file__).parent / "templates"
#: what auditors ask for, by whom, and where this run shows it; never a claim of compliance
AUDITOR: Final = (
    (
        "Identification, type, scope, system",
        "SOC 2 A1.3; NIST SP 800-34 3.5; ISO/IEC 27001 A.5.30",
        "first screen; run id, mode, production's name",
    ),
    (
        "Scenario, trigger, who declared it and when",
        "DORA Art. 11(8)",
        "What happened: damage, detected, T0; timeline",
    ),
    (
        "People and approvals, two persons",
        "NIST SP 800-53 CP-4; ISO/IEC 27001 A.5.3",
        "Approvals, with what each person saw",
    ),
    (
        "Backup used: label, time, provider",
        "ISO/IEC 27001 A.8.13; BSI CON.3; NIST SP 800-53 CP-9",
        "What happened: backup; steps 0, 4 and 5",
    ),
    ("Restore onto a segregated target", "DORA Art. 12(3)", "step 5: isolation checks"),
    (
        "RTO and RPO, target and measured, clock",
        "DORA Art. 12(6); ISO/IEC 27001 A.5.30; BSI CON.3.A15",
        "first screen; stamps; where the time went",
    ),
    (
        "Integrity and completeness, reconciliations",
        "DORA Art. 12(7); SOC 2 A1.3; NIST SP 800-34",
        "step 7 checks with expected and found; discarded window",
    ),
    (
        "Result per step, deviations, steps not run",
        "SOC 2 A1.3; NIST SP 800-53 CP-4",
        "Steps, with a reason for each that did not pass",
    ),
    (
        "Return to normal, backups restarted, clean-up",
        "NIST SP 800-34 reconstitution",
        "Rollback; protection; steps 9 to 11",
    ),
    (
        "Personal data: what was masked, who had access",
        "GDPR Art. 32(1)(c), 5(1)(c)",
        "all output is redacted and searched; row data is only in packs and the safety copy",
    ),
    ("Comparison with earlier tests", "DORA Art. 12(2); ISO/IEC 27001 A.8.13", "reports/history.jsonl"),
    (
        "Protection of the record",
        "ISO/IEC 27001 A.5.28, A.5.33; DORA Art. 11(8)",
        "hash-chained journal, SHA256SUMS, optional signature",
    ),
    (
        "Findings, owner, due date, retest; sign-off",
        "NIST SP 800-53 CP-4; ISO 10.2; SOC 2",
        "not in this record: the ticket and the people named above",
    ),
)


def summary_page(summary: Summary, *, notice: str = "") -> str:
    """
    Return the summary as one HTML page.

    Args:
        summary: the run.
        notice: a sentence shown above everything, such as why the full report is missing.
    """
    return _render("summary.html.j2", s=summary, notice=notice)


def banner(summary: Summary) -> str:
    """
    Return the first screen as a fragment to put on top of another page, with the plain page behind a switch.
    """
    return _render("banner.html.j2", s=summary)


def tone(summary: Summary) -> str:
    """
    Return whether the first screen looks good, bad or in between.
    """
    bad = {ExitCode.FAILED, ExitCode.PERSON_MUST_ACT, ExitCode.INTERNAL, ExitCode.USAGE}
    missed = Objective.MISSED in {summary.rpo.verdict, summary.rto.verdict}
    if summary.exit_code in bad or summary.rollback.complete is False or missed:
        return "bad"
    done = summary.stage is not None and summary.stage.discarded
    clean = summary.exit_code == ExitCode.SERVED and (done or summary.protected.state == "PROTECTED")
    return "good" if clean and not summary.break_glass and not summary.open_questions else "warn"


def _render(name: str, *, s: Summary, **values: Any) -> str:  # noqa: ANN401 - template variables
    env = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    env.globals.update(span=span, tone=tone, Status=Status)
    charts = {"budget": budget(s.steps, s.rto), "latency": latency(s.service)}
    return env.get_template(name).render(s=s, auditor=AUDITOR, **charts, **values)
