"""The monitored window against a real server and a real metrics page."""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest
from pydantic import TypeAdapter

from fixtures.command import wait_for
from fixtures.evidence import Verdict
from fixtures.monitoring import database
from fixtures.monitoring.watch import WatchReport, watch
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import Endpoint, connect
from fixtures.progress import Tick
from fixtures.settings import Monitoring


@dataclass
class Page:
    """A metrics page whose counters grow at every look."""

    ok: int = 20
    failed: int = 0
    slow: int = 0
    down_for: int = 0
    looks: int = 0
    totals: dict[str, int] = field(default_factory=lambda: {"ok": 0, "failed": 0, "slow": 0})

    def text(self) -> str:
        self.looks += 1
        for name in self.totals:
            self.totals[name] += getattr(self, name)
        every = self.totals["ok"] + self.totals["failed"]
        fast = every - self.totals["slow"]
        return (
            f'http_requests_total{{code="200"}} {self.totals["ok"]}\n'
            f'http_requests_total{{code="500"}} {self.totals["failed"]}\n'
            f'http_request_duration_seconds_bucket{{le="0.05"}} {fast}\n'
            f'http_request_duration_seconds_bucket{{le="2.5"}} {every}\n'
            f'http_request_duration_seconds_bucket{{le="+Inf"}} {every}\n'
        )


@pytest.fixture
def page() -> Iterator[tuple[Page, str]]:
    """Serve a page on a free port."""
    own = Page()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if own.down_for:
                own.down_for -= 1
                self.send_error(500)
                return
            body = own.text().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield own, f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def endpoint(public_dir: Path, binaries: Binaries) -> Iterator[Endpoint]:
    """One throwaway server for all these tests: each only reads counters' differences."""
    home = Path(tempfile.mkdtemp(prefix="watched-", dir=public_dir))
    home.chmod(0o755)
    binaries.own(home)
    server = Server(binaries, home / "data", free_port(), home, "postgres", home / "logs")
    server.initdb()
    job = server.start({"fsync": "off", "deadlock_timeout": "20ms", "listen_addresses": ""})
    server.wait_ready(job)
    yield server.endpoint
    server.kill(job)
    shutil.rmtree(home)


def settings(url: str, **changes: object) -> Monitoring:
    return Monitoring.model_validate({"metrics_url": url, "window": "600ms", "interval": "100ms", **changes})


def observe(endpoint: Endpoint, own: Monitoring, ticks: list[Tick] | None = None) -> WatchReport:
    seen: list[Tick] = [] if ticks is None else ticks
    return watch(own, endpoint, ["postgres"], seen.append, clock=lambda: datetime.now(UTC))


def test_a_quiet_window_passes_and_can_be_stored(endpoint: Endpoint, page: tuple[Page, str]) -> None:
    """Every sample is kept for the chart; the report survives the journal."""
    ticks: list[Tick] = []
    report = observe(endpoint, settings(page[1]), ticks)

    assert (report.verdict, report.breaches, report.gaps) == (Verdict.PASS, (), ())
    assert report.requests >= 20
    assert report.error_rate == 0
    assert len(ticks) == len(report.samples) > 2
    kept = TypeAdapter(WatchReport)
    assert kept.validate_json(kept.dump_json(report)) == report


@pytest.mark.parametrize(
    ("changes", "fact"), [({"failed": 5}, "are 5xx"), ({"slow": 10}, "p95")], ids=["errors", "latency"]
)
def test_a_breach_ends_the_window_at_once(
    changes: dict[str, int], fact: str, endpoint: Endpoint, page: tuple[Page, str]
) -> None:
    """In a short window the first bad sample is enough."""
    for name, value in changes.items():
        setattr(page[0], name, value)
    report = observe(endpoint, settings(page[1], window="100s"))

    assert (report.breached, report.verdict) == (True, Verdict.FAIL)
    assert fact in report.breaches[0]
    assert report.seconds < 100


def test_a_long_window_wants_a_second_bad_sample(endpoint: Endpoint, page: tuple[Page, str]) -> None:
    """One slow interval in thirty minutes is not the service's state; two are."""
    page[0].slow = 10
    report = observe(endpoint, settings(page[1], window="30min"))

    assert report.breached
    assert len([point for point in report.samples if "p95" in point.breaches]) == 2


def test_a_gross_error_rate_needs_no_second_sample(endpoint: Endpoint, page: tuple[Page, str]) -> None:
    """More than five times the limit breaches at once in any window."""
    page[0].failed = 20
    report = observe(endpoint, settings(page[1], window="30min"))

    assert len([point for point in report.samples if point.breaches]) == 1
    assert report.max_error_rate == pytest.approx(0.5)


def test_too_few_requests_prove_nothing(endpoint: Endpoint, page: tuple[Page, str]) -> None:
    """A service nobody uses is not a healthy one."""
    page[0].ok = 0
    report = observe(endpoint, settings(page[1]))

    assert (report.verdict, report.breached) == (Verdict.COULD_NOT_VERIFY, False)
    assert any("prove nothing" in gap.reason for gap in report.gaps)


def test_few_requests_per_sample_add_up(endpoint: Endpoint, page: tuple[Page, str]) -> None:
    """A quiet service is judged over a longer stretch."""
    page[0].ok = 6
    report = observe(endpoint, settings(page[1]))

    assert (report.verdict, report.gaps) == (Verdict.PASS, ())


def test_a_moment_without_metrics_is_a_gap(endpoint: Endpoint, page: tuple[Page, str]) -> None:
    """One missed look is told, and is no pass; the source is not given up."""
    page[0].down_for = 1
    report = observe(endpoint, settings(page[1]))

    assert (report.verdict, len(report.gaps), report.candidates) == (Verdict.COULD_NOT_VERIFY, 1, ())


def test_a_silent_source_is_a_breach_candidate(endpoint: Endpoint) -> None:
    """Three looks in a row without an answer are handed to a person."""
    report = observe(endpoint, settings(f"http://127.0.0.1:{free_port()}/metrics"))

    assert report.verdict is Verdict.COULD_NOT_VERIFY
    assert report.candidates == ("gap:metrics",)


def test_a_silent_database_is_a_gap(endpoint: Endpoint, page: tuple[Page, str]) -> None:
    """What the server does not say is not taken for good."""
    nowhere = Endpoint(endpoint.host, free_port(), endpoint.user)
    report = observe(nowhere, settings(page[1]))

    assert report.verdict is Verdict.COULD_NOT_VERIFY
    assert "gap:database" in report.candidates


def test_an_unknown_database_is_a_gap(endpoint: Endpoint, page: tuple[Page, str]) -> None:
    """A misspelt name must not read as zero deadlocks."""
    report = watch(
        settings(page[1]), endpoint, ["nosuch"], lambda _tick: None, clock=lambda: datetime.now(UTC)
    )

    assert any("there is no database nosuch" in gap.reason for gap in report.gaps)


def test_a_slow_statement_breaches(endpoint: Endpoint, page: tuple[Page, str]) -> None:
    """A user's statement that runs for too long is seen while it runs; ours is not counted."""
    with psycopg.connect(endpoint.conninfo(), autocommit=True) as slow:
        asking = threading.Thread(target=_until_cancelled, args=(slow,))
        asking.start()
        try:
            report = observe(endpoint, settings(page[1], window="100s", slow_after="100ms"))
        finally:
            slow.cancel()
            asking.join()

    assert "statement(s) run for more than" in report.breaches[0]
    assert report.max_slow == 1


def test_a_deadlock_is_counted_from_the_windows_begin(endpoint: Endpoint) -> None:
    """The server's own counter, as a difference."""
    before = database.sample(endpoint, ["postgres"], slow_after_s=5)
    _deadlock(endpoint)

    def counted() -> bool:
        now = database.sample(endpoint, ["postgres"], slow_after_s=5)
        return database.difference(before, now).deadlocks == 1

    wait_for(counted, timeout_s=20, what="the deadlock is counted")
    # a reset by a crash or by hand counts from zero
    after = database.sample(endpoint, ["postgres"], slow_after_s=5)
    with connect(endpoint) as session:
        session.rows("SELECT pg_catalog.pg_stat_reset()")
    assert database.difference(after, database.sample(endpoint, ["postgres"], slow_after_s=5)).deadlocks == 0


def test_a_failing_archiver_is_told(new_server: Callable[..., Server], page: tuple[Page, str]) -> None:
    """Users are served, but the new production is unprotected: a person must look."""
    server = new_server("stuck")
    server.wait_ready(
        server.start(
            {"fsync": "off", "archive_mode": "on", "archive_command": "false", "listen_addresses": ""}
        )
    )
    with connect(server.endpoint) as session:
        session.do("CREATE TABLE public.t ()")
        session.rows("SELECT pg_catalog.pg_switch_wal()")
    wait_for(
        lambda: database.sample(server.endpoint, ["postgres"], slow_after_s=5).archiving_stuck,
        timeout_s=30,
        what="the archiver failed",
    )
    report = observe(server.endpoint, settings(page[1]))

    assert report.candidates == ("archiver",)


def _until_cancelled(connection: "psycopg.Connection[tuple[object, ...]]") -> None:
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(300)")


def _deadlock(endpoint: Endpoint) -> None:
    with connect(endpoint) as session:
        session.do("CREATE TABLE public.d AS SELECT i FROM generate_series(1, 2) i")
    outcomes: list[str] = []
    barrier = threading.Barrier(2)

    def lock(first: int, second: int) -> None:
        with psycopg.connect(endpoint.conninfo()) as own:
            own.execute("UPDATE public.d SET i = i WHERE i = %s", (first,))
            barrier.wait()
            try:
                own.execute("UPDATE public.d SET i = i WHERE i = %s", (second,))
                outcomes.append("ok")
            except psycopg.errors.DeadlockDetected:
                outcomes.append("deadlock")
                own.rollback()

    both = [threading.Thread(target=lock, args=pair) for pair in ((1, 2), (2, 1))]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sorted(outcomes) == ["deadlock", "ok"]
