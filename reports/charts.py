"""
Three small SVG charts, written by hand: text stays text, nothing is fetched, nothing scripted.
"""

from collections.abc import Sequence
from html import escape
from typing import Final

from reports.summary import Rto, Sample, Service, Step

WIDTH: Final = 760
_LEFT: Final = 250
_ROW: Final = 20
_COLOURS: Final = {"passed": "#2f7d4f", "failed": "#b3261e", "broken": "#b3261e", "skipped": "#9aa0a6", "not-run": "#9aa0a6"}  # fmt: skip


def span(seconds: float | None) -> str:
    """
    Return seconds as people read them.
    """
    if seconds is None:
        return "unknown"
    sign, left = ("-" if seconds < 0 else ""), abs(seconds)
    if 0 < left < 1:
        return f"{sign}{left * 1000:.0f} ms"
    if left < 60:
        return f"{sign}{left:.1f} s"
    minutes, rest = divmod(round(left), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return sign + " ".join(f"{value} {unit}" for value, unit in parts if value)


def budget(steps: Sequence[Step], rto: Rto) -> str:
    """
    Return the RTO budget by step of the runbook as SVG, "" when nothing ran.
    """
    rows: dict[int, tuple[str, float, str]] = {}
    for step in steps:
        title, seconds, status = rows.get(step.number, (_heading(step), 0.0, "not-run"))
        rows[step.number] = (title, seconds + step.seconds, _worse(status, step.status.value))
    total = sum(seconds for _, seconds, _ in rows.values())
    if not total:
        return ""
    scale = (WIDTH - _LEFT - 110) / total
    height = len(rows) * _ROW + 34
    out = [_open(height, f"Seconds by step, {span(total)} in all")]
    for index, (title, seconds, status) in enumerate(rows.values()):
        y = index * _ROW
        width = max(seconds * scale, 1.0 if seconds else 0.0)
        told = span(seconds) if status not in {"skipped", "not-run"} else "not started"
        out.append(f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(title)}</text>')
        out.append(
            f'<rect x="{_LEFT}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}" fill="{_COLOURS[status]}"/>'
        )
        out.append(f'<text x="{_LEFT + width + 6:.1f}" y="{y + 14}">{told}</text>')
    objective = f"objective {span(rto.objective_s)}" if rto.objective_s else "no objective recorded"
    measured = span(rto.measured_s) if rto.measured_s is not None else "not reached"
    out.append(
        f'<text x="{_LEFT}" y="{height - 8}">{span(total)} in all steps; '
        f"RTO {objective}, T0 to served {measured}</text>"
    )
    return "".join([*out, "</svg>"])


def latency(service: Service) -> str:
    """
    Return p95 and p99 over the watched window as SVG, "" without two samples.
    """
    samples = [item for item in service.samples if item.p95_ms is not None or item.p99_ms is not None]
    if len(samples) < 2:
        return ""
    height, bottom, right = 220, 190, WIDTH - 20
    start, end = samples[0].at, samples[-1].at
    seconds = max((end - start).total_seconds(), 0.001)
    values = [value for item in samples for value in (item.p95_ms, item.p99_ms) if value is not None]
    limits = [limit for limit in (service.p95_objective_ms, service.p99_objective_ms) if limit]
    # an objective far above every sample would press the lines flat: it is named instead of drawn
    top = max([*values, *(limit for limit in limits if limit <= 4 * max(values))]) * 1.1 or 1.0
    out = [_open(height, "p95 and p99 after the cutover")]
    out.append(f'<line x1="60" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="#9aa0a6"/>')
    for part in (0.0, 0.5, 1.0):
        y = bottom - part * (bottom - 20)
        out.append(f'<text x="54" y="{y + 4:.1f}" text-anchor="end">{part * top:.0f} ms</text>')

    def points(series: str) -> str:
        places = []
        for item in samples:
            if getattr(item, series) is not None:
                x = 60 + (item.at - start).total_seconds() / seconds * (right - 60)
                places.append(f"{x:.1f},{bottom - _value(item, series) / top * (bottom - 20):.1f}")
        return " ".join(places)

    for series, colour, limit in (
        ("p95_ms", "#1f5fa8", service.p95_objective_ms),
        ("p99_ms", "#8a4fa8", service.p99_objective_ms),
    ):
        out.append(f'<polyline points="{points(series)}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        if limit and limit <= top:
            y = bottom - limit / top * (bottom - 20)
            out.append(f'<line x1="60" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="{colour}" stroke-dasharray="5 4"/>')  # fmt: skip
    told = ", ".join(
        f"{name} objective {limit:.0f} ms"
        for name, limit in (("p95", service.p95_objective_ms), ("p99", service.p99_objective_ms))
        if limit
    )
    out.append(
        f'<text x="60" y="{height - 8}"><tspan fill="#1f5fa8">p95</tspan> and <tspan fill="#8a4fa8">p99</tspan>, '
        f"{len(samples)} samples, {start:%H:%M:%S} to {end:%H:%M:%S} UTC; "
        f"{told or 'no objective recorded'} (dashed where in range)</text>"
    )
    return "".join([*out, "</svg>"])


def _value(sample: Sample, series: str) -> float:
    value = sample.p95_ms if series == "p95_ms" else sample.p99_ms
    return value if value is not None else 0.0


def _open(height: int, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title, quote=True)}" font-family="system-ui, sans-serif" font-size="12">'
        f"<title>{escape(title)}</title>"
    )


def _heading(step: Step) -> str:
    number, _, rest = step.title.partition(" · ")
    return f"{number.partition('.')[0]} · {rest.partition(': ')[0]}"


def _worse(one: str, other: str) -> str:
    order = ("not-run", "skipped", "passed", "broken", "failed")
    return max(one, other, key=order.index)
