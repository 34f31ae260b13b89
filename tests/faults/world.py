"""
A rich production, restored once by the basebackup provider; each fault gets a copy of the result.

Production goes on after the target, rightly and wrongly, as in an incident: what differs for that
reason alone must raise no alarm.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures.checks import GROUPS, Subject, take_references
from fixtures.command import end_job, run, wait_for
from fixtures.evidence import Check, Verdict
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import Endpoint, connect
from fixtures.production.capture import capture, sequence_high_water
from fixtures.production.pack import snapshot_of
from fixtures.production.state import cluster_of
from fixtures.providers.base import Capture, Cluster, RestoredInstance, Site, Target, TargetKind
from fixtures.providers.basebackup.backend import BaseBackupDirectory
from fixtures.settings import BaseBackupProvider, Database, Heartbeat
from tests.faults import schema

if TYPE_CHECKING:
    from tests.faults.fault import Fault

SETTINGS = {
    "fsync": "off", "shared_buffers": "16MB", "max_prepared_transactions": "4", "listen_addresses": "",
    "autovacuum": "off", "track_commit_timestamp": "on",
}  # fmt: skip
DATABASES = (
    Database(
        name="shop", critical_tables=schema.CRITICAL, append_only_tables=("public.stamps",),
        heartbeat=Heartbeat(table="public.heartbeat"), sanity=schema.SANITY,
    ),
    Database(name="ledger", critical_tables=("public.entries",)),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """
    Production after its damage, and a stopped copy restored to the moment before.

    Attributes:
        home: folder of everything.
        production: running, and never written to again.
        restored: data directory of the stopped, promoted copy.
        instance: as the provider described it at the target.
        snapshot: transactions applied at the target.
    """

    home: Path
    production: Server
    archive: Path
    base_backups: Path
    restored: Path
    instance: RestoredInstance
    target: Target
    cluster: Cluster
    capture: Capture
    high_water: dict[str, int]
    snapshot: str


@contextmanager
def incident(public_dir: Path, binaries: Binaries) -> Iterator[World]:
    """Make the world; production is ended at the end."""
    home = Path(tempfile.mkdtemp(prefix="f", dir=public_dir))
    home.chmod(0o755)
    archive, base_backups = home / "archive", home / "base"
    for folder in (archive, base_backups):
        folder.mkdir()
    binaries.own(home)
    production = Server(binaries, home / "data", free_port(), home, "postgres", home / "logs")
    production.initdb("--wal-segsize=1")
    archiving = {"archive_mode": "on", "archive_command": f"test ! -f {archive}/%f && cp %p {archive}/%f"}
    with (production.data / "pg_hba.conf").open("a") as rules:
        rules.write("host shop app 10.0.0.0/8 scram-sha-256\n")
    job = production.start({**SETTINGS, **archiving})
    try:
        production.wait_ready(job)
        target = _story(production, base_backups)
        yield _restored(production, home, archive, base_backups, target)
    finally:
        end_job(job)


def _story(production: Server, base_backups: Path) -> Target:
    script(production.endpoint, schema.CLUSTER)
    for name in ("shop", "ledger"):
        script(production.endpoint.on(name), schema.DATABASE[name])
    tool = production.binaries.tool("pg_basebackup")
    run(
        [tool, "-h", production.sockets, "-p", str(production.port), "-U", "postgres", "-D", base_backups / "full",
         "-c", "fast", "-X", "none"],
        timeout_s=60, user=production.binaries.user,
    )  # fmt: skip
    for name in ("shop", "ledger"):
        script(production.endpoint.on(name), schema.BEFORE_TARGET[name])
    with connect(production.endpoint.on("shop")) as session:
        at: datetime = session.value("SELECT clock_timestamp()")
    for name in ("shop", "ledger"):
        script(production.endpoint.on(name), schema.AFTER_TARGET[name])
    with connect(production.endpoint) as session:
        last = session.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
        session.do("SELECT pg_switch_wal()")
        wait_for(
            lambda: session.value("SELECT last_archived_wal FROM pg_stat_archiver") >= last,
            timeout_s=30, what="the archiver is done",
        )  # fmt: skip
    return Target(kind=TargetKind.TIME, value=at.isoformat(), at=at)


def _restored(production: Server, home: Path, archive: Path, base_backups: Path, target: Target) -> World:
    cluster = cluster_of(production.endpoint)
    sockets = Path(tempfile.mkdtemp(prefix="s", dir=home))
    production.binaries.own(sockets)
    site = Site(
        run_id="corpus", directory=home / "restored", host="127.0.0.1", port=free_port(), sockets=sockets,
        logs=home / "logs" / "corpus", binaries=production.binaries, cluster=cluster, timeout_s=60,
    )  # fmt: skip
    backend = BaseBackupDirectory(BaseBackupProvider(base_backups=base_backups, archive=archive), site)
    plan = backend.plan(target)
    instance = backend.start(plan, lambda _: None)
    snapshot = snapshot_of(instance.ref.endpoint)
    backend.promote(instance.ref)
    names = [each.name for each in DATABASES]
    high_water = sequence_high_water(production.endpoint, names)
    _raise_sequences(instance.ref.endpoint, high_water)
    data = Path(instance.ref.name)
    Server(production.binaries, data, instance.ref.port, sockets, "postgres", home / "logs").stop()
    return World(
        home=home, production=production, archive=archive, base_backups=base_backups, restored=data,
        instance=instance, target=target, cluster=cluster, capture=capture(production.endpoint),
        high_water=high_water, snapshot=snapshot,
    )  # fmt: skip


def _raise_sequences(endpoint: Endpoint, high_water: Mapping[str, int]) -> None:
    """As step 6 does."""
    for name, value in high_water.items():
        database, _, sequence = name.partition(".")
        with connect(endpoint.on(database)) as session:
            session.do("SELECT setval(%s::regclass, greatest(%s, pg_sequence_last_value(%s::regclass)))",
                       (sequence, value, sequence))  # fmt: skip


def script(endpoint: Endpoint, statements: tuple[str, ...] | list[str]) -> None:
    """Run statements as the superuser, in public, with system tables open, whatever a restore left behind."""
    settings = {
        "search_path": "public", "allow_system_table_mods": "on", "default_transaction_read_only": "off",
    }  # fmt: skip
    with connect(endpoint, settings=settings) as session:
        for statement in statements:
            session.raw.execute(statement)  # type: ignore[call-overload]


@dataclass(slots=True)
class Copy:
    """
    One copy of the restored cluster, for one fault.

    Attributes:
        server: where it is.
        settings: for its command line.
        fields: changes of the subject.
    """

    world: World
    server: Server
    settings: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)

    def sql(self, *statements: str, database: str = "shop") -> None:
        """Run statements in it."""
        script(self.server.endpoint.on(database), statements)

    def subject(self) -> Subject:
        """Return what the checks are given."""
        world = self.world
        ref = replace(
            world.instance.ref,
            name=str(self.server.data),
            host=str(self.server.sockets),
            port=self.server.port,
        )
        plain = Subject(
            step="s07.test", restored=ref.endpoint, instance=replace(world.instance, ref=ref), target=world.target,
            cluster=world.cluster, databases=DATABASES, production=world.production.endpoint, capture=world.capture,
            discarded=schema.CHANGES, high_water=world.high_water, snapshot=world.snapshot, wal_folders=(world.archive,),
            binaries=self.server.binaries,
        )  # fmt: skip
        return replace(plain, **self.fields)


@contextmanager
def copy_of(world: World) -> Iterator[Copy]:
    """Give one fault a stopped copy of its own."""
    home = Path(tempfile.mkdtemp(prefix="c", dir=world.home))
    home.chmod(0o755)
    run(["cp", "-a", "--reflink=auto", world.restored, home / "data"], timeout_s=60)
    binaries = world.production.binaries
    binaries.own(home)
    yield Copy(world, Server(binaries, home / "data", free_port(), home, "postgres", home / "logs"))
    shutil.rmtree(home)


@contextmanager
def started(copy: Copy, settings: Mapping[str, str] | None = None) -> Iterator[Endpoint]:
    """Run it for a while; it stops cleanly."""
    job = copy.server.start({**SETTINGS, **copy.settings, **(settings or {})})
    try:
        copy.server.wait_ready(job)
        yield copy.server.endpoint
        copy.server.stop()
    finally:
        end_job(job)


def examined(subject: Subject) -> dict[str, Check]:
    """Ask every group; return answers by id."""
    answers = [check for group in GROUPS.values() for check in group(subject)]
    found = {check.id: check for check in answers}
    assert len(found) == len(answers), "two checks have one id"
    return found


#: says that no checker exists for a kind of index: an honest gap of the clean copy, too
GAP = ("physical.indexes:", "physical.other_indexes:")


def fired(checks: Mapping[str, Check]) -> dict[str, str]:
    """Return the checks that are not green, with their verdicts; honest gaps apart."""
    quiet = {Verdict.PASS, Verdict.NOT_APPLICABLE, Verdict.NOT_CONFIGURED}
    return {
        name: check.verdict.value
        for name, check in checks.items()
        if check.verdict not in quiet and not name.startswith(GAP)
    }


def references_of(copy: Copy) -> None:
    """Take references, as step 5 does right after recovery."""
    copy.fields["references"] = take_references(copy.server.endpoint, DATABASES)


def done(copy: Copy, fault: "Fault") -> dict[str, Check]:
    """Do a fault to a copy and ask every check, in the order of a run."""
    if fault.online is not None and fault.offline is not None:
        with started(copy):
            fault.online(copy)
    if fault.offline is not None:
        fault.offline(copy)
    with started(copy, fault.settings):
        if fault.late:
            references_of(copy)
        if fault.online is not None and fault.offline is None:
            fault.online(copy)
        copy.sql(*fault.sql, database=fault.database)
        if not fault.late:
            references_of(copy)
        return examined(copy.subject())
