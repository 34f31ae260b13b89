"""The canary: a real application on a real isolated instance."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psycopg
import pytest
from pydantic import TypeAdapter

from fixtures.app.canary import CanaryReport, end_canary, run_canary
from fixtures.command import JobRef, is_running
from fixtures.errors import RunbookError, StepError
from fixtures.evidence import Secret
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import Endpoint, connect
from fixtures.settings import Canary

APP = Path(__file__).with_name("canary_app.py")
TABLES = ("public.users", "public.stamps")


@pytest.fixture(scope="module")
def restored(public_dir: Path, binaries: Binaries) -> Iterator[Endpoint]:
    """An isolated instance with a few users, for all these tests."""
    home = Path(tempfile.mkdtemp(prefix="restored-", dir=public_dir))
    home.chmod(0o755)
    binaries.own(home)
    server = Server(binaries, home / "data", free_port(), home, "postgres", home / "logs")
    server.initdb()
    job = server.start({"fsync": "off", "listen_addresses": ""})
    server.wait_ready(job)
    with connect(server.endpoint) as session:
        for statement in (
            "CREATE TABLE public.users (id int PRIMARY KEY)",
            "INSERT INTO public.users SELECT generate_series(1, 5)",
            "CREATE TABLE public.stamps (id bigserial PRIMARY KEY, user_id int)",
            "INSERT INTO public.stamps (user_id) SELECT generate_series(1, 5)",
            "CREATE TABLE public.audit (what int)",
        ):
            session.do(statement)
    yield server.endpoint
    server.kill(job)
    shutil.rmtree(home)


def settings(*, fault: str = "", **changes: object) -> Canary:
    parts = {
        "command": [sys.executable, str(APP), "{port}"],
        "env": {"FAULT": fault},
        "routes": [
            {"path": "/users", "expect": {"users": 5}},
            {"method": "POST", "path": "/claim", "body": {"user": 1}, "expect": {"claimed": True}},
        ],
    }
    return Canary.model_validate({**parts, **changes})


def fly(restored: Endpoint, folder: Path, own: Canary, jobs: list[JobRef] | None = None) -> CanaryReport:
    seen: list[JobRef] = [] if jobs is None else jobs
    return run_canary(
        own,
        dsn=Secret(f"postgresql://postgres@/postgres?host={restored.host}&port={restored.port}"),
        port=free_port(),
        folder=folder,
        restored=restored,
        database="postgres",
        tables=TABLES,
        started=seen.append,
    )


def test_a_good_application_leaves_no_trace(restored: Endpoint, tmp_path: Path) -> None:
    """Routes answer, writes are rolled back, the process and its sessions are gone."""
    jobs: list[JobRef] = []
    report = fly(restored, tmp_path, settings(), jobs)

    assert report.problems == ()
    assert [(route.path, route.status) for route in report.routes] == [("/users", 200), ("/claim", 200)]
    assert all(proof.unchanged and proof.rows_before == 5 for proof in report.tables)
    assert (report.committed - report.upkeep, report.sessions_left) == (0, 0)
    assert report.sequences_moved == ("public.stamps_id_seq",)
    assert not is_running(jobs[0])
    kept = TypeAdapter(CanaryReport)
    assert kept.validate_json(kept.dump_json(report)) == report


def test_a_committed_write_is_found(restored: Endpoint, tmp_path: Path) -> None:
    """An application that ignores the dry run is caught by the table and by the commit."""
    report = fly(restored, tmp_path, settings(fault="commits"))

    with connect(restored) as session:
        session.do("DELETE FROM public.stamps WHERE id > 5")
    assert report.problems == (
        "public.stamps was changed",
        "1 transaction(s) committed on the restored instance",
    )


def test_a_write_to_an_unlisted_table_is_found(restored: Endpoint, tmp_path: Path) -> None:
    """Nothing else may commit either, whatever it wrote to."""
    report = fly(restored, tmp_path, settings(fault="elsewhere"))

    assert report.problems == ("1 transaction(s) committed on the restored instance",)


def test_wrong_answers_are_told_without_their_values(restored: Endpoint, tmp_path: Path) -> None:
    """Status, missing keys and other values fail; what was answered is not recorded."""
    own = settings(
        fault="breaks",
        routes=[
            {"path": "/users", "expect": {"users": 6, "mail": "ann@example.com"}},
            {"path": "/users", "expect": {"stamps": 1}},
            {"method": "POST", "path": "/claim", "body": {"user": 1}},
            {"path": "/healthz", "expect_status": 204},
        ],
    )
    report = fly(restored, tmp_path, own)

    assert [route.problem for route in report.routes] == [
        "the answer's users, mail differs from what is expected",
        "the answer has no stamps",
        "status 500 instead of 200",
        "status 200 instead of 204",
    ]
    assert "bob" not in repr(report)


def test_an_application_that_dies_is_told(restored: Endpoint, tmp_path: Path) -> None:
    """A crash in a route is a problem of the route and of the application."""
    report = fly(restored, tmp_path, settings(fault="dies"))

    assert any("no answer" in problem for problem in report.problems)
    assert report.tables[1].unchanged


def test_an_application_that_does_not_start_is_quoted_without_secrets(
    restored: Endpoint, tmp_path: Path
) -> None:
    """RB604 with its last words, redacted; its output is for its owner only."""
    with pytest.raises(StepError) as caught:
        fly(restored, tmp_path, settings(fault="will not start"))

    assert caught.value.code == "RB604"
    assert "cannot reach" in caught.value.where
    assert "some-password" not in str(caught.value)
    assert (tmp_path / "canary.err").stat().st_mode & 0o077 == 0


def test_an_unhealthy_application_is_ended(restored: Endpoint, tmp_path: Path) -> None:
    """Past its bound it is RB604, and its process is gone."""
    jobs: list[JobRef] = []
    with pytest.raises(StepError, match="last: status 503") as caught:
        fly(restored, tmp_path, settings(fault="unhealthy", start_timeout="2s"), jobs)

    assert caught.value.code == "RB604"
    assert not is_running(jobs[0])


def test_an_interrupt_ends_the_application(restored: Endpoint, tmp_path: Path) -> None:
    """Ctrl-C while it starts leaves no process behind."""
    jobs: list[JobRef] = []

    class Interrupting(list[JobRef]):
        def append(self, job: JobRef, /) -> None:
            jobs.append(job)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fly(restored, tmp_path, settings(), Interrupting())

    assert not is_running(jobs[0])
    end_canary(jobs[0])


def test_a_foreign_application_on_the_port_is_not_asked(restored: Endpoint, tmp_path: Path) -> None:
    """Another process's answers would prove nothing."""
    with (
        closing(HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler).socket) as taken,
        pytest.raises(StepError, match="something else answers"),
    ):
        run_canary(
            settings(),
            dsn=Secret("postgresql://postgres@/postgres?host=/nowhere"),
            port=taken.getsockname()[1],
            folder=tmp_path,
            restored=restored,
            database="postgres",
            tables=TABLES,
        )


def test_a_session_that_stays_is_counted(
    restored: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever connected meanwhile must be gone afterwards."""
    monkeypatch.setattr("fixtures.app.untouched.SETTLE_S", 0.3)
    opened: list[psycopg.Connection[tuple[object, ...]]] = []

    class Connecting(list[JobRef]):
        def append(self, _job: JobRef, /) -> None:
            opened.append(psycopg.connect(restored.conninfo(), autocommit=True))

    try:
        report = fly(restored, tmp_path, settings(), Connecting())
    finally:
        opened[0].close()

    assert report.problems == ("1 session(s) stayed after the application ended",)


def test_an_unknown_table_is_an_error_before_anything_starts(restored: Endpoint, tmp_path: Path) -> None:
    """A misspelt table must not read as unchanged."""
    with pytest.raises(RunbookError):
        run_canary(
            settings(),
            dsn=Secret("postgresql://postgres@/postgres?host=/nowhere"),
            port=free_port(),
            folder=tmp_path,
            restored=restored,
            database="postgres",
            tables=["public.nosuch"],
        )

    assert list(tmp_path.iterdir()) == []
