"""The throwaway production for real: it lives, is damaged, is found again, and leaves nothing."""

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.app.switches import turn_off, turn_on
from fixtures.command import JobRef, end_job, run, spawn, start_ticks, wait_for
from fixtures.config import load_config
from fixtures.drill import cluster, schema
from fixtures.drill.bindings import ROOT, module
from fixtures.drill.disasters import CATALOGUE, strike
from fixtures.drill.record import Record, end_world
from fixtures.drill.witness import last_closing, read_acks, read_doors
from fixtures.drill.world import World, attach_world, build_world
from fixtures.errors import ToolError
from fixtures.evidence import Secret
from fixtures.postgres.server import Server, control_data, free_port
from fixtures.postgres.session import Endpoint, connect
from fixtures.progress import Tick
from fixtures.settings import Embedded

SMALL = Embedded(users=60, warmup=timedelta(seconds=0.3), writers=2)


@pytest.fixture(scope="module")
def ticks() -> list[Tick]:
    """What the build told about itself."""
    return []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, ticks: list[Tick]) -> Iterator[World]:
    """A small world whose stamps were deleted."""
    record = tmp_path_factory.mktemp("run") / "world.json"
    yield build_world(
        run_id="20251005T123400Z-abcd", folder=Path(f"/tmp/rrb-{uuid.uuid4().hex[:6]}"), record=record,  # noqa: S108
        shape=SMALL, seed=7, scale=1.0, disaster="delete", progress=ticks.append,
    )  # fmt: skip
    end_world(record)


@pytest.fixture
def maintenance(world: World) -> Iterator[Callable[[bool], None]]:
    """Turn maintenance mode as the runbook does; off afterwards."""
    settings = load_config(ROOT / "runbook.toml", bindings=world.bindings()).settings

    def turn(wanted: bool) -> None:
        (turn_on if wanted else turn_off)(settings.app.maintenance)

    yield turn
    turn(False)


def post(world: World, route: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{world.app_url}/{route}", json={"request_id": str(uuid.uuid4()), **body})


def count(endpoint: Endpoint, table: str) -> int:
    with connect(endpoint) as session:
        return int(session.value(f"SELECT count(*) FROM public.{table}"))  # type: ignore[arg-type]  # noqa: S608


def test_build_tells_its_phases(world: World, ticks: list[Tick]) -> None:
    """Progress goes from the first phase to the last and ends with what was done to production."""
    assert [tick.done for tick in ticks] == list(range(len(ticks)))
    assert ticks[-1].done == ticks[-1].total
    assert ticks[-1].note == world.damage.sentence


def test_cluster_can_be_restored_from(world: World) -> None:
    """Checksums, archiving, commit timestamps, amcheck and a verified base backup are there."""
    with connect(world.production) as session:
        names = ("data_checksums", "archive_mode", "track_commit_timestamp", "wal_level", "fsync")
        found = [session.value("SELECT current_setting(%s)", (name,)) for name in names]
        extensions = {row[0] for row in session.rows("SELECT extname FROM pg_extension")}
        failed = session.value("SELECT failed_count FROM pg_stat_archiver")

    assert found == ["on", "on", "on", "replica", "on"]
    assert "amcheck" in extensions
    assert failed == 0
    backup = world.places.backups / cluster.BACKUP_NAME
    verified = run(
        [world.binaries.tool("pg_verifybackup"), "-n", backup], timeout_s=60, user=world.binaries.user
    )
    assert "backup successfully verified" in verified.stdout
    same = {
        control_data(world.binaries, each)["Database system identifier"]
        for each in (backup, world.places.data)
    }
    assert len(same) == 1


def test_only_superuser_on_the_socket_and_application_by_password(world: World) -> None:
    """The application's role needs its password, and nobody else comes in over TCP."""
    wrong = Endpoint("127.0.0.1", world.port, schema.APP, schema.DATABASE, Secret("wrong-password"))
    superuser = Endpoint("127.0.0.1", world.port, cluster.SUPERUSER, schema.DATABASE, Secret("none-needed"))

    with connect(world.app_endpoint()) as session:
        assert session.value("SELECT current_user") == schema.APP
    for endpoint in (wrong, superuser):
        with pytest.raises(Exception, match="RB503"), connect(endpoint):
            pass


def test_ledger_mirrors_the_migrations(world: World) -> None:
    """Every migration is in the ledger with the checksum of its file."""
    with connect(world.production) as session:
        names = [row[0] for row in session.rows("SELECT name FROM public.schema_migrations ORDER BY name")]

    assert names == [file.name for file in schema.migration_files()]


def test_damage_is_known_to_the_microsecond(world: World) -> None:
    """The damage's transaction and commit time are the server's own, and rows followed it."""
    with connect(world.production) as session:
        at = session.value("SELECT pg_xact_commit_timestamp(%s::text::xid)", (str(world.damage.xid),))
    acks = read_acks(world.witness)

    assert at == world.damage.at
    assert world.damage.rows > 0
    assert world.damage.at <= world.damage.done_at
    assert any(ack.acked_at < world.damage.at for ack in acks)
    assert any(ack.sent_at > world.damage.done_at for ack in acks)
    assert world.default_target.at == world.damage.at
    assert world.default_target.exclusive


def test_heartbeat_and_workers_write(world: World) -> None:
    """The heartbeat goes on after the damage and the workers have run."""
    with connect(world.production) as session:
        wait_for(
            lambda: session.value("SELECT max(at) FROM public.heartbeat") > world.damage.done_at,
            timeout_s=20,
            what="a heartbeat after the damage",
        )
        assert session.value("SELECT runs FROM public.jobs WHERE name = 'expiry'") > 0


def test_application_serves_claims_and_redeems(world: World) -> None:
    """A claim is counted once however often it is repeated; a redeem needs ten stamps."""
    request_id = str(uuid.uuid4())
    first = post(world, "claim", user_id=1, request_id=request_id)
    again = post(world, "claim", user_id=1, request_id=request_id)
    joined = post(world, "join", name="Guest", email="guest@example.test")
    poor = post(world, "redeem", user_id=joined.json()["user_id"])

    assert (first.status_code, first.json()["duplicate"]) == (200, False)
    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    assert joined.status_code == 200
    assert poor.status_code == 409
    assert post(world, "redeem", user_id=1).status_code == 200
    assert post(world, "claim", user_id=10**12).status_code == 404
    assert post(world, "claim", user_id="x").status_code == 400
    assert post(world, "nothing").status_code == 404
    assert httpx.get(f"{world.app_url}/healthz").json()["database"] == "stampcard"


def test_metrics_show_routes_and_codes(world: World) -> None:
    """Users' requests are counted by route and code; probes are not."""
    post(world, "claim", user_id=1)
    text = httpx.get(f"{world.app_url}/metrics").text

    assert 'http_requests_total{code="200",route="/claim"}' in text
    assert 'http_request_duration_seconds_bucket{le="+Inf",route="/claim"}' in text
    assert "healthz" not in text


def test_maintenance_refuses_users_and_the_witness_sees_it(
    world: World, maintenance: Callable[[bool], None]
) -> None:
    """In maintenance only health and metrics answer; afterwards clients come back by themselves."""
    maintenance(True)
    refused = post(world, "claim", user_id=1)

    assert refused.status_code == 503
    assert "Retry-After" in refused.headers
    assert httpx.get(f"{world.app_url}/served").status_code == 503
    assert httpx.get(f"{world.app_url}/healthz").status_code == 200
    assert httpx.get(f"{world.app_url}/metrics").status_code == 200
    assert run(world.bindings()["app"]["write_probe"], timeout_s=30, check=False).returncode == 1
    wait_for(
        lambda: last_closing(read_doors(world.witness)) is not None, timeout_s=20, what="the door closes"
    )
    maintenance(False)
    assert httpx.get(f"{world.app_url}/served").status_code == 200
    wait_for(lambda: read_doors(world.witness)[-1].state == "open", timeout_s=20, what="the door opens")
    assert run(world.bindings()["app"]["write_probe"], timeout_s=30, check=False).returncode == 0


def test_workers_pause_and_come_back(world: World) -> None:
    """A paused worker no longer holds a connection; a resumed one runs again."""
    settings = load_config(ROOT / "runbook.toml", bindings=world.bindings()).settings
    with connect(world.production) as session:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stampcard-expiry'"
        for worker in settings.app.workers:
            assert turn_on(worker.pause)
        wait_for(lambda: session.value(query) == 0, timeout_s=20, what="the worker's connection is gone")
        ran = session.value("SELECT runs FROM public.jobs WHERE name = 'expiry'")
        for worker in settings.app.workers:
            assert turn_off(worker.pause)
        wait_for(
            lambda: session.value("SELECT runs FROM public.jobs WHERE name = 'expiry'") > ran,
            timeout_s=20,
            what="the worker runs again",
        )


def test_application_follows_its_connection_string(world: World) -> None:
    """Another string in the file is used from the next request on, and survives ended sessions."""
    text = world.places.dsn.read_text()
    try:
        world.places.dsn.write_text(text.replace(f":{world.port}/", ":1/"))
        assert post(world, "claim", user_id=1).status_code == 503
        assert httpx.get(f"{world.app_url}/healthz").status_code == 503
    finally:
        world.places.dsn.write_text(text)
    assert post(world, "claim", user_id=1).status_code == 200
    with connect(world.production) as session:
        session.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'stampcard_app'")
    assert post(world, "claim", user_id=1).status_code == 200


def test_dry_run_really_runs_and_keeps_nothing(world: World, tmp_path: Path) -> None:
    """The canary's writes answer as real ones do, and are rolled back."""
    port = free_port()
    request_id = str(uuid.uuid4())
    job = spawn(
        [*module("app"), "--dry-run", "--port", str(port)], name="canary", folder=tmp_path,
        env={"DATABASE_URL": world.places.dsn.read_text()},
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{url}/healthz"), timeout_s=30, what="the canary answers")
        claim = httpx.post(f"{url}/claim", json={"user_id": 1, "request_id": request_id})
        redeem = httpx.post(f"{url}/redeem", json={"user_id": 1, "request_id": request_id})
    finally:
        stop(job)

    assert (claim.status_code, claim.json()["dry_run"], claim.json()["ok"]) == (200, True, True)
    assert (redeem.status_code, redeem.json()["dry_run"]) == (200, True)
    with connect(world.production) as session:
        assert session.rows("SELECT 1 FROM public.stamps WHERE request_id = %s::uuid", (request_id,)) == []
        assert session.rows("SELECT 1 FROM public.rewards WHERE request_id = %s::uuid", (request_id,)) == []


def test_secrets_are_private_and_not_on_command_lines(world: World) -> None:
    """The password is in files of mode 0600 only."""
    secret = world.places.password.read_text().strip()

    for path in (world.places.password, world.places.dsn, world.record):
        assert path.stat().st_mode & 0o077 == 0
    assert secret not in world.record.read_text()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert secret not in entry.read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
    for log in world.places.logs.iterdir():
        assert secret not in log.read_text(errors="replace")


def test_another_process_finds_the_world(world: World) -> None:
    """A new process attaches by the record alone and reads the same damage and bindings."""
    program = (
        "import json, sys; from pathlib import Path; from fixtures.drill.world import attach_world;"
        "w = attach_world(Path(sys.argv[1]), adopt=False);"
        "print(json.dumps([w.damage.xid, w.bindings()['production'], w.server.is_mine()]))"
    )
    found = run(
        [sys.executable, "-c", program, world.record], timeout_s=60, env={"PYTHONPATH": str(ROOT)}
    ).stdout

    assert json.loads(found) == [world.damage.xid, world.bindings()["production"], True]
    assert attach_world(world.record) == world


def test_teardown_leaves_nothing(world: World) -> None:
    """Every process and the folder are gone, what a runbook started below it too; twice is quiet."""
    record = Record.load(world.record)
    copy = Server(
        world.binaries, world.places.restored / "copy", free_port(), world.places.sockets, "postgres",
        world.places.logs,
    )  # fmt: skip
    copy.initdb("--no-sync")
    job = copy.start({"fsync": "off"})
    copy.wait_ready(job)
    pids = [each.pid for each in (*record.jobs(), job)]

    said = world.teardown()

    assert any("production" in each for each in said)
    assert all(start_ticks(pid) is None for pid in pids)
    assert not world.folder.exists()
    assert world.teardown() == ()
    with pytest.raises(ToolError, match="RB701"):
        attach_world(world.record)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """What was made is ended when a later phase breaks."""
    folder = Path(f"/tmp/rrb-{uuid.uuid4().hex[:6]}")  # noqa: S108
    seen: list[Path] = []

    def interrupt(tick: Tick) -> None:
        if tick.done == 2:
            seen.extend(Path("/proc").glob("[0-9]*"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_world(
            run_id="r", folder=folder, record=tmp_path / "world.json", shape=SMALL, seed=1, scale=1.0,
            disaster="delete", progress=interrupt,
        )  # fmt: skip

    assert not folder.exists()
    jobs = Record.load(tmp_path / "world.json").jobs()
    assert [job.name for job in jobs] == ["production"]
    assert all(start_ticks(job.pid) is None for job in jobs)


def test_a_drill_that_would_fill_the_disk_is_not_begun(tmp_path):
    """A scale with a zero too many is told at once, and not by a full disk half an hour later."""
    record, folder = tmp_path / "world.json", tmp_path / "world"
    with pytest.raises(ToolError, match="RB308 a drill with 20,000,000,000 users needs about") as told:
        build_world(
            run_id="r", folder=folder, record=record, shape=SMALL, seed=1, scale=20_000_000_000 / SMALL.users,
            disaster="delete", progress=lambda _tick: None,
        )  # fmt: skip

    assert "--scale=1 is the default" in told.value.block()
    assert not record.exists()
    assert not folder.exists()


@pytest.fixture(scope="module")
def template(public_dir: Path, binaries: Any) -> Iterator[Server]:
    """A cheap server whose database is everything but the last migration."""
    home = public_dir / "drill-template"
    home.mkdir(mode=0o755)
    binaries.own(home)
    server = Server(binaries, home / "data", free_port(), home, "postgres", home / "logs")
    cluster.create_cluster(server, archive_command=cluster.archive_command(home), settings={})
    job = server.start({"fsync": "off", "archive_mode": "off"})
    server.wait_ready(job)
    cluster.fill(server, password=Secret("not-used-here"), users=60, seed=3, held_back=1)
    yield server
    server.kill(job)


def fork(server: Server, name: str) -> Endpoint:
    with connect(server.endpoint) as session:
        session.do(f'CREATE DATABASE "{name}" TEMPLATE {schema.DATABASE} OWNER {schema.OWNER}')  # type: ignore[arg-type]
    return server.endpoint.on(name)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_disaster_damages(template: Server, name: str) -> None:
    """Each disaster that harms changes preloaded rows, in one committed transaction that the server dates."""
    endpoint = fork(template, f"d_{name}")
    with connect(endpoint) as session:
        before = state(session)

    damage = strike(endpoint, CATALOGUE[name], seed=5, users=60)

    with connect(endpoint) as session:
        assert (state(session) != before) is CATALOGUE[name].harms
        assert (
            session.value("SELECT pg_xact_commit_timestamp(%s::text::xid)", (str(damage.xid),)) == damage.at
        )
    assert damage.name == name


def test_deploy_brings_the_last_migration(template: Server) -> None:
    """The deploy's migration is in the ledger only after it, so that a restore has to align."""
    endpoint = fork(template, "ledger")
    last = schema.migration_files()[-1].name
    with connect(endpoint) as session:
        query = "SELECT count(*) FROM public.schema_migrations WHERE name = %s"
        assert session.value(query, (last,)) == 0
        strike(endpoint, CATALOGUE["deploy"], seed=5, users=60)
        assert session.value(query, (last,)) == 1


def test_preloaded_rows_are_a_function_of_the_seed(template: Server) -> None:
    """The same seed and size fill the same rows, another seed others; balances add up."""
    found = []
    for number, seed in enumerate((3, 3, 4)):
        endpoint = fork(template, f"seed_{number}")
        with connect(endpoint) as session:
            session.do("TRUNCATE public.users, public.stamps, public.rewards RESTART IDENTITY")
            found.append(schema.preload(session, users=60, seed=seed))
            wrong = session.value(
                "SELECT count(*) FROM public.users u WHERE balance <>"
                " (SELECT count(*) FROM public.stamps s WHERE s.user_id = u.id)"
                " - (SELECT coalesce(sum(stamp_cost), 0) FROM public.rewards r WHERE r.user_id = u.id)"
            )
            assert wrong == 0
            assert session.value("SELECT balance FROM public.users WHERE id = 1") >= schema.REWARD_COST

    assert found[0] == found[1]
    assert found[0] != found[2]
    assert all(each.rows > 0 for each in found[0])


def state(session: Any) -> tuple[object, ...]:
    tables = session.rows(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    if ("rewards",) not in tables:
        return (tables,)
    balances = session.rows("SELECT id, name, email, balance FROM public.users ORDER BY id")
    return (tables, balances, schema.measure(session))


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def stop(job: JobRef) -> None:
    end_job(job)
