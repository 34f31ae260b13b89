"""
How drills have gone over time: RTO and RPO with their trend, and how old the last green one is.

Read from reports/history.jsonl alone, so that a CI job which keeps that one file between its runs can
show it, and fail when nobody has proven a restore for too long.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Final

from fixtures.errors import ExitCode, RunbookError
from reports.charts import span
from reports.history import Line

#: drills compared with those before them
RECENT: Final = 5
#: drills listed
LISTED: Final = 20
#: modes of drills: on a throwaway production, and on the real backup
DRILLS: Final = ("drill", "stage")
STAGE: Final = DRILLS[1]
_BARS: Final = "▁▂▃▄▅▆▇█"


def trend(lines: Sequence[Line], *, now: datetime) -> Iterator[str]:
    """
    Yield the trend of drills as lines of text, oldest drill first.

    Args:
        lines: the whole history; incidents and inspections are left out.
        now: aware UTC.
    """
    drills = _drills(lines)
    if not drills:
        yield "no drill has finished yet; start one: make drill"
        return
    green = [line for line in drills if _is_green(line)]
    for line in drills[-LISTED:]:
        mark = "green" if _is_green(line) else f"code {line.exit_code}"
        figures = f"RTO {span(line.rto_s):<10} RPO {span(line.rpo_s):<10}"
        if line.mode == STAGE:
            figures = f"restore and verify {span(line.restore_and_verify_s):<10}"
        what = f"{line.bindings or line.mode} {line.disaster}"
        yield f"{line.at:%Y-%m-%d %H:%MZ}  {what:<21} {mark:<8} {figures:<30} {line.run_id}"
    if len(drills) > LISTED:
        yield f"... and {len(drills) - LISTED} earlier ones"
    yield f"{len(drills)} drill(s), {len(green)} green; {_age(green, now)}"
    yield from _figure("RTO", green, lambda line: line.rto_s)
    yield from _figure("RPO", green, lambda line: line.rpo_s)
    yield from _figure("restore and verify", green, lambda line: line.restore_and_verify_s)
    yield from _slowest(green)


def refuse_old(lines: Sequence[Line], *, days: float, now: datetime, where: str) -> None:
    """
    Refuse when the last green drill is older than so many days, or there is none.

    Raises:
        RunbookError: RB804.
    """
    green = [line for line in _drills(lines) if _is_green(line)]
    if green and now - green[-1].at <= timedelta(days=days):
        return
    failed = [line for line in _drills(lines) if not _is_green(line)]
    newest = [f"the newest that failed: make report RUN={failed[-1].run_id}"] if failed else []
    raise RunbookError(
        "RB804", f"no green drill for {days:g} days: {_age(green, now)}", where=where,
        hints=["run one now: make drill", *newest, "if drills do run: is this file kept between them?"],
    )  # fmt: skip


def _drills(lines: Sequence[Line]) -> list[Line]:
    return sorted((line for line in lines if line.mode in DRILLS), key=lambda line: line.at)


def _is_green(line: Line) -> bool:
    return line.exit_code == ExitCode.SERVED


def _age(green: Sequence[Line], now: datetime) -> str:
    if not green:
        return "there is no green drill"
    days = (now - green[-1].at).total_seconds() / 86400
    return f"the last green drill is {days:.1f} days old ({green[-1].at:%Y-%m-%dT%H:%MZ})"


def _figure(name: str, green: Sequence[Line], of: Callable[[Line], float | None]) -> Iterator[str]:
    values = [value for line in green if (value := of(line)) is not None]
    if not values:
        return
    now, before = values[-RECENT:], values[:-RECENT][-RECENT:]
    told = f"{name} of the last {len(now)} green: median {span(median(now))}, from {span(min(now))} to {span(max(now))}"
    if before:
        change = median(now) - median(before)
        base = median(before)
        share = f" ({change / base:+.0%})" if base else ""
        told += f"; {len(before)} before: {span(median(before))}{share}"
    yield f"{told}  {_sparkline(values[-LISTED:])}"


def _slowest(green: Sequence[Line]) -> Iterator[str]:
    if green and green[-1].step_seconds:
        steps = sorted(green[-1].step_seconds.items(), key=lambda item: -item[1])[:3]
        yield "slowest tests of the last green: " + ", ".join(
            f"{name} {span(seconds)}" for name, seconds in steps
        )


def _sparkline(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    size = len(_BARS) - 1
    return "".join(_BARS[round((value - low) / (high - low) * size) if high > low else 0] for value in values)
