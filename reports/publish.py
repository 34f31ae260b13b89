"""
The end of a run: summary, pages, leak gate, history, seal, in this order.

Called by the runner as its last act on the run's folder, and by `python -m reports` to do it again.
"""

from pathlib import Path

from fixtures.errors import RunbookError
from reports import history, leaks, renderer, seal
from reports.collect import collect
from reports.summary import FILE, write_summary

#: findings an error names
_NAMED = 5


def publish(run_dir: Path, *, exit_code: int, key: Path | None = None, record: bool = True) -> Path:
    """
    Write summary.json, summary.html and report.html, look for leaks, and seal the folder.

    Args:
        run_dir: the run's folder.
        exit_code: what the session ends with.
        key: OpenSSH key that signs the seal; None for no signature.
        record: whether the run gets a line in the history; a page that is rendered again does not.

    Returns:
        The path of report.html.

    Raises:
        RunbookError: RB802 when something must not be handed out; the pages are then withheld.
        JournalError: RB201 or RB203.
    """
    summary = collect(run_dir, exit_code=exit_code)
    write_summary(run_dir / FILE, summary)
    report = renderer.render(run_dir)
    found = leaks.scan(run_dir)
    if found:
        for name in (renderer.REPORT, renderer.PAGE):
            (run_dir / name).unlink(missing_ok=True)
        (run_dir / seal.SUMS).unlink(missing_ok=True)
        places = [f"{leak.file}: {leak.kind}" for leak in found]
        raise RunbookError(
            "RB802", f"{len(found)} place(s) hold what must not be handed out; the pages are withheld",
            where="; ".join(places[:_NAMED]) + (" ..." if len(places) > _NAMED else ""),
            hints=[
                f"do not hand out {run_dir}; find what wrote there and mend it",
                f"then: python -m reports {run_dir.name}",
            ],
        )  # fmt: skip
    if record:
        history.append(run_dir.parent.parent / history.FILE, summary)
    seal.seal(run_dir, key=key)
    return report
