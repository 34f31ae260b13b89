"""The image recipe keeps the official image's contract, on every major version whose programs are here."""

import os

import psycopg
import pytest
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config

from fixtures.command import wait_for
from fixtures.drill.image.build import build
from fixtures.errors import ConfigError
from tests.engine import MAJORS

#: quotes and blanks, which a shell or psql could take for its own
PASSWORD = 'it\'s "a" $ecret'
READY_S = 60.0
ELSEWHERE = "/tmp/elsewhere"  # noqa: S108 - inside a container of ours
#: what a first start says when its own server has ended and the real one comes
INITIALISED = "init process complete"


@pytest.fixture
def new_container(image, monkeypatch):
    """Start containers of the image; they are removed after the test."""
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    made = []

    def make(major, *, env, volumes=(), command=(), user=""):
        server = Bare(image.replace("{major}", str(major)), driver=None, volumes=list(volumes))
        server.with_envs(**env).with_command(list(command)).with_kwargs(user=user)
        made.append(server)
        return server.start()

    yield make
    for server in made:
        server.stop()


class Bare(PostgresContainer):
    """An image as testcontainers starts it, with exactly the variables of the test."""

    def _configure(self):
        """Give nothing by itself."""

    def _connect(self):
        """Wait in the test."""


def said(server) -> str:
    """Return a container's output."""
    return server.get_wrapped_container().logs().decode()


def address(server) -> str:
    """Return its address on the engine's own network."""
    container = server.get_wrapped_container()
    container.reload()
    return next(iter(container.attrs["NetworkSettings"]["Networks"].values()))["IPAddress"]


def connect(server, **login):
    """Connect over the network, from outside."""
    return psycopg.connect(host=address(server), port=5432, connect_timeout=5, **login)


def wait_ready(server, times: int = 1) -> None:
    """Wait for the server that stays: on a first start another one was ready before it."""
    wait_for(
        lambda: said(server).count("database system is ready to accept connections") >= times,
        timeout_s=READY_S,
        what="the container's server is ready",
    )


@pytest.mark.parametrize("major", MAJORS)
def test_a_first_start_follows_the_contract(major, new_container, tmp_path):
    """User, password from a file, database, initdb's arguments, scripts in order, arguments of the server."""
    scripts = tmp_path / "init"
    scripts.mkdir()
    (scripts / "1.sql").write_text("CREATE TABLE made (at_step int); INSERT INTO made VALUES (1);")
    (scripts / "2.sh").write_text(
        'psql -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "INSERT INTO made VALUES (2)"'
    )
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    for path in (tmp_path, scripts, secret, *scripts.iterdir()):
        path.chmod(0o755)

    server = new_container(
        major,
        env={
            "POSTGRES_USER": "app",
            "POSTGRES_PASSWORD_FILE": "/run/secret",
            "POSTGRES_DB": "shop",
            "POSTGRES_INITDB_ARGS": "--data-checksums --encoding='UTF8'",
        },
        volumes=[
            (str(scripts), "/docker-entrypoint-initdb.d", "ro"),
            (str(secret), "/run/secret", "ro"),
        ],
        command=["-c", "log_min_duration_statement=77"],
    )
    wait_ready(server, times=2)

    assert INITIALISED in said(server)
    assert PASSWORD not in said(server)
    with connect(server, user="app", password=PASSWORD, dbname="shop") as session:
        assert session.execute("SELECT array_agg(at_step ORDER BY at_step) FROM made").fetchone() == ([1, 2],)
        settings = dict(session.execute("SELECT name, setting FROM pg_settings").fetchall())
    assert settings["server_version"].startswith(f"{major}.")
    assert settings["log_min_duration_statement"] == "77"
    assert settings["data_checksums"] == "on"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(server, user="app", password="wrong", dbname="shop")

    container = server.get_wrapped_container()
    container.stop()
    assert container.wait()["StatusCode"] == 0
    container.start()
    wait_ready(server, times=3)
    assert "Skipping initialization" in said(server)
    with connect(server, user="app", password=PASSWORD, dbname="shop") as session:
        assert session.execute("SELECT count(*) FROM made").fetchone() == (2,)


@pytest.mark.parametrize("major", MAJORS)
def test_another_user_and_place_are_honoured(major, new_container):
    """PGDATA and --user are the caller's; without a password nothing starts."""
    server = new_container(major, env={"POSTGRES_PASSWORD": "x", "PGDATA": ELSEWHERE}, user="postgres")
    wait_ready(server, times=2)
    with connect(server, user="postgres", password="x", dbname="postgres") as session:
        assert session.execute("SHOW data_directory").fetchone() == (ELSEWHERE,)

    refused = new_container(major, env={})
    assert refused.wait() == 1
    assert "POSTGRES_PASSWORD is not set" in said(refused)


def test_somebody_elses_image_is_left_alone(engine):
    """A tag that is not of this recipe is not overwritten."""
    repository, tag = f"restore-runbook-foreign-{os.getpid()}", "15"
    engine.client.api.import_image_from_data(b"\0" * 1024, repository=repository, tag=tag)
    before = engine.client.images.get(f"{repository}:{tag}").id
    try:
        with pytest.raises(ConfigError, match="RB705"):
            build(15, tag=f"{repository}:{tag}")
        assert engine.client.images.get(f"{repository}:{tag}").id == before
    finally:
        engine.client.images.remove(f"{repository}:{tag}")
