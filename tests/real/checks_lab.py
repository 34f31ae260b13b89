"""A clean cluster, copies of it to destroy, and subjects to examine: shared by the tests of the checks."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fixtures.checks import (
    Subject,
)
from fixtures.checks.asking import READING
from fixtures.checks.references import table_sums
from fixtures.checks.relations import read_catalogue
from fixtures.checks.sums import TableSum
from fixtures.evidence import Check, Verdict
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.lanes import team
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import Endpoint, connect
from fixtures.production.capture import capture
from fixtures.providers.base import Cluster, InstanceRef, RestoredInstance, Target, TargetKind
from fixtures.settings import Database

QUICK = {
    "fsync": "off", "shared_buffers": "16MB", "max_prepared_transactions": "4",
    "track_commit_timestamp": "on", "listen_addresses": "", "autovacuum": "off",
}  # fmt: skip
SCHEMA = """
CREATE TABLE users (id serial PRIMARY KEY, email text NOT NULL UNIQUE, name text, tags text[], balance numeric);
CREATE TABLE stamps (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id int NOT NULL
    REFERENCES users, at timestamptz NOT NULL DEFAULT now(), note jsonb);
CREATE TABLE rewards (id serial PRIMARY KEY, stamp_id bigint REFERENCES stamps, kind text);
CREATE TABLE notes (id int, body text);
CREATE INDEX notes_body ON notes (body);
CREATE SEQUENCE tickets;
CREATE TABLE ticketed (number bigint DEFAULT nextval('tickets'));
INSERT INTO users (email, name, tags, balance) SELECT 'u' || i || '@example.org', 'n' || i, ARRAY['a', 'b'], i / 10.0
    FROM generate_series(1, 500) i;
INSERT INTO stamps (user_id, note) SELECT 1 + i % 500, '{"a": 1}' FROM generate_series(1, 2000) i;
INSERT INTO rewards (stamp_id, kind) SELECT i, 'coffee' FROM generate_series(1, 100) i;
INSERT INTO rewards (stamp_id, kind) VALUES (NULL, 'gift');
INSERT INTO notes SELECT i, 'body' || i FROM generate_series(1, 300) i;
INSERT INTO ticketed SELECT nextval('tickets') FROM generate_series(1, 10);
"""
CRITICAL = ("users", "public.stamps", "rewards")


def script(endpoint: Endpoint, *statements: str) -> None:
    """Run statements as the superuser, in public, with system tables open."""
    settings = {"search_path": "public", "allow_system_table_mods": "on"}
    with connect(endpoint, settings=settings) as session:
        for statement in statements:
            session.raw.execute(statement)  # type: ignore[arg-type]


@contextmanager
def running(server: Server, settings: dict[str, str]) -> Iterator[Server]:
    """Start a server, wait for it, and throw it away."""
    job = server.start(settings)
    try:
        server.wait_ready(job)
        yield server
    finally:
        server.kill(job)


def place(public_dir: Path, binaries: Binaries, name: str) -> Server:
    """Return a server in a new short folder, without a cluster."""
    home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=public_dir))
    home.chmod(0o755)
    binaries.own(home)
    return Server(binaries, home / "data", free_port(), home, "postgres", home / "logs")


@pytest.fixture(scope="session")
def template(public_dir: Path, binaries: Binaries) -> Iterator[Path]:
    """A stopped cluster with a clean database, to be copied."""
    server = place(public_dir, binaries, "tpl")
    server.initdb()
    with running(server, QUICK):
        # a template needs no [[databases]] table
        script(server.endpoint, "CREATE DATABASE clean IS_TEMPLATE true")
        script(server.endpoint.on("clean"), SCHEMA, "VACUUM ANALYZE")
        server.stop()
    yield server.data
    shutil.rmtree(server.data.parent)


def copied(template: Path, public_dir: Path, binaries: Binaries) -> Server:
    """Return a server on a copy of the template."""
    server = place(public_dir, binaries, "lab")
    shutil.copytree(template, server.data, symlinks=True)
    server.data.chmod(0o700)
    binaries.own(server.data)
    return server


@pytest.fixture(scope="module")
def lab(template: Path, public_dir: Path, binaries: Binaries) -> Iterator[Server]:
    """A running cluster in which each test gets a database of its own."""
    server = copied(template, public_dir, binaries)
    with running(server, QUICK):
        yield server
    shutil.rmtree(server.data.parent)


@pytest.fixture
def own_server(template: Path, public_dir: Path, binaries: Binaries) -> Iterator[Server]:
    """A stopped copy for one test to destroy."""
    server = copied(template, public_dir, binaries)
    yield server
    assert server.pid() is None
    shutil.rmtree(server.data.parent)


NewSubject = Callable[..., Subject]


@pytest.fixture
def subject_of(lab: Server) -> Iterator[NewSubject]:
    """Make a fresh database from the clean one and a subject that examines it."""
    made: list[str] = []

    def make(**fields: object) -> Subject:
        name = f"d{os.urandom(4).hex()}"
        script(lab.endpoint, f"CREATE DATABASE {name} TEMPLATE clean")
        made.append(name)
        own = {key: fields.pop(key) for key in ("sanity", "migrations", "checks") if key in fields}
        fields.setdefault("capture", capture(lab.endpoint))
        database = Database(name=name, critical_tables=CRITICAL, append_only_tables=("public.stamps",), **own)
        return examined(lab, database, **fields)

    yield make
    for name in made:
        script(lab.endpoint, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def examined(server: Server, *databases: Database, **fields: object) -> Subject:
    """Return a subject for a server."""
    ref = InstanceRef(
        run_id="r", name=str(server.data), host=str(server.sockets), port=server.port, user="postgres"
    )
    instance = RestoredInstance(
        ref=ref, backup_id="b", paused=False, stopped_at=None, last_commit_at=None, last_commit_xid=None,
        stop_reason="", timeline=None, seconds=1.0,
    )  # fmt: skip
    plain = Subject(
        step="s07.test", restored=server.endpoint, instance=instance, cluster=Cluster(), databases=databases,
        target=Target(kind=TargetKind.TIME, value="", at=datetime.now(UTC)),
    )  # fmt: skip
    return replace(plain, **fields)  # type: ignore[arg-type]


def home_of(subject: Subject) -> Endpoint:
    """Return the endpoint of the subject's only database."""
    return subject.restored.on(subject.databases[0].name)


def found(checks: tuple[Check, ...], start: str) -> Check:
    """Return the one check whose id starts so."""
    hits = [check for check in checks if check.id.startswith(start)]
    assert len(hits) == 1, [check.id for check in checks]
    return hits[0]


def verdicts(checks: tuple[Check, ...]) -> set[Verdict]:
    """Return the verdicts given."""
    return {check.verdict for check in checks}


def sum_of(endpoint: Endpoint, table: str, *, locate: bool = False, jobs: int = 1) -> TableSum:
    """Return rows and checksum of a table, as the one pass takes them."""
    with team(endpoint, jobs=jobs, settings=READING) as readers:
        return table_sums(readers, read_catalogue(readers.session), jobs=jobs, locate=locate)[table]


GREEN = {Verdict.PASS, Verdict.NOT_APPLICABLE}
