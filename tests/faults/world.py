"""
A rich production, restored once by the basebackup provider; each fault gets a copy of the result.

Production goes on after the target, rightly and wrongly, as in an incident: what differs for that
reason alone must raise no alarm.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from fixtures.checks import GROUPS, Subject, TableChange, take_references
from fixtures.command import end_job, run, wait_for
from fixtures.evidence import Check, Verdict
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.names import parted
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import Endpoint, connect
from fixtures.production.capture import capture, sequence_high_water
from fixtures.production.pack import snapshot_of
from fixtures.production.state import cluster_of
from fixtures.providers.base import Capture, Cluster, RestoredInstance, Site, Target, TargetKind
from fixtures.providers.basebackup.backend import BaseBackupDirectory
from fixtures.settings import BaseBackupProvider, Database

if TYPE_CHECKING:
    from tests.faults.fault import Fault

SETTINGS = {
    "fsync": "off", "shared_buffers": "16MB", "max_prepared_transactions": "4", "listen_addresses": "",
    "autovacuum": "off", "track_commit_timestamp": "on",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """
    What a production is made of, and what becomes of it.

    Attributes:
        databases: as configured; statements run in this order.
        cluster: statements that make roles and databases.
        inside: database -> statements before the base backup.
        first: database -> statements of the first commits behind it.
        before, after: database -> statements before and after the target.
        changes: what the runbook reads of the latter from the log.
    """

    databases: tuple[Database, ...]
    cluster: tuple[str, ...]
    inside: Mapping[str, tuple[str, ...]]
    first: Mapping[str, tuple[str, ...]]
    before: Mapping[str, tuple[str, ...]]
    after: Mapping[str, tuple[str, ...]]
    changes: tuple[TableChange, ...] = ()

    @property
    def names(self) -> list[str]:
        """Names of the databases."""
        return [each.name for each in self.databases]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """
    A stopped, promoted copy.

    Attributes:
        data: its data directory.
        instance: as the provider described it at its target.
        snapshot: transactions applied at its target.
        paths: name of every relation of the first database -> its file.
    """

    data: Path
    instance: RestoredInstance
    snapshot: str
    paths: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """
    Production after its damage, and copies restored from its backup.

    Attributes:
        home: folder of everything.
        story: what production is made of.
        production: running, and never written to again.
        targets: "right" is the moment before the damage, "early" another one before it, "late" after it.
        copies: made once each, by the name of their target.
    """

    home: Path
    story: Story
    production: Server
    archive: Path
    base_backups: Path
    targets: dict[str, Target]
    cluster: Cluster
    capture: Capture
    high_water: dict[str, int]
    copies: dict[str, Restored] = field(default_factory=dict)

    def restored(self, name: str) -> Restored:
        """Return the copy restored to a target."""
        if name not in self.copies:
            self.copies[name] = _restore(self, name)
        return self.copies[name]


@contextmanager
def incident(public_dir: Path, binaries: Binaries, story: Story) -> Iterator[World]:
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
        targets = _told(production, base_backups, story)
        yield World(
            home=home, story=story, production=production, archive=archive, base_backups=base_backups, targets=targets,
            cluster=cluster_of(production.endpoint), capture=capture(production.endpoint),
            high_water=sequence_high_water(production.endpoint, story.names),
        )  # fmt: skip
    finally:
        end_job(job)


def _told(production: Server, base_backups: Path, story: Story) -> dict[str, Target]:
    targets: dict[str, Target] = {}

    def now(name: str) -> None:
        with connect(production.endpoint) as session:
            at: datetime = session.value("SELECT clock_timestamp()")
        targets[name] = Target(kind=TargetKind.TIME, value=at.isoformat(), at=at)

    def tell(part: Mapping[str, tuple[str, ...]]) -> None:
        for name in story.names:
            script(production.endpoint.on(name), part.get(name, ()))

    script(production.endpoint, story.cluster)
    tell(story.inside)
    tool = production.binaries.tool("pg_basebackup")
    run(
        [tool, "-h", production.sockets, "-p", str(production.port), "-U", "postgres", "-D", base_backups / "full",
         "-c", "fast", "-X", "none"],
        timeout_s=60, user=production.binaries.user,
    )  # fmt: skip
    tell(story.first)
    now("early")
    tell(story.before)
    now("right")
    tell(story.after)
    now("late")
    with connect(production.endpoint) as session:
        session.do("CREATE ROLE closes_the_log")
        last = session.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
        session.do("SELECT pg_switch_wal()")
        wait_for(
            lambda: session.value("SELECT last_archived_wal FROM pg_stat_archiver") >= last,
            timeout_s=30, what="the archiver is done",
        )  # fmt: skip
    return targets


def _restore(world: World, name: str) -> Restored:
    production = world.production
    sockets = Path(tempfile.mkdtemp(prefix="s", dir=world.home))
    production.binaries.own(sockets)
    site = Site(
        run_id=name, directory=world.home / "restored", host="127.0.0.1", port=free_port(), sockets=sockets,
        logs=world.home / "logs" / name, binaries=production.binaries, cluster=world.cluster, timeout_s=60,
    )  # fmt: skip
    settings = BaseBackupProvider(base_backups=world.base_backups, archive=world.archive)
    backend = BaseBackupDirectory(settings, site)
    plan = backend.plan(world.targets[name])
    instance = backend.start(plan, lambda _: None)
    snapshot = snapshot_of(instance.ref.endpoint)
    backend.promote(instance.ref)
    _raise_sequences(instance.ref.endpoint, world.high_water)
    with connect(instance.ref.endpoint.on(world.story.names[0])) as session:
        paths = dict(session.rows(_PATHS))
    data = Path(instance.ref.name)
    Server(production.binaries, data, instance.ref.port, sockets, "postgres", world.home / "logs").stop()
    return Restored(data=data, instance=instance, snapshot=snapshot, paths=paths)


_PATHS = """
SELECT relname::text, pg_relation_filepath(oid) FROM pg_class WHERE relkind IN ('r', 'i', 't', 'S', 'm')
UNION ALL
SELECT 'toast of ' || relname, pg_relation_filepath(reltoastrelid) FROM pg_class WHERE reltoastrelid <> 0
"""


def _raise_sequences(endpoint: Endpoint, high_water: Mapping[str, int]) -> None:
    """As step 6 does."""
    for name, value in high_water.items():
        database, schema, sequence = parted(name)
        with connect(endpoint.on(database), settings={"default_transaction_read_only": "off"}) as session:
            session.do(_RAISE, (value, value, sql.Identifier(schema, sequence).as_string()))


_RAISE = """
SELECT setval(seqrelid::regclass, CASE WHEN seqincrement > 0 THEN greatest(%s, pg_sequence_last_value(seqrelid))
    ELSE least(%s, pg_sequence_last_value(seqrelid)) END) FROM pg_sequence WHERE seqrelid = %s::regclass
"""


def script(endpoint: Endpoint, statements: tuple[str, ...] | list[str]) -> None:
    """Run statements as the superuser, in public, with system tables open, whatever a restore left behind."""
    if not statements:
        return
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
        restored: what it is a copy of.
        server: where it is.
        fields: changes of the subject.
        kept: connections that are closed behind it.
    """

    world: World
    restored: Restored
    server: Server
    fields: dict[str, Any] = field(default_factory=dict)
    kept: list["psycopg.Connection[Any]"] = field(default_factory=list)

    def sql(self, *statements: str, database: str = "shop") -> None:
        """Run statements in it."""
        script(self.server.endpoint.on(database), statements)

    def subject(self) -> Subject:
        """Return what the checks are given."""
        world, restored = self.world, self.restored
        ref = replace(
            restored.instance.ref,
            name=str(self.server.data),
            host=str(self.server.sockets),
            port=self.server.port,
        )
        plain = Subject(
            step="s07.test", restored=ref.endpoint, instance=replace(restored.instance, ref=ref),
            target=world.targets["right"],
            cluster=world.cluster, databases=world.story.databases, production=world.production.endpoint, capture=world.capture,
            discarded=world.story.changes, high_water=world.high_water, snapshot=restored.snapshot, wal_folders=(world.archive,),
            binaries=self.server.binaries,
        )  # fmt: skip
        return replace(plain, **self.fields)


@contextmanager
def copy_of(world: World, target: str = "right") -> Iterator[Copy]:
    """Give one fault a stopped copy of its own."""
    restored = world.restored(target)
    home = Path(tempfile.mkdtemp(prefix="c", dir=world.home))
    home.chmod(0o755)
    run(["cp", "-a", "--reflink=auto", restored.data, home / "data"], timeout_s=60)
    binaries = world.production.binaries
    binaries.own(home)
    # as a commissioned copy's: a fault may make a tablespace
    (home / "data" / "pg_tblspc").chmod(0o700)
    yield Copy(world, restored, Server(binaries, home / "data", free_port(), home, "postgres", home / "logs"))
    shutil.rmtree(home)


@contextmanager
def started(copy: Copy, settings: Mapping[str, str] | None = None) -> Iterator[Endpoint]:
    """Run it for a while; it stops cleanly."""
    own = {f"{name}_file": str(copy.server.data / f"pg_{name}.conf") for name in ("hba", "ident")}
    job = copy.server.start({**SETTINGS, **own, **(settings or {})})
    try:
        copy.server.wait_ready(job)
        yield copy.server.endpoint
        for connection in copy.kept:
            connection.close()
        copy.server.stop()
    finally:
        end_job(job)


def examined(subject: Subject, *, stops: bool = False) -> dict[str, Check]:
    """
    Ask every group; return answers by id.

    Args:
        stops: end with the first group that stops the run, as a run does.
    """
    found: dict[str, Check] = {}
    for group in GROUPS.values():
        answers = group(subject)
        found.update({check.id: check for check in answers})
        assert len({check.id for check in answers}) == len(answers), "an id stands for two answers"
        if stops and any(check.stops for check in answers):
            break
    return found


#: says that no checker exists for a kind of index: an honest gap of the clean copy, too
GAPS = ("physical.indexes:", "physical.other_indexes:")
#: a check that met damage or a missing file instead of an answer
UNREAD = re.compile(r"SQLSTATE (XX|58)")


def fired(checks: Mapping[str, Check], *, unreadable: bool = False) -> dict[str, str]:
    """
    Return the checks that are not green, with their verdicts; honest gaps apart.

    Args:
        unreadable: leave out those that say they could not read.
    """
    quiet = {Verdict.PASS, Verdict.NOT_APPLICABLE, Verdict.NOT_CONFIGURED}
    return {
        name: check.verdict.value
        for name, check in checks.items()
        if check.verdict not in quiet
        and not name.startswith(GAPS)
        and not (unreadable and check.verdict is Verdict.COULD_NOT_VERIFY and UNREAD.search(check.reason))
    }


@contextmanager
def faulty(copy: Copy, fault: "Fault", *, references: bool = True) -> Iterator[None]:
    """Do a fault to a copy, in the order of a run, and let it run."""

    def taken(*, late: bool) -> None:
        if references and late is fault.late:
            copy.fields["references"] = take_references(copy.server.endpoint, copy.world.story.databases)

    if fault.offline is not None:
        with started(copy):
            taken(late=True)
            copy.sql(*fault.sql, database=fault.database)
        fault.offline(copy)
    with started(copy, fault.settings):
        if fault.offline is None:
            taken(late=True)
            copy.sql(*fault.sql, database=fault.database)
        if fault.online is not None:
            fault.online(copy)
        taken(late=False)
        yield


def done(copy: Copy, fault: "Fault") -> dict[str, Check]:
    """Do a fault to a copy and ask every check."""
    with faulty(copy, fault):
        return examined(copy.subject(), stops=fault.stops)


def seen(world: World, fault: "Fault") -> dict[str, str]:
    """Do a fault to a copy of its own; return the checks that see it, with their verdicts."""
    with copy_of(world, fault.target) as copy:
        return fired(done(copy, fault), unreadable=fault.unreadable)
