"""The provider `dump`: what a set holds comes back, whatever is wrong with one is refused, nothing is rounded."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import boto3
import pytest
from psycopg import Connection

from fixtures.checks import content, identity, moment, privileges, structure
from fixtures.checks.subject import Subject, TableChange
from fixtures.command import end_job, find_job, find_tool, run, start_ticks, wait_for
from fixtures.errors import ProviderError, UnsupportedError
from fixtures.evidence import Check, Verdict
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.lsn import Lsn
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import Endpoint, connect
from fixtures.production.discarded import discarded_window
from fixtures.production.pack import snapshot_of, write_pack
from fixtures.progress import Tick
from fixtures.providers.base import Cluster, RestoredInstance, Site, Target, TargetKind
from fixtures.providers.dump.backend import DumpSets
from fixtures.providers.dump.record import parse_record
from fixtures.providers.dump.sets import DumpSet
from fixtures.providers.local.instance import Instance
from fixtures.settings import Database, DumpProvider, Heartbeat, ObjectUrl, S3Access
from tests.real.dump_lab import take_set
from tests.real.s3_server import BUCKET, KEY, READER, READER_SECRET, S3, SECRET, s3_server
from tests.real.session_tokens import Issued, SessionTokens, session_tokens

NAMES = ("shop", "ledger")
SHOP = (
    "CREATE TABLE public.heartbeat (at timestamptz PRIMARY KEY)",
    "INSERT INTO public.heartbeat SELECT now() - g * interval '1 s' FROM generate_series(0, 20) g",
    "CREATE TYPE public.mood AS ENUM ('fine', 'less so')",
    "CREATE DOMAIN public.cents AS int CHECK (VALUE >= 0)",
    "CREATE TABLE public.parts (id int GENERATED ALWAYS AS IDENTITY, at date, price public.cents, how public.mood) PARTITION BY RANGE (at)",
    "CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM ('2026-01-01') TO ('2026-07-01')",
    "INSERT INTO public.parts (at, price, how) SELECT DATE '2026-01-01' + g, g, 'fine' FROM generate_series(1, 99) g",
    "CREATE SEQUENCE public.numbers START 1000 INCREMENT 7",
    "SELECT nextval('public.numbers')",
    "CREATE MATERIALIZED VIEW public.totals AS SELECT how, sum(price) FROM public.parts GROUP BY how",
    "CREATE STATISTICS public.both ON at, price FROM public.parts_1",
    "CREATE FUNCTION public.late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
    "CREATE TRIGGER late BEFORE INSERT ON public.heartbeat FOR EACH ROW EXECUTE FUNCTION public.late()",
    "ALTER TABLE public.heartbeat ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY mine ON public.heartbeat TO app USING (true)",
    "COMMENT ON TABLE public.parts IS 'with ''quotes'' and \\ and\nCREATE ROLE postgres;\n'",
    "GRANT SELECT (at) ON public.parts TO reporting WITH GRANT OPTION",
    "ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA public GRANT SELECT ON TABLES TO reporting",
    "ALTER TABLE public.parts OWNER TO app",
    "SELECT lo_from_bytea(4711, 'a large object')",
    "GRANT SELECT ON LARGE OBJECT 4711 TO reporting",
    "COMMENT ON LARGE OBJECT 4711 IS 'the contract'",
    "CREATE PUBLICATION news FOR TABLE public.heartbeat",
    "CREATE SUBSCRIPTION feed CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false, slot_name = 'feed')",
    "ALTER DATABASE shop SET work_mem = '7MB'",
    "ALTER ROLE app IN DATABASE shop SET lock_timeout = '3s'",
    "ANALYZE",
)
LEDGER = (
    "CREATE TABLE public.entries (id int PRIMARY KEY, name text)",
    "INSERT INTO public.entries SELECT g, 'Zoë' FROM generate_series(1, 3000) g",
    "GRANT ALL ON public.entries TO app",
)
ROLES = (
    "CREATE ROLE reporting",
    "CREATE ROLE app LOGIN PASSWORD 'open sesame' CONNECTION LIMIT 9",
    "ALTER ROLE app SET statement_timeout = '1min'",
    "COMMENT ON ROLE app IS 'the application'",
    "GRANT reporting TO app WITH ADMIN OPTION",
    "CREATE DATABASE shop OWNER app TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",
    "CREATE DATABASE ledger TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
)


@dataclass(frozen=True, kw_only=True)
class Shop:
    """Production, the place of its sets, and two sets of it: one in each format."""

    home: Path
    server: Server
    sets: Path
    identifier: str

    @property
    def names(self) -> list[str]:
        """The sets, oldest first."""
        return sorted(path.name for path in self.sets.iterdir())

    def provider(
        self,
        run_id: str,
        location: Path | ObjectUrl | None = None,
        *,
        s3: S3Access | None = None,
        binaries: Binaries | None = None,
        **cluster: object,
    ) -> DumpSets:
        """Return a provider for a run of its own."""
        facts = {
            "system_identifier": self.identifier, "major": self.server.binaries.major,
            "data_directory": str(self.server.data), "port": self.server.port, **cluster,
        }  # fmt: skip
        sockets = Path(tempfile.mkdtemp(prefix="s", dir=self.home))
        self.server.binaries.own(sockets)
        site = Site(
            run_id=run_id, directory=self.home / "restored", host="127.0.0.1", port=free_port(), sockets=sockets,
            logs=self.home / "logs" / run_id, binaries=binaries or self.server.binaries, cluster=Cluster(**facts),
            timeout_s=120, databases=NAMES,
        )  # fmt: skip
        return DumpSets(DumpProvider(location=location or self.sets, jobs=2, s3=s3 or S3Access()), site)

    def clone(self, name: str) -> Path:
        """Copy the sets, for a test that harms them; return the folder."""
        place = self.home / name
        shutil.copytree(self.sets, place)
        return place


@pytest.fixture(scope="module")
def shop(public_dir: Path, binaries: Binaries) -> Iterator[Shop]:
    """Production with a little of everything that a dump can hold, and two sets of it."""
    home = Path(tempfile.mkdtemp(prefix="d", dir=public_dir))
    home.chmod(0o755)
    place = home / "production"
    place.mkdir()
    binaries.own(place)
    server = Server(binaries, place / "data", free_port(), place, "postgres", place / "logs")
    server.initdb("--no-sync", "--wal-segsize=1", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    with (server.data / "postgresql.conf").open("a") as conf:
        conf.write(
            "listen_addresses = ''\nfsync = off\nwal_level = logical\nwal_keep_size = '1GB'\n"
            "track_commit_timestamp = on\nmax_logical_replication_workers = 0\n"
        )
    job = server.start()
    try:
        server.wait_ready(job)
        with connect(server.endpoint) as session:
            for statement in ROLES:
                session.do(statement)
            identifier = str(session.value("SELECT system_identifier FROM pg_control_system()"))
        for name, statements in (("shop", SHOP), ("ledger", LEDGER)):
            with connect(server.endpoint.on(name)) as session:
                for statement in statements:
                    session.do(statement)
        sets = home / "sets"
        sets.mkdir()
        take_set(server, sets, *NAMES, DUMP_FORMAT="custom")
        take_set(server, sets, *NAMES)
        yield Shop(home=home, server=server, sets=sets, identifier=identifier)
    finally:
        end_job(job)


@pytest.fixture(scope="module")
def copy(shop: Shop) -> Iterator[RestoredInstance]:
    """A copy of the newest set, for claims that change nothing."""
    provider = shop.provider("shared")
    plan = provider.plan(LATEST)
    yield provider.start(plan, quiet)
    provider.discard(plan.instance)


LATEST = Target(kind=TargetKind.LATEST)
BEAT = Heartbeat(table="public.heartbeat", column="at", interval=timedelta(seconds=1))


def quiet(_: Tick) -> None:
    """Take progress and say nothing."""


def snapshot(name: str) -> Target:
    """A set by name."""
    return Target(kind=TargetKind.SNAPSHOT, value=name)


def everything(server: Server, endpoint: Endpoint) -> str:
    """All that pg_dumpall can print of a cluster, with the contents."""
    argv = [
        server.binaries.tool("pg_dumpall"), "-h", endpoint.host, "-p", str(endpoint.port), "-U", "postgres",
        "--restrict-key=same", "--exclude-database=template1",
    ]  # fmt: skip
    return run(argv, timeout_s=60).stdout


def refused(provider: DumpSets, target: Target, *, lock_lsn: Lsn | None = None) -> str:
    """What a target is refused with, as a person reads it."""
    (finding,) = provider.check(target, lock_lsn=lock_lsn)
    return f"{finding.code} {finding.fact} | {finding.where} | {'; '.join(finding.hints)}"


def rewrite(folder: Path, **cluster: object) -> None:
    """Change facts of a set's record."""
    record = json.loads((folder / "set.json").read_text())
    record["cluster"].update(cluster)
    (folder / "set.json").write_text(json.dumps(record))


def sign(folder: Path) -> None:
    """Make a set's record agree with the files as they are now."""
    record = json.loads((folder / "set.json").read_text())
    for file in record["files"]:
        content = (folder / file["path"]).read_bytes()
        file |= {"size_bytes": len(content), "sha256": sha256(content).hexdigest()}
    (folder / "set.json").write_text(json.dumps(record))


# -- what comes back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1], ids=["custom", "directory"])
def test_everything_a_dump_holds_comes_back(shop: Shop, number: int) -> None:
    """All that pg_dumpall prints of production, it prints of the copy; in the cluster's own encodings."""
    provider = shop.provider(f"all-{number}")
    plan = provider.plan(snapshot(shop.names[number]))
    ticks: list[Tick] = []
    try:
        restored = provider.start(plan, ticks.append)

        assert everything(shop.server, restored.ref.endpoint) == everything(shop.server, shop.server.endpoint)
        with connect(restored.ref.endpoint.on("shop")) as session:
            assert session.value("SELECT lo_get(4711)") == b"a large object"
            assert session.value("SELECT count(*) FROM pg_stats WHERE schemaname = 'public'") > 0
            assert session.value("SELECT count(*) FROM pg_statistic_ext_data") > 0
            assert session.value("SELECT current_setting('data_checksums')") == "on"
            assert session.value("SELECT current_setting('wal_segment_size')") == "1MB"
            assert session.value("SELECT count(*) FROM pg_subscription WHERE subenabled") == 0
            template = "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'template1'"
            assert session.row(template) == ("b", "C.UTF-8")
        assert not [finding for finding in provider.isolation(restored.ref) if not finding.holds]
        last = [tick for tick in ticks if tick.phase == "copy"][-1]
        assert last.done == last.total > 20
    finally:
        provider.discard(plan.instance)


def test_the_moment_is_the_snapshots(shop: Shop, copy: RestoredInstance) -> None:
    """Not a file's time, and not the archive's header: what the server said around the snapshot."""
    record = parse_record((shop.sets / shop.names[-1] / "set.json").read_bytes(), where="")
    backup = DumpSet(name=shop.names[-1], record=record).backup

    assert copy.origin == backup
    assert copy.last_commit_at == backup.started_at < backup.ended_at
    assert (copy.paused, copy.stopped_at, copy.timeline, copy.last_commit_xid) == (False, None, None, None)
    assert backup.ended_at - backup.started_at < timedelta(seconds=5)
    assert {each.name for each in record.databases} == set(NAMES)


# -- targets -----------------------------------------------------------------------------------------


def test_a_time_between_two_sets_is_refused_with_both(shop: Shop) -> None:
    """Nothing is rounded: the nearest before and after are named, and the exact moment is taken."""
    provider = shop.provider("times")
    first, last = provider.window().base_backups
    at = first.started_at + (last.started_at - first.started_at) / 2

    (finding,) = provider.check(Target(kind=TargetKind.TIME, at=at))

    assert finding.code == "RB303"
    assert finding.nearest == snapshot(first.id)
    assert [hint for hint in finding.hints if first.id in hint and "before" in hint]
    assert [hint for hint in finding.hints if last.id in hint and "after" in hint]
    for backup in (first, last):
        assert provider.plan(Target(kind=TargetKind.TIME, at=backup.started_at)).backup == backup
    early = Target(kind=TargetKind.TIME, at=first.started_at - timedelta(microseconds=1))
    assert provider.check(early)[0].nearest == snapshot(first.id)
    assert refused(provider, early).startswith("RB301 the target lies before the oldest")
    late = Target(kind=TargetKind.TIME, at=last.started_at + timedelta(microseconds=1))
    assert refused(provider, late).startswith("RB303 the target lies after the newest")


def test_what_only_a_log_can_do_is_refused(shop: Shop) -> None:
    """Positions, transactions, names and --exclusive."""
    provider = shop.provider("kinds")

    for kind in (TargetKind.LSN, TargetKind.XID, TargetKind.NAME):
        assert refused(provider, Target(kind=kind, value="1")).startswith("RB108")
    assert refused(provider, replace(snapshot(shop.names[0]), exclusive=True)).startswith("RB108")
    assert refused(provider, snapshot("nobody made this")).startswith("RB301")
    with pytest.raises(UnsupportedError):
        provider.advance(provider.plan(LATEST).instance, provider.plan(LATEST), quiet)


def test_a_set_from_behind_the_write_lock_is_not_taken(shop: Shop) -> None:
    """It would bring the lock itself back; latest takes the one before."""
    provider = shop.provider("lock")
    first, last = provider.window().base_backups
    lock = Lsn(last.stop_lsn.value - 1)

    assert refused(provider, snapshot(last.id), lock_lsn=lock).startswith("RB304")
    assert provider.check(LATEST, lock_lsn=lock) == []
    assert provider.plan(replace(LATEST, not_beyond=lock)).backup == first
    assert refused(provider, LATEST, lock_lsn=Lsn(1)).startswith("RB301")


# -- sets that are none ------------------------------------------------------------------------------


def test_what_is_wrong_with_a_set_is_refused_in_seconds(shop: Shop) -> None:
    """By its record and the sizes of its files, before anything is copied."""
    place = shop.clone("wrong")
    name = shop.names[-1]
    provider = shop.provider("wrong", place)

    assert refused(shop.provider("other", place, system_identifier="1"), snapshot(name)).startswith("RB305")
    rewrite(place / name, major=99)
    assert refused(shop.provider("newer", place), snapshot(name)).startswith("RB307")
    rewrite(place / name, major=shop.server.binaries.major, preload="$libdir/pg_unheard_of")
    assert "pg_unheard_of" in refused(shop.provider("library", place), snapshot(name))
    rewrite(place / name, preload="")
    os.truncate(place / name / "globals.sql", 10)
    assert "globals.sql: 10 of" in refused(shop.provider("cut", place), snapshot(name))
    shutil.rmtree(place / name / "ledger.dir")
    assert "no archive" not in refused(shop.provider("gone", place), snapshot(name))
    assert "missing of" in refused(shop.provider("gone", place), snapshot(name))
    assert provider.check(snapshot(shop.names[0])) == []


def test_a_set_of_a_history_production_left_is_not_taken(shop: Shop) -> None:
    """Its transaction ids were given out again: what production wrote since would be taken for the set's rows."""
    place = shop.clone("lineage")
    first, last = shop.names
    kept, left = (each.stop_lsn for each in shop.provider("whole", place, timeline=1).window().base_backups)
    other = {"data_directory": None, "timeline": 2}

    assert "00000002.history" in refused(shop.provider("unknown", place, **other), snapshot(first))
    assert refused(shop.provider("none", place, **other), LATEST).startswith("RB301")

    (place / "00000002.history").write_text(f"1\t{Lsn(left.value - 1)}\tno recovery target specified\n")
    forked = shop.provider("forked", place, **other)
    assert kept < Lsn(left.value - 1)
    assert refused(forked, snapshot(last)).startswith("RB306")
    assert forked.check(snapshot(first)) == []
    assert forked.plan(LATEST).backup == forked.window().base_backups[0]
    assert [each.id for each in forked.window().base_backups] == [first]

    rewrite(place / first, timeline=3)
    assert "no ancestor" in refused(shop.provider("later", place, **other), snapshot(first))


def test_a_set_without_a_listed_database_is_refused(shop: Shop) -> None:
    """[[databases]] says what must come back."""
    place = shop.home / "half"
    place.mkdir()
    take_set(shop.server, place, "shop")

    assert "lacks ledger" in refused(shop.provider("half", place), LATEST)


def test_a_set_that_is_still_taken_or_uploaded_is_none(shop: Shop) -> None:
    """Neither its half nor a record that is cut off is restored from; asked for by name, it is told why."""
    place = shop.clone("half-done")
    first, last = shop.names
    (place / last).rename(place / f"{last}.partial")
    provider = shop.provider("taken", place)

    assert [each.id for each in provider.window().base_backups] == [first]
    assert "still being taken" in refused(provider, snapshot(last))
    (place / f"{last}.partial").rename(place / last)
    whole = (place / last / "set.json").read_bytes()
    (place / last / "set.json").write_bytes(whole[: len(whole) // 2])
    assert "record cannot be read" in refused(shop.provider("record", place), snapshot(last))
    (place / last / "set.json").unlink()
    assert "has no set.json" in refused(shop.provider("upload", place), snapshot(last))
    shutil.rmtree(place)
    assert refused(shop.provider("away", place), LATEST).startswith("RB309")


def test_the_script_leaves_no_half_set_behind(shop: Shop) -> None:
    """A database that cannot be dumped fails the whole set; so does a second one at the same time."""
    place = shop.home / "script"
    place.mkdir()

    done = take_set(shop.server, place, "shop", "no_such_database", check=False)

    assert done.returncode != 0
    assert "no_such_database" in done.stderr
    assert list(place.iterdir()) == []
    assert take_set(shop.server, place, "a b", check=False).returncode != 0
    assert take_set(shop.server, shop.home / "no folder", "shop", check=False).returncode != 0


def test_a_set_whose_record_cannot_be_written_is_not_taken(shop: Shop) -> None:
    """A machine without sha256sum: the script fails, instead of leaving a set that no restore takes."""
    place, path = shop.home / "unsigned", shop.home / "bin"
    place.mkdir()
    path.mkdir()
    for name in ("sh", "cat", "date", "dirname", "basename", "mkdir", "rm", "mv", "find", "sed", "sort", "wc", "cut",
                 "sync", "grep"):  # fmt: skip
        (path / name).symlink_to(find_tool(name))

    done = take_set(shop.server, place, "shop", check=False, PATH=str(path))

    assert (done.returncode == 0, list(place.iterdir())) == (False, [])


# -- harm that is found while it is restored -------------------------------------------------------------


def failure(shop: Shop, place: Path, run_id: str) -> ProviderError:
    """What a restore of the newest set fails with; no finished copy is left, and it can be discarded."""
    provider = shop.provider(run_id, place)
    plan = provider.plan(LATEST)
    try:
        with pytest.raises((ProviderError, UnsupportedError)) as error:
            provider.start(plan, quiet)
        instance = Instance.of(provider._site, plan.instance)
        assert not instance.folder.data.exists()
        assert not (instance.folder.partial / "postmaster.pid").exists()
    finally:
        provider.discard(plan.instance)
    return error.value


def test_a_changed_file_is_found_by_its_checksum(shop: Shop) -> None:
    """The size is right, one byte is not."""
    place = shop.clone("flipped")
    path = place / shop.names[-1] / "globals.sql"
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    error = failure(shop, place, "flipped")

    assert error.code == "RB301"
    assert "globals.sql" in error.fact


def test_a_single_error_ends_the_restore_and_is_named(shop: Shop) -> None:
    """Globals without a role that owns tables: nothing is restored around the hole."""
    place = shop.clone("roles")
    path = place / shop.names[-1] / "globals.sql"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "app" not in line))
    sign(place / shop.names[-1])

    error = failure(shop, place, "roles")

    assert error.code == "RB310"
    assert 'role "app" does not exist' in error.fact


def test_an_archive_of_another_database_is_not_taken(shop: Shop) -> None:
    """Its own header says whose it is."""
    place = shop.clone("swapped")
    folder = place / shop.names[0]
    shutil.rmtree(place / shop.names[-1])
    shutil.copy(folder / "ledger.dump", folder / "shop.dump")
    sign(folder)

    assert failure(shop, place, "swapped").code == "RB305"


def test_tablespaces_are_refused(shop: Shop) -> None:
    """They lie where production's own are."""
    place = shop.clone("spaces")
    path = place / shop.names[-1] / "globals.sql"
    path.write_text(path.read_text() + "CREATE TABLESPACE fast OWNER postgres LOCATION '/fast';\n")
    sign(place / shop.names[-1])

    assert failure(shop, place, "spaces").code == "RB108"


#: pg_restore that finds the disk full for the server it fills, while a file is there
FULL = """#!/bin/sh
case "$*" in *--create*)
    if test -e '{home}/full'; then {become} prlimit --pid "$(head -n 1 '{data}/postmaster.pid')" --fsize=300000: || exit 9; fi ;;
esac
exec '{real}' "$@"
"""


def test_a_disk_that_fills_while_it_is_restored_is_named_and_can_be_freed(shop: Shop) -> None:
    """The client only hears that the connection is gone, or what could not be extended; with room, it is redone."""
    programs, binaries = shop.home / "programs", shop.server.binaries
    programs.mkdir(mode=0o755)
    for program in binaries.bin_dir.iterdir():
        if program.name != "pg_restore":
            (programs / program.name).symlink_to(program)
    provider = shop.provider("full", binaries=replace(binaries, bin_dir=programs))
    plan = provider.plan(LATEST)
    limited = programs / "pg_restore"
    partial = Path(plan.instance.name).with_name("data.partial")
    owner = binaries.owner()
    become = f"setpriv --reuid={owner[0]} --regid={owner[1]} --clear-groups" if owner else ""
    real = binaries.tool("pg_restore")
    limited.write_text(FULL.format(home=shop.home, become=become, data=partial, real=real))
    limited.chmod(0o755)
    (shop.home / "full").touch()
    try:
        with pytest.raises(ProviderError) as error:
            provider.start(plan, quiet)
        assert (error.value.code, error.value.where) == ("RB308", str(partial))
        assert error.value.hints == (f"free space in {shop.home}/restored, then --resume",)

        (shop.home / "full").unlink()
        with connect(provider.start(plan, quiet).ref.endpoint.on("ledger")) as session:
            assert session.value("SELECT count(*) FROM public.entries") == 3000
    finally:
        provider.discard(plan.instance)


def test_a_killed_restore_is_redone(shop: Shop) -> None:
    """What the dead job left running is ended, its half cluster removed; discard finds all of it, too."""
    provider = shop.provider("killed")
    plan = provider.plan(LATEST)
    job = provider.prefetch(plan)
    assert job is not None
    instance = Instance.of(provider._site, plan.instance)
    folder = instance.folder
    wait_for(lambda: find_job("pg_restore-0", folder.root) is not None, timeout_s=60, what="pg_restore runs")
    end_job(job, first=signal.SIGKILL)
    left = int((folder.partial / "postmaster.pid").read_text().splitlines()[0])
    assert start_ticks(left) is not None

    again = DumpSets(provider._sets.settings, provider._site)
    restored = again.start(plan, quiet)

    assert start_ticks(left) is None
    assert not folder.partial.exists()
    with connect(restored.ref.endpoint.on("ledger")) as session:
        assert session.value("SELECT count(*) FROM public.entries") == 3000
    again = DumpSets(provider._sets.settings, provider._site)
    assert again.start(plan, quiet) == restored == again.attach(restored.ref) == again.promote(restored.ref)
    instance.stop(mode="immediate")
    assert again.start(plan, quiet) == restored
    provider.discard(plan.instance)

    job = provider.prefetch(plan)
    assert job is not None
    wait_for(lambda: find_job("pg_restore-0", folder.root) is not None, timeout_s=60, what="pg_restore runs")
    end_job(job, first=signal.SIGKILL)
    left = int((folder.partial / "postmaster.pid").read_text().splitlines()[0])
    provider.discard(plan.instance)

    assert start_ticks(left) is None
    assert not folder.root.exists()


# -- what is proven of the copy ------------------------------------------------------------------------


def subject(shop: Shop, copy: RestoredInstance, **more: object) -> Subject:
    """The copy under examination, beside production."""
    assert copy.origin is not None
    return Subject(
        **{
            "step": "s07", "restored": copy.ref.endpoint, "instance": copy, "target": snapshot(copy.backup_id),
            "cluster": Cluster(system_identifier=shop.identifier, data_directory=str(shop.server.data)),
            "databases": (Database(name="shop", heartbeat=BEAT), Database(name="ledger")),
            "production": shop.server.endpoint, "snapshot": copy.origin.snapshot, **more,
        }
    )  # fmt: skip


def verdicts(shop: Shop, copy: RestoredInstance, **more: object) -> dict[str, Verdict]:
    """Answers about identity and moment."""
    asked = subject(shop, copy, **more)
    return {check.id: check.verdict for check in (*identity.check(asked), *moment.check(asked))}


def test_identity_and_moment_are_proven_without_position_or_timeline(
    shop: Shop, copy: RestoredInstance
) -> None:
    """The record, the heartbeats, and production say whose it is; what presumes a log does not apply."""
    found = verdicts(shop, copy)

    assert {name: verdict for name, verdict in found.items() if verdict is not Verdict.PASS} == {
        "identity.timeline": Verdict.NOT_APPLICABLE,
        "moment.last_commit": Verdict.NOT_APPLICABLE,
    }
    assert found["identity.history:shop"] is Verdict.PASS
    bare = (Database(name="shop"), Database(name="ledger"))
    assert verdicts(shop, copy, databases=bare)["moment.dump"] is Verdict.COULD_NOT_VERIFY
    alone = verdicts(shop, copy, production=None)
    assert alone["identity.history:shop"] is Verdict.COULD_NOT_VERIFY


def test_a_dump_of_another_cluster_is_seen(shop: Shop, copy: RestoredInstance) -> None:
    """By its record; and, where somebody forged that, by heartbeats that production does not know."""
    cluster = Cluster(system_identifier="1", data_directory=str(shop.server.data))
    assert verdicts(shop, copy, cluster=cluster)["identity.system"] is Verdict.FAIL

    provider = shop.provider("stranger")
    plan = provider.plan(LATEST)
    try:
        other = provider.start(plan, quiet)
        with connect(other.ref.endpoint.on("shop")) as session:
            session.do("UPDATE public.heartbeat SET at = at + interval '1 ms'")

        found = verdicts(shop, copy, production=other.ref.endpoint)
    finally:
        provider.discard(plan.instance)

    assert found["identity.history:shop"] is Verdict.FAIL


def test_a_copy_that_is_not_as_dumped_is_seen(shop: Shop) -> None:
    """Rows, structure and grants are compared with production's as of the dump, the copy's as of its filling."""
    provider = shop.provider("changed")
    plan = provider.plan(LATEST)
    grown = (TableChange(database="ledger", table="public.entries", inserted=1),)
    ledger = Database(name="ledger", critical_tables=("public.entries",))

    def stopping(copy: RestoredInstance, own: str) -> set[str]:
        asked = subject(shop, copy, databases=(ledger,), discarded=grown, own_snapshot=own)
        answers = (*content.check(asked), *structure.check(asked), *privileges.check(asked))
        assert asked_of(answers) >= {"content.production:ledger.public.entries"}
        return {check.id for check in answers if check.verdict is Verdict.FAIL}

    def asked_of(answers: tuple[Check, ...]) -> set[str]:
        return {check.id for check in answers if check.verdict in {Verdict.PASS, Verdict.FAIL}}

    with connect(shop.server.endpoint.on("ledger")) as session:
        session.do("INSERT INTO public.entries VALUES (8001, 'since the dump')")
    try:
        copy = provider.start(plan, quiet)
        own = snapshot_of(copy.ref.endpoint)
        whole = stopping(copy, own)
        with connect(copy.ref.endpoint.on("ledger")) as session:
            session.do("UPDATE public.entries SET name = 'other' WHERE id = 7")
            session.do("REVOKE ALL ON public.entries FROM app")
            session.do("CREATE INDEX strange ON public.entries (name)")
        harmed = stopping(copy, own)
    finally:
        provider.discard(plan.instance)
        with connect(shop.server.endpoint.on("ledger")) as session:
            session.do("DELETE FROM public.entries WHERE id = 8001")

    assert whole == set()
    assert "content.production:ledger.public.entries" in harmed
    assert any(name.startswith("structure.") for name in harmed)
    assert any(name.startswith("privileges.") for name in harmed)


def test_rows_are_told_by_the_snapshot_not_by_the_position(shop: Shop) -> None:
    """A transaction that was open while the set was taken is behind it, wherever its rows stand in the log."""
    place = shop.home / "open"
    place.mkdir()
    endpoint = shop.server.endpoint.on("ledger")
    # psycopg's own connection: it stays open while the script runs
    with closing(Connection.connect(endpoint.conninfo())) as early, connect(endpoint) as session:
        early.execute("INSERT INTO public.entries VALUES (9001, 'open')")
        session.do("INSERT INTO public.entries VALUES (9002, 'before')")
        take_set(shop.server, place, *NAMES)
        early.commit()
        session.do("INSERT INTO public.entries VALUES (9003, 'after')")
        session.do("DELETE FROM public.entries WHERE id = 9002")
        lock = Lsn.parse(session.value("SELECT pg_current_wal_insert_lsn()"))
    backup = shop.provider("open", place).plan(LATEST).backup
    assert backup is not None

    window = discarded_window(
        databases=NAMES, start_lsn=backup.start_lsn, start_at=backup.started_at, lock_lsn=lock, lock_at=None,
        timeline=1, binaries=shop.server.binaries, folders=[shop.server.data / "pg_wal"],
        production=shop.server.endpoint, segment_bytes=1024 * 1024, held=backup.snapshot,
    )  # fmt: skip
    pack = write_pack(
        source=shop.server.endpoint, databases=NAMES, folder=shop.home / "pack", since=backup.started_at,
        snapshot=backup.snapshot,
    )  # fmt: skip

    assert window.verdict is Verdict.PASS
    assert [(loss.table, loss.inserted, loss.deleted) for loss in window.tables] == [
        ("ledger.public.entries", 2, 1)
    ]
    kept = (shop.home / "pack" / "ledger" / "public.entries.jsonl").read_text()
    assert [json.loads(line)["id"] for line in kept.splitlines()] == [9001, 9003]
    assert pack.complete


# -- on S3 -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(shop: Shop, public_dir: Path) -> Iterator[S3]:
    """A real S3 server with the newest set."""
    with s3_server(public_dir / "dump-s3") as made:
        client = boto3.client(
            "s3", endpoint_url=made.endpoint_url, verify=str(made.authority), region_name="auto",
            aws_access_key_id=KEY, aws_secret_access_key=SECRET,
        )  # fmt: skip
        home = shop.sets / shop.names[-1]
        for path in sorted(home.rglob("*")):
            if path.is_file():
                client.put_object(
                    Bucket=BUCKET, Key=f"sets/{home.name}/{path.relative_to(home)}", Body=path.read_bytes()
                )
        yield made


@pytest.fixture
def reader(store: S3, monkeypatch: pytest.MonkeyPatch) -> S3Access:
    """Credentials that can only read and list."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    return S3Access(endpoint_url=store.endpoint_url, ca_file=store.authority)


def test_a_set_on_s3_is_restored(shop: Shop, reader: S3Access) -> None:
    """With credentials that only read; nothing of them is in the job's arguments or files."""
    provider = shop.provider("s3", ObjectUrl(BUCKET, "sets"), s3=reader)
    plan = provider.plan(LATEST)
    ticks: list[Tick] = []
    try:
        assert provider.check(LATEST) == []
        restored = provider.start(plan, ticks.append)

        with connect(restored.ref.endpoint.on("ledger")) as session:
            assert session.value("SELECT count(*) FROM public.entries") == 3000
        folder = Path(restored.ref.name).parent
        assert READER_SECRET not in (folder / "work.json").read_text()
        assert not (folder / "set").exists()
    finally:
        provider.discard(plan.instance)


def test_a_store_that_refuses_is_named(
    shop: Shop, store: S3, reader: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong bucket, wrong secret, and an outage after the target was judged; a cut-off or lost object is seen by its size."""
    good = ObjectUrl(BUCKET, "sets")

    assert refused(shop.provider("bucket", ObjectUrl("nobodys", "sets"), s3=reader), LATEST).startswith(
        "RB309"
    )
    assert refused(shop.provider("prefix", ObjectUrl(BUCKET, "elsewhere"), s3=reader), LATEST).startswith(
        "RB301"
    )
    gone = replace_url(reader, free_port())
    away = shop.provider("outage", good, s3=reader)
    plan = away.plan(LATEST)
    away._sets.place.__dict__["listing"] = away._sets.place.listing
    outage = DumpSets(DumpProvider(location=good, jobs=2, s3=gone), away._site)
    outage._sets.place.__dict__["listing"] = away._sets.place.listing
    with pytest.raises(ProviderError) as error:
        outage.start(plan, quiet)
    assert error.value.code == "RB309"
    assert rows_of(away.start(plan, quiet)) == 3000
    away.discard(plan.instance)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "AWS_SECRET_ACCESS_KEY" in refused(shop.provider("secret", good, s3=reader), LATEST)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    key = f"sets/{shop.names[-1]}/globals.sql"
    whole = store.read(key)
    store.change("PUT", key, whole[:20])
    assert "globals.sql: 20 of" in refused(shop.provider("object", good, s3=reader), LATEST)
    store.change("DELETE", key)
    assert "globals.sql: missing of" in refused(shop.provider("object", good, s3=reader), LATEST)
    store.change("PUT", key, whole)


def test_a_token_that_expires_is_an_outage(
    shop: Shop, store: S3, reader: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the run and in the download: named, with what to do; a new login goes on."""

    def log_in(double: SessionTokens) -> Issued:
        issued = double.issue()
        for name, value in issued.variables.items():
            monkeypatch.setenv(name, value)
        return issued

    def opened() -> DumpSets:
        return DumpSets(DumpProvider(location=ObjectUrl(BUCKET, "sets"), jobs=2, s3=access), site)

    with session_tokens(store) as double:
        access = reader.model_copy(update={"endpoint_url": double.endpoint_url})
        site = shop.provider("token", ObjectUrl(BUCKET, "sets"), s3=reader)._site
        issued = log_in(double)
        plan = opened().plan(LATEST)
        issued.expired = True
        said = refused(opened(), LATEST)
        assert said.startswith("RB309")
        assert "ExpiredToken" in said
        assert "log in again" in said

        issued = log_in(double)
        issued.ends_at = lambda method, path: method == "GET" and ".dat" in path
        try:
            with pytest.raises(ProviderError) as error:
                opened().start(plan, quiet)
            assert (error.value.code, "ExpiredToken" in error.value.fact) == ("RB309", True)
            assert "log in again" in error.value.hints[0]
            assert issued.token not in error.value.block()

            log_in(double)
            assert rows_of(opened().start(plan, quiet)) == 3000
        finally:
            opened().discard(plan.instance)


def replace_url(access: S3Access, port: int) -> S3Access:
    """The same store at a port where nobody answers."""
    return access.model_copy(update={"endpoint_url": f"https://127.0.0.1:{port}"})


def rows_of(restored: RestoredInstance) -> int:
    """How many entries the ledger has."""
    with connect(restored.ref.endpoint.on("ledger")) as session:
        return int(session.value("SELECT count(*) FROM public.entries"))
