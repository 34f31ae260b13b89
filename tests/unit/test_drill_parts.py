"""The drill's parts that need no server: workload, metrics, archiving, record, switches, bindings."""

import json
import os
import random
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from fixtures.app.switches import is_on, turn_off, turn_on
from fixtures.command import run, spawn, start_ticks, wait_for
from fixtures.config import load_config
from fixtures.drill import clean as cleaning
from fixtures.drill import write_probe
from fixtures.drill.app_metrics import BUCKETS_S, Metrics
from fixtures.drill.bindings import ROOT, drill_bindings, module, worker_switch
from fixtures.drill.clean import clean
from fixtures.drill.cluster import Places, archive_command
from fixtures.drill.disasters import CATALOGUE, find_disaster
from fixtures.drill.record import Record, end_world
from fixtures.drill.workload import next_wish
from fixtures.errors import ToolError, UsageError
from fixtures.postgres.binaries import Binaries
from fixtures.settings import Switch


@pytest.fixture
def home() -> Iterator[Path]:
    """A short folder's name that nobody has made."""
    with tempfile.TemporaryDirectory(prefix="rrb-") as folder:
        yield Path(folder)


def test_workload_is_a_function_of_its_seed() -> None:
    """The same seed draws the same writes, another one others, and nobody touches the canary's user."""
    draws = [
        [next_wish(chance, users=50) for _ in range(400)]
        for chance in (random.Random("7/0"), random.Random("7/0"), random.Random("8/0"))
    ]

    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert {"claim", "redeem", "join"} == {wish.kind for wish in draws[0]}
    assert 1 not in {wish.user_id for wish in draws[0]}
    assert len({wish.request_id for wish in draws[0]}) == 400


def test_metrics_are_cumulative_histograms() -> None:
    """Each bucket counts what took at most its bound; +Inf counts all."""
    metrics = Metrics()
    for seconds in (0.0005, 0.05, 99.0):
        metrics.observe("/claim", 200, seconds)
    metrics.observe("/claim", 503, 0.0005)
    text = metrics.render()

    assert 'http_requests_total{code="200",route="/claim"} 3' in text
    assert 'http_requests_total{code="503",route="/claim"} 1' in text
    assert 'http_request_duration_seconds_bucket{le="0.001",route="/claim"} 2' in text
    assert 'http_request_duration_seconds_bucket{le="0.06",route="/claim"} 3' in text
    assert 'http_request_duration_seconds_bucket{le="+Inf",route="/claim"} 4' in text
    assert sorted(BUCKETS_S) == list(BUCKETS_S)


def test_archive_command_never_overwrites(tmp_path: Path) -> None:
    """A segment is archived whole, the same one again is fine, another of that name is refused."""
    archive, segment = tmp_path / "archive", tmp_path / "segment"
    archive.mkdir()
    segment.write_text("first")
    name = "000000010000000000000001"
    command = archive_command(archive).replace("%p", str(segment)).replace("%f", name)

    assert run(["sh", "-c", command], timeout_s=20).returncode == 0
    assert run(["sh", "-c", command], timeout_s=20).returncode == 0
    segment.write_text("other")
    assert run(["sh", "-c", command], timeout_s=20, check=False).returncode != 0
    assert (archive / name).read_text() == "first"
    assert [name] == [path.name for path in archive.iterdir()]


def test_archive_command_fails_without_its_folder(tmp_path: Path) -> None:
    """An archive that is gone is reported to the server, which then keeps the segment."""
    segment = tmp_path / "segment"
    segment.write_text("first")
    command = archive_command(tmp_path / "gone").replace("%p", str(segment)).replace("%f", "x")

    assert run(["sh", "-c", command], timeout_s=20, check=False).returncode != 0


def test_an_unknown_disaster_names_the_known_ones() -> None:
    """A usage error lists the catalogue."""
    with pytest.raises(UsageError, match="RB702") as caught:
        find_disaster("meteor")

    assert len(CATALOGUE) >= 6
    assert all(any(name in hint for hint in caught.value.hints) for name in CATALOGUE)


def test_a_world_is_written_down_before_it_is_made(home: Path) -> None:
    """The record is private, names folder and runner, and ending it leaves nothing."""
    record = Record.create(home / "run" / "world.json", folder=home / "world", run_id="r")
    job = record.start(
        "sleeper", lambda: spawn(["sleep", "600"], name="sleeper", folder=home / "world" / "l")
    )

    written = json.loads(record.path.read_text())
    assert record.path.stat().st_mode & 0o777 == 0o600
    assert str(home / "world") == written["folder"]
    assert os.getpid() == written["runner"]["pid"]
    assert job.pid == written["jobs"][0]["pid"]
    assert any("sleeper" in each for each in end_world(record.path))
    assert start_ticks(job.pid) is None
    assert not (home / "world").exists()
    assert end_world(record.path) == ()


def test_a_process_whose_pid_was_never_noted_is_found(home: Path) -> None:
    """A runner killed between starting and noting leaves a process its folder gives away."""
    record = Record.create(home / "world.json", folder=home / "world", run_id="r")
    job = spawn(["sleep", "600"], name="orphan", folder=home / "world" / "logs")

    assert any(str(job.pid) in each for each in end_world(record.path))
    wait_for(lambda: start_ticks(job.pid) is None, timeout_s=20, what="the orphan is gone")


def test_a_folder_that_is_there_is_never_taken_over(home: Path) -> None:
    """A world does not move into somebody's folder, and then has nothing to end."""
    (home / "world").mkdir()

    with pytest.raises(ToolError, match="RB701"):
        Record.create(home / "world.json", folder=home / "world", run_id="r")
    assert end_world(home / "world.json") == ()
    assert (home / "world").exists()


def test_clean_ends_worlds_nobody_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A world whose runner is dead is ended; one whose runner lives is left alone."""
    runs = home / "runs"
    living = Record.create(runs / "living" / "world.json", folder=home / "a", run_id="living")
    dead = Record.create(runs / "dead" / "world.json", folder=home / "b", run_id="dead")
    dead.save(runner={"pid": os.getpid(), "started": 1})

    assert cleaning.main(["--runs", str(runs)]) == 0
    assert not dead.folder.exists()
    assert living.folder.exists()
    assert "dead:" in capsys.readouterr().out
    assert cleaning.main(["--runs", str(runs)]) == 0
    assert "no drill was left behind" in capsys.readouterr().out


def test_worker_switch_waits_for_the_workers_own_word(home: Path) -> None:
    """Pausing returns only after the worker said so, and a dead worker's word counts for nothing."""
    places = Places(folder=home)
    places.etc.mkdir()
    switch = Switch.model_validate(worker_switch(places, "expiry"))
    # no connection string: the worker's jobs fail, its word does not depend on them
    dsn = home / "dsn"
    dsn.write_text("host=127.0.0.1 port=1 user=nobody")
    files = ["--pause-file", str(places.pause_flag("expiry"))]
    files += ["--state-file", str(places.worker_state("expiry"))]
    record = Record.create(home / "world.json", folder=home / "world", run_id="r")
    argv = [*module("worker"), "--name", "expiry", "--dsn-file", str(dsn), *files]
    record.start("worker", lambda: spawn(argv, name="worker", folder=home / "world"))
    try:
        wait_for(places.worker_state("expiry").exists, timeout_s=30, what="the worker speaks")
        assert not is_on(switch)
        assert turn_on(switch)
        assert places.worker_state("expiry").read_text().startswith("paused ")
        assert turn_off(switch)
    finally:
        end_world(record.path)

    assert run(list(switch.status or ()), timeout_s=20, check=False).returncode != 0


def test_shipped_configuration_and_bindings_are_complete(tmp_path: Path) -> None:
    """runbook.toml with a world's bindings is a valid configuration, and only a drill's."""
    binaries = Binaries(tmp_path, None, 18)
    bindings = drill_bindings(Places(folder=tmp_path), binaries, port=1, app_url="http://127.0.0.1:2")
    settings = load_config(ROOT / "runbook.toml", bindings=bindings).settings

    assert settings.drill is not None
    assert settings.production.name == "stampcard-drill"
    assert settings.databases[0].migrations is not None
    assert settings.databases[0].migrations.directory.is_dir()
    assert tuple(worker.name for worker in settings.app.workers) == ("expiry", "digest")
    assert tuple(worker.stage for worker in settings.app.workers) == (1, 2)
    assert "{port}" in settings.canary.command
    assert tuple(route.path for route in settings.canary.routes) == ("/claim", "/redeem")


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1), (404, 1)])
def test_write_probe_tells_accepted_from_refused(status: int, expected: int) -> None:
    """Only an accepted claim is exit 0."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        found = write_probe.probe(["--url", f"http://127.0.0.1:{server.server_port}"])
        thread.join()

    assert expected == found


def test_write_probe_without_an_answer_is_not_an_acceptance() -> None:
    """A port nobody listens on is its own exit status."""
    assert write_probe.probe(["--url", "http://127.0.0.1:1"]) == 2


def test_what_killed_processes_fetched_goes_with_the_drill(tmp_path, monkeypatch):
    """A folder of a process that lives is left alone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, alive = tmp_path / "rrb-wal-999999999-x", tmp_path / f"rrb-wal-{os.getpid()}-x"
    dead.mkdir()
    alive.mkdir()
    assert clean(tmp_path / "runs") == ()
    assert not dead.exists()
    assert alive.is_dir()
