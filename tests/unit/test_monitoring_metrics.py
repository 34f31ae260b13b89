"""Prometheus samples and what happened between two of them."""

import math
from datetime import UTC, datetime

import pytest

from fixtures.errors import StepError
from fixtures.monitoring import metrics

AT = datetime(2025, 10, 5, 12, 34, tzinfo=UTC)


def exposition(
    *, ok: float, failed: float = 0, fast: float, slow: float, over: float, started: float = 1
) -> str:
    """Write a page: `fast` <= 0.1 s, `slow` <= 1 s (cumulative), `over` in all."""
    return f"""# TYPE http_requests_total counter
http_requests_total{{code="200",route="/claim"}} {ok}
http_requests_total{{code="503",route="/claim"}} {failed}
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{{route="/claim",le="0.1"}} {fast}
http_request_duration_seconds_bucket{{route="/claim",le="1"}} {slow}
http_request_duration_seconds_bucket{{route="/claim",le="+Inf"}} {over}
http_request_duration_seconds_count{{route="/claim"}} {over}
# TYPE process_start_time_seconds gauge
process_start_time_seconds {started}
"""


def read(text: str) -> metrics.Sample:
    return metrics.parse(text, url="http://app/metrics", at=AT)


def test_the_difference_tells_requests_errors_and_quantiles() -> None:
    """Only what happened between the samples counts, interpolated inside the bucket."""
    found = metrics.difference(
        read(exposition(ok=1000, failed=50, fast=0, slow=1050, over=1050)),
        read(exposition(ok=1090, failed=60, fast=90, slow=1150, over=1150)),
    )

    assert (found.requests, found.errors, found.error_rate) == (100, 10, 0.1)
    assert found.p95 is not None
    assert found.p95.ms == pytest.approx(100 + 900 * 0.5)
    assert found.p95.at_least is False


@pytest.mark.parametrize("started", [1, 2], ids=["counter fell", "start time rose"])
def test_a_restarted_process_counts_from_zero(started: float) -> None:
    """A reset neither hides requests nor makes them negative."""
    found = metrics.difference(
        read(exposition(ok=1000, fast=1000, slow=1000, over=1000)),
        read(exposition(ok=20, failed=20, fast=20, slow=40, over=40, started=started)),
    )

    assert (found.requests, found.errors) == (40, 20)
    assert found.p95 is not None
    assert 100 < found.p95.ms <= 1000


def test_a_restart_that_outgrew_its_old_count_is_seen_by_its_start_time() -> None:
    """More requests than before the restart do not hide it."""
    found = metrics.difference(
        read(exposition(ok=10, fast=10, slow=10, over=10)),
        read(exposition(ok=30, fast=30, slow=30, over=30, started=2)),
    )

    assert found.requests == 30


def test_a_quantile_beyond_the_last_bucket_is_only_a_lower_bound() -> None:
    """It is above limits below it, and cannot be told apart from limits above it."""
    quantile = metrics.quantile([(0.1, 0), (1.0, 50), (math.inf, 100)], 0.95)

    assert quantile == metrics.Quantile(ms=1000, at_least=True)
    assert quantile.exceeds(300) is True
    assert quantile.exceeds(1000) is True
    assert quantile.exceeds(5000) is None


def test_no_request_is_no_quantile_and_no_rate() -> None:
    """Silence is not a latency of zero."""
    page = read(exposition(ok=5, fast=5, slow=5, over=5))
    found = metrics.difference(page, page)

    assert (found.requests, found.error_rate, found.p95, found.p99) == (0, None, None, None)


def test_several_routes_are_merged() -> None:
    """Series that appear between the samples count from zero."""
    one = exposition(ok=10, fast=10, slow=10, over=10)
    two = one.replace('route="/claim"', 'route="/redeem"')
    bare = "\n".join(line for line in two.splitlines() if not line.startswith(("#", "process")))
    found = metrics.difference(read(one), read(one + bare + "\n"))

    assert found.requests == 10


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("<html>not metrics at all</html>", "not in Prometheus text format"),
        ("other_total 1\n", "have no http_requests_total"),
        ('http_requests_total{route="/x"} 1\n', "no label with the HTTP status"),
        ('http_requests_total{status="2xx"} 1\n', "have no http_request_duration_seconds_bucket"),
    ],
    ids=["html", "other", "no status", "no histogram"],
)
def test_unusable_pages_are_refused(text: str, fact: str) -> None:
    """What cannot be judged is RB607."""
    with pytest.raises(StepError) as caught:
        read(text)

    assert caught.value.code == "RB607"
    assert fact in caught.value.fact
