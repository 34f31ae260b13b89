"""Safety copies of a real production: proven, refused when they are not good, nothing left behind."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg import sql
from pydantic import TypeAdapter

from fixtures.command import JobRef, join
from fixtures.errors import StepError
from fixtures.postgres.server import Server
from fixtures.postgres.session import connect
from fixtures.production.dumps import prove_dump, start_dump, verify_dump
from fixtures.production.lock import close, position
from fixtures.production.physical import prove_physical, start_base_backup, start_file_copy, verify_physical
from fixtures.production.safety import SafetyCopy, prove_keep
from fixtures.production.state import cluster_of

CHEAP = {"fsync": "off", "listen_addresses": "", "autovacuum": "off"}
BOUND_S = 120.0


@dataclass
class World:
    """A locked production and where its copy goes."""

    server: Server
    home: Path
    databases: tuple[str, ...] = ("shop", "Odd name")

    @property
    def folder(self) -> Path:
        return self.home / "copy"

    def dump(self) -> tuple[JobRef, ...]:
        return start_dump(
            self.server.endpoint, databases=self.databases, folder=self.folder, binaries=self.server.binaries,
            jobs=2, job_folder=self.home / "jobs",
        )  # fmt: skip

    def prove(self, running: tuple[JobRef, ...]) -> SafetyCopy:
        return prove_dump(
            self.server.endpoint, databases=self.databases, folder=self.folder, running=running,
            binaries=self.server.binaries, jobs=2, scratch=self.home / "scratch", timeout_s=BOUND_S,
        )  # fmt: skip

    def leftovers(self) -> list[str]:
        scratch = self.home / "scratch"
        return [str(path) for path in scratch.rglob("*")] if scratch.exists() else []


@pytest.fixture
def world(new_server: Callable[..., Server]) -> World:
    """Two locked databases with tables, a policy for a role, a sequence and a large object."""
    server = new_server("keep")
    server.wait_ready(server.start(CHEAP))
    with connect(server.endpoint) as session:
        session.do("CREATE ROLE shop LOGIN")
        for name in ("shop", "Odd name"):
            session.do(sql.SQL("CREATE DATABASE {} OWNER shop").format(sql.Identifier(name)))
    with connect(server.endpoint.on("shop")) as session:
        session.do("CREATE TABLE public.stamps (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, note text)")
        session.do("INSERT INTO public.stamps (note) SELECT md5(g::text) FROM generate_series(1, 2000) g")
        session.do("CREATE POLICY own ON public.stamps TO shop USING (true)")
        session.do("ALTER TABLE public.stamps ENABLE ROW LEVEL SECURITY")
        session.do("SELECT lo_from_bytea(0, 'large')")
    with connect(server.endpoint.on("Odd name")) as session:
        session.do('CREATE TABLE public."T t" (id int)')
    close(server.endpoint, ["shop", "Odd name"], "shop")
    return World(server, server.sockets)


def test_a_dump_of_the_locked_production_is_proven(world: World) -> None:
    """It is made through the lock, restored, counted; it is private and no throwaway is left."""
    copy = world.prove(world.dump())

    assert (copy.tables, copy.rows) == (2, 2000)
    assert world.leftovers() == []
    assert world.folder.stat().st_mode & 0o777 == 0o700
    verify_dump(world.folder, databases=world.databases, binaries=world.server.binaries, whole=True)
    assert world.dump() == ()
    adapter = TypeAdapter(SafetyCopy)
    assert adapter.validate_json(adapter.dump_json(copy)) == copy


def test_a_tampered_dump_fails_its_proof(world: World) -> None:
    """A changed byte of data fails the restore; the dump is set aside and no throwaway is left."""
    running = world.dump()
    for job in running:
        join(job, timeout_s=BOUND_S, what="dump")
    data = max(world.folder.glob("shop.dump.partial/*.dat.gz"), key=lambda path: path.stat().st_size)
    body = bytearray(data.read_bytes())
    body[len(body) // 2] ^= 0xFF
    data.write_bytes(bytes(body))

    with pytest.raises(StepError, match="RB404"):
        world.prove(running)

    assert world.leftovers() == []
    assert (world.folder / "shop.dump.rejected-1").is_dir()
    assert world.prove(world.dump()).rows == 2000


def test_a_dump_that_lacks_rows_fails_its_proof(world: World) -> None:
    """Rows that appear after the dump show as a difference between the two counts."""
    running = world.dump()
    for job in running:
        join(job, timeout_s=BOUND_S, what="dump")
    with connect(
        world.server.endpoint.on("shop"), settings={"default_transaction_read_only": "off"}
    ) as session:
        session.do("INSERT INTO public.stamps (note) VALUES ('late')")

    with pytest.raises(StepError, match="differs from production in 2 places"):
        world.prove(running)

    assert world.leftovers() == []


def test_a_proven_dump_that_changes_later_is_found(world: World) -> None:
    """A missing file is found by sizes, a changed one of equal size by checksums."""
    world.prove(world.dump())
    data = max(world.folder.glob("shop.dump/*.dat.gz"), key=lambda path: path.stat().st_size)
    body = data.read_bytes()

    data.write_bytes(bytes([body[0] ^ 1]) + body[1:])
    verify_dump(world.folder, databases=world.databases, binaries=world.server.binaries)
    with pytest.raises(StepError, match="not as they were proven"):
        verify_dump(world.folder, databases=world.databases, binaries=world.server.binaries, whole=True)
    data.unlink()
    with pytest.raises(StepError, match="not as they were proven"):
        verify_dump(world.folder, databases=world.databases, binaries=world.server.binaries)


def test_an_unreadable_table_is_named(world: World) -> None:
    """A damaged production has no proven dump, and the table is in the message."""
    with connect(world.server.endpoint.on("shop")) as session:
        path = world.server.data / session.value("SELECT pg_relation_filepath('public.stamps')")
    world.server.stop()
    body = bytearray(path.read_bytes())
    body[2000:2100] = os.urandom(100)
    path.write_bytes(bytes(body))
    world.server.wait_ready(world.server.start(CHEAP, name="again"))

    with pytest.raises(StepError, match="RB404") as error:
        world.prove(world.dump())

    assert "stamps" in error.value.block()
    assert world.leftovers() == []


def test_a_base_backup_is_proven_to_reach_the_lock(world: World) -> None:
    """Its own manifest is checked, and a copy that ends before the lock is refused."""
    lock = position(world.server.endpoint)
    identifier = cluster_of(world.server.endpoint).system_identifier
    arguments = {"folder": world.folder, "binaries": world.server.binaries}
    running = start_base_backup(world.server.endpoint, job_folder=world.home / "jobs", **arguments)
    facts = {
        **arguments,
        "running": running,
        "databases": world.databases,
        "original": None,
        "timeout_s": BOUND_S,
    }

    with pytest.raises(StepError, match="is of cluster"):
        prove_physical(**facts, system_identifier="1", lock_lsn=lock)
    copy = prove_physical(**facts, system_identifier=identifier, lock_lsn=lock)
    verify_physical(copy, binaries=world.server.binaries)

    beyond = type(lock)(lock.value + 2**30)
    with pytest.raises(StepError, match="before the lock"):
        prove_physical(**facts, system_identifier=identifier, lock_lsn=beyond)
    (world.folder / "data" / "PG_VERSION").unlink()
    with pytest.raises(StepError, match="RB404"):
        verify_physical(copy, binaries=world.server.binaries)


def test_a_copy_of_a_stopped_production_is_compared_with_it(world: World) -> None:
    """A running server's files are never copied plainly; a stopped one's are, log included, write-protected or not."""
    arguments = {"folder": world.folder, "binaries": world.server.binaries}
    identifier = cluster_of(world.server.endpoint).system_identifier
    with pytest.raises(StepError, match="a server runs"):
        start_file_copy(world.server.data, job_folder=world.home / "jobs", **arguments)
    world.server.stop(mode="immediate")
    world.server.data.chmod(0o500)  # by its fence

    running = start_file_copy(world.server.data, job_folder=world.home / "jobs", **arguments)
    facts = {
        **arguments, "running": running, "databases": world.databases, "original": world.server.data,
        "timeout_s": BOUND_S, "system_identifier": identifier, "lock_lsn": None,
    }  # fmt: skip
    copy = prove_physical(**facts)

    verify_physical(copy, binaries=world.server.binaries)
    world.server.data.chmod(0o700)
    assert copy.facts["cluster state"] == "in production"
    assert (world.folder / "data").stat().st_mode & 0o777 == 0o700, "its owner can neither open nor remove it"
    next((world.folder / "data/base").rglob("1259")).unlink()
    with pytest.raises(StepError, match="not as in the original"):
        prove_physical(**facts)


def test_the_original_is_a_safety_copy_only_when_fenced_up_to_the_lock(world: World) -> None:
    """Running: the lock and the flushed log. Crashed: the fence and a readable log."""
    lock = position(world.server.endpoint)
    facts = {
        "databases": world.databases, "app_role": "shop", "data_directory": world.server.data,
        "binaries": world.server.binaries,
    }  # fmt: skip
    with connect(world.server.endpoint) as session:
        session.do("CHECKPOINT")

    prove_keep(**facts, endpoint=world.server.endpoint, lock_lsn=lock)
    with pytest.raises(StepError, match="not to the lock"):
        prove_keep(**facts, endpoint=world.server.endpoint, lock_lsn=type(lock)(lock.value + 2**30))
    with connect(world.server.endpoint, settings={"default_transaction_read_only": "off"}) as session:
        session.do("ALTER ROLE shop LOGIN")
    with pytest.raises(StepError, match="not fenced"):
        prove_keep(**facts, endpoint=world.server.endpoint, lock_lsn=lock)

    world.server.stop(mode="immediate")
    with pytest.raises(StepError, match="cannot be proven"):
        prove_keep(**facts, endpoint=None, lock_lsn=lock)
    prove_keep(**facts, endpoint=None, lock_lsn=lock, positively_fenced=True)
    with pytest.raises(StepError, match="cannot be read"):
        prove_keep(**facts, endpoint=None, lock_lsn=type(lock)(lock.value + 2**30), positively_fenced=True)
