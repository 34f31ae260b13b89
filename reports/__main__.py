"""
`python -m reports RUN`: render a run again from its journal, verify its seal, or look at all of them.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fixtures.errors import ExitCode, JournalError, RunbookError
from fixtures.journal import read_journal
from fixtures.state import fold
from reports import history
from reports.charts import span
from reports.publish import publish
from reports.seal import verify
from reports.trend import DRILLS, refuse_old, trend

RUNS: Final = Path(__file__).parent / "runs"


def main(argv: Sequence[str] | None = None) -> int:
    """
    Render, verify or list; return the exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__)
    parser.add_argument("run", nargs="?", default="latest", help='run id or "latest"')
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of runs")
    parser.add_argument("--key", type=Path, help="OpenSSH key that signs the seal")
    parser.add_argument("--verify", action="store_true", help="compare the files with SHA256SUMS instead")
    parser.add_argument("--signers", type=Path, help="with --verify: OpenSSH file of allowed signers")
    parser.add_argument("--signer", default="", help="with --signers: identity that must have signed")
    parser.add_argument("--history", action="store_true", help="list finished runs instead")
    parser.add_argument("--trend", action="store_true", help="show how drills have gone over time instead")
    parser.add_argument(
        "--kind",
        choices=DRILLS,
        help="with --trend: drills on a throwaway production, or on the real backup; default: both",
    )
    parser.add_argument(
        "--max-age",
        type=_days,
        metavar="DAYS",
        help="with --trend: end with 1 when the last green drill is older",
    )
    options = parser.parse_args(argv)
    try:
        if options.history:
            _list(options.runs.parent / history.FILE)
            return int(ExitCode.SERVED)
        if options.trend or options.max_age is not None:
            return _trend(options.runs.parent / history.FILE, options.max_age, options.kind)
        run_dir = _find(options.runs, options.run)
        if options.verify:
            return _verify(run_dir, options.signers, options.signer)
        state = fold(read_journal(run_dir))
        code = int(state.ended.get("exit_code", ExitCode.PERSON_MUST_ACT))
        sys.stdout.write(f"report: {publish(run_dir, exit_code=code, key=options.key, record=False)}\n")
    except RunbookError as error:
        sys.stderr.write(f"{error.block()}\n")
        return int(ExitCode.REPORT_FAILED if error.code in {"RB801", "RB802", "RB803"} else error.exit_code)
    return int(ExitCode.SERVED)


def _find(runs: Path, name: str) -> Path:
    known = sorted(path.name for path in runs.glob("*Z-*")) if runs.is_dir() else []
    chosen = known[-1:] if name == "latest" else [run for run in known if run.startswith(name)]
    if len(chosen) != 1:
        raise JournalError(
            "RB203", f"{'several runs begin with' if chosen else 'there is no run'} {name!r}", where=str(runs),
            hints=[f"known: {', '.join(known[-5:]) or 'none'}"],
        )  # fmt: skip
    return runs / chosen[0]


def _verify(run_dir: Path, signers: Path | None, signer: str) -> int:
    problems = verify(run_dir, allowed_signers=signers, signer=signer)
    if problems:
        raise RunbookError(
            "RB803", f"{len(problems)} difference(s): " + "; ".join(problems), where=str(run_dir),
            hints=["rendering a run again, a resume or a rollback seals it anew; nothing else may change it"],
        )  # fmt: skip
    signed = " and is signed" if signers is not None else ""
    sys.stdout.write(f"run {run_dir.name} matches its checksums{signed}\n")
    return int(ExitCode.SERVED)


def _list(path: Path) -> None:
    for line in history.read(path):
        figures = f"RTO {span(line.rto_s)} {line.rto.value}, RPO {span(line.rpo_s)} {line.rpo.value}"
        if line.mode == "stage":
            figures = f"restore and verify {span(line.restore_and_verify_s)}, no RTO"
        sys.stdout.write(f"{line.run_id}  {line.mode:<8}  {figures}  {line.verdict}\n")


def _trend(path: Path, max_age: float | None, kind: str | None) -> int:
    now = datetime.now(UTC)
    lines = [line for line in history.read(path) if kind in {None, line.mode}]
    for text in trend(lines, now=now):
        sys.stdout.write(f"{text}\n")
    if max_age is not None:
        refuse_old(lines, days=max_age, now=now, where=str(path))
    return int(ExitCode.SERVED)


def _days(text: str) -> float:
    days = float(text)
    if not days > 0:
        raise argparse.ArgumentTypeError(f"{text} days is no age")
    return days


if __name__ == "__main__":
    sys.exit(main())
