"""The feeder of a replay: what it brings, what it refuses to call the end of the log, and how its life ends."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.command import JobRef, exit_status, is_running, run, wait_for
from fixtures.errors import ProviderError
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.lsn import Lsn, segment_name
from fixtures.postgres.session import connect
from fixtures.progress import Tick
from fixtures.providers.base import BaseBackup, RestoredInstance, RestorePlan, Site, Target, TargetKind
from fixtures.providers.basebackup.store import BaseBackupStore
from fixtures.providers.local.backend import LocalProvider
from fixtures.providers.local.feed import Feed, start_feed
from fixtures.providers.local.instance import Instance
from fixtures.providers.local.log import Log
from fixtures.settings import BaseBackupProvider
from tests.real.restore_labs import BaseBackupLab, Lab, flip
from tests.real.restore_world import ROWS, World, production

ALL_ROWS = list(range(ROWS + 1))
NOWHERE = "0000000100000000000000FF"
#: 1: the archive has none, 4: there is no archive
TOOL = 'test -n "$RRB_FEED_SECRET" || exit 9; test -e "$1/$3" || exit 4; test -f "$1/$2" || exit 1; cp "$1/$2" "$4"'


@dataclass(frozen=True, kw_only=True)
class FedFolders(BaseBackupStore):
    """Folders whose log a feeder brings, one call of a tool per segment."""

    def restore_command(
        self, instance: Instance, log: Log, backup: BaseBackup, *, rescued: Path | None, stop: Lsn | None
    ) -> str:
        """Feed from the archive; its first segment proves it."""
        proof = segment_name(1, backup.start_lsn.segment())
        archive = str(self.settings.archive)
        feed = Feed(
            maker="fixtures.providers.local.fetch:tool_fetch",
            settings={
                "argv": ("sh", "-c", TOOL, "get", archive, "{name}", proof, "{target}"),
                "absent": (1,),
                "prove_argv": ("test", "-e", f"{archive}/{proof}"),
                "refused": (9,),
                "env": ("RRB_FEED_SECRET",),
            },
            env=("RRB_FEED_SECRET",),
            ahead=2,
            at_once=2,
        )
        return start_feed(instance, feed, log, backup, rescued=rescued, stop=stop)


class FedProvider(LocalProvider):
    """A provider over them."""

    name = "basebackup"

    def __init__(self, settings: BaseBackupProvider, site: Site) -> None:
        super().__init__(FedFolders(settings=settings, site=site))


@dataclass(frozen=True, kw_only=True)
class FedLab(BaseBackupLab):
    """Folders, fed."""

    def provider(self, site: Site) -> FedProvider:  # type: ignore[override]
        """Return the provider over this store."""
        return FedProvider(BaseBackupProvider(base_backups=self.base_backups, archive=self.archive), site)


@pytest.fixture(scope="module")
def world(public_dir: Path, binaries: Binaries) -> Iterator[World]:
    """Production after the damage, still running."""
    with production(public_dir, FedLab, binaries) as made:
        yield made


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRB_FEED_SECRET", "hunter2-hunter2")
    monkeypatch.setattr("fixtures.providers.local.feed.PATIENCE_S", 1.0)


@dataclass(frozen=True, kw_only=True)
class Restore:
    """One restore of a test's own."""

    provider: LocalProvider
    plan: RestorePlan

    @property
    def instance(self) -> Instance:
        """Its copy."""
        return Instance.of(self.provider._site, self.plan.instance)

    @property
    def feed(self) -> Path:
        """What the feeder and the server share."""
        return self.instance.folder.root / "feed"

    @property
    def job(self) -> JobRef:
        """Its feeder."""
        job = self.instance.load("feed", JobRef)
        assert job is not None
        return job

    def start(self) -> RestoredInstance:
        """Restore."""
        return self.provider.start(self.plan, _quiet)

    def ask(self, name: str) -> int:
        """Run the restore_command as the server does."""
        binaries = self.instance.server.binaries
        target = self.instance.folder.data / "pg_wal" / "asked"
        return run(
            ["/bin/sh", self.instance.folder.script, name, target], timeout_s=60, user=binaries.user, check=False
        ).returncode  # fmt: skip

    def rows(self) -> list[int]:
        """Ids that are there."""
        with connect(self.plan.instance.endpoint) as session:
            return [row for (row,) in session.rows("SELECT id FROM public.t ORDER BY id")]


@contextlib.contextmanager
def restore(world: World, name: str, lab: Lab | None = None) -> Iterator[Restore]:
    """Plan a restore to just before the damage; discarded behind it."""
    provider = world.provider(name, lab=lab)
    target = Target(kind=TargetKind.XID, value=str(world.damage.xid), exclusive=True)
    plan = provider.plan(target)
    try:
        yield Restore(provider=provider, plan=plan)
    finally:
        provider.discard(plan.instance)


def _quiet(_: Tick) -> None:
    pass


def test_it_feeds_a_replay_and_ends_with_it(world: World) -> None:
    """Every row is there, no more than what is bounded lies about, and the promotion ends the feeder."""
    with restore(world, "fed") as one:
        restored = one.start()

        assert one.rows() == ALL_ROWS
        assert sum(len(path.name) == 24 for path in one.feed.iterdir()) <= 2
        assert [path.name for path in one.feed.glob("*.want")] == []
        job = one.job
        assert is_running(job)

        promoted = one.provider.promote(restored.ref)

        assert promoted.timeline == 2
        assert not is_running(job)


def test_it_answers_for_what_is_and_what_is_not_there(world: World) -> None:
    """A consumed segment comes again, an unknown one is not there: asked of the archive each time."""
    lab = world.lab.clone("asked")
    with restore(world, "asked", lab) as one:
        one.start()
        assert one.plan.backup is not None
        first = segment_name(1, one.plan.backup.start_lsn.segment())

        assert [one.ask(name) for name in (first, first, NOWHERE, "00000002.history")] == [0, 0, 1, 1]
        (one.instance.folder.data / "pg_wal" / "asked").unlink()
        shutil.copy(world.server.data / "postgresql.conf", lab.segment("00000002.history"))
        assert one.ask("00000002.history") == 0

        lab.hide()
        try:
            assert one.ask(NOWHERE) == 255
            wait_for(lambda: exit_status(one.job) == 1, timeout_s=30, what="the feeder has given up")
            assert one.ask(first) == 255
        finally:
            lab.show()


def test_damage_stops_the_replay_unless_it_is_behind_its_end(world: World) -> None:
    """A cut-off segment is fatal where it is needed; behind the target it is the end of the log."""
    lab = world.lab.clone("damaged")
    with restore(world, "damaged", lab) as one:
        one.start()
        lab.cut(world.commits[2].segment)
        (lab.place / "archive" / NOWHERE).write_bytes(b"short")
        (lab.place / "archive" / f"0000000200000000{NOWHERE[16:]}").write_bytes(bytes(16 * 1024 * 1024))

        assert one.ask(world.commits[2].segment) == 255
        assert one.ask(NOWHERE) == 1
        assert one.ask(f"0000000200000000{NOWHERE[16:]}") == 1


def test_a_damaged_segment_is_named_by_the_server_itself(world: World) -> None:
    """What was harmed after the plan ends the replay as damage, not as an unreachable archive."""
    lab = world.lab.clone("spoilt")
    with restore(world, "spoilt", lab) as one:
        victim = lab.segment(world.commits[1].segment)
        kept = victim.read_bytes()
        one.provider.prefetch(one.plan)

        def harm(tick: Tick) -> None:
            if tick.phase == "copy" and tick.done == tick.total and victim.read_bytes() == kept:
                os.truncate(victim, 5_000_000)

        with pytest.raises(ProviderError) as error:
            one.provider.start(one.plan, harm)
        assert error.value.code in {"RB302", "RB303"}

        victim.write_bytes(kept)
        one.start()
        assert one.rows() == ALL_ROWS


def test_a_killed_feeder_is_not_the_end_of_the_log(world: World) -> None:
    """The server gets no answer it could take for the end; the next start revives the feeder."""
    with restore(world, "killed") as one:
        restored = one.start()
        os.killpg(one.job.pid, signal.SIGKILL)
        wait_for(lambda: not is_running(one.job), timeout_s=20, what="the feeder is dead")

        assert one.ask(NOWHERE) == 255

        assert one.start().stopped_at == restored.stopped_at
        assert is_running(one.job)
        assert one.ask(NOWHERE) == 1
        assert one.provider.promote(restored.ref).timeline == 2
        assert one.rows() == ALL_ROWS


def test_an_outage_while_it_replays_is_loud_and_can_be_resumed(world: World) -> None:
    """The archive goes when the copy is done: the server stops, and a resume completes it."""
    lab = world.lab.clone("outage")
    with restore(world, "outage", lab) as one:
        one.start()
        hidden = lab.place / "archive"
        with connect(one.plan.instance.endpoint) as session:
            hidden.rename(lab.place / "elsewhere")
            session.do("SELECT pg_wal_replay_resume()")
        wait_for(lambda: not one.instance.runs(), timeout_s=60, what="the server has ended")
        text = one.instance.log_text()
        assert "archive unreadable" in text
        assert "archive recovery complete" not in text
        (lab.place / "elsewhere").rename(hidden)

        one.start()

        assert one.rows() == ALL_ROWS


def test_discard_ends_it_and_leaves_nothing(world: World) -> None:
    """By its own pid; its folder goes."""
    with restore(world, "gone") as one:
        one.start()
        job, root = one.job, one.instance.folder.root

        one.provider.discard(one.plan.instance)

        assert not is_running(job)
        assert not root.exists()


def test_no_secret_is_in_what_it_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables are named; their values reach feeder and tool by the environment, and are missed there."""
    with restore(world, "secret") as one:
        one.start()
        shown = (one.instance.folder.root / "feed-spec.json").read_text()
        argv = Path(f"/proc/{one.job.pid}/cmdline").read_text()

        assert "hunter2" not in shown + argv

    monkeypatch.delenv("RRB_FEED_SECRET")
    with restore(world, "without") as one:
        with pytest.raises(ProviderError) as error:
            one.start()
        assert error.value.code == "RB309"


def test_bit_rot_in_a_first_page_is_seen(world: World) -> None:
    """A segment of the right size that is another one is not handed to the server."""
    lab = world.lab.clone("swapped")
    with restore(world, "swapped", lab) as one:
        one.start()
        shutil.copy(lab.segment(world.commits[0].segment), lab.segment(world.commits[2].segment))
        flip(lab.segment(world.commits[0].segment))  # inside: the server's own checksums find it

        assert one.ask(world.commits[2].segment) == 255
        assert one.ask(world.commits[0].segment) == 0
