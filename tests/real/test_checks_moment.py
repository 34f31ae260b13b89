"""The moment's checks on a real point-in-time restore: quiet at its own target, firing at every other."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fixtures.checks import Subject, content, identity, moment, recovery, take_references
from fixtures.checks.asking import reading
from fixtures.command import run, wait_for
from fixtures.evidence import Check, Verdict
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.lsn import Lsn
from fixtures.postgres.server import Server
from fixtures.postgres.session import connect
from fixtures.postgres.wal import commits
from fixtures.providers.base import Cluster, Target, TargetKind
from fixtures.settings import Database, Heartbeat
from tests.real.checks_lab import QUICK, examined, found, place, running, script, verdicts

BEAT = Heartbeat(table="public.beat", interval=timedelta(seconds=30))
DATABASE = Database(name="postgres", critical_tables=("public.beat",), heartbeat=BEAT)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One commit, and positions right behind it."""

    xid: int
    at: datetime
    lsn: Lsn


@dataclass(frozen=True, kw_only=True)
class World:
    """A production with an archive and a copy restored between `marks[AT]` and the next commit."""

    production: Server
    restored: Server
    archive: Path
    marks: tuple[Mark, ...]
    subject: Subject
    paused: tuple[Check, ...]


#: the copy stops behind this commit; a restore point "here" stands there
AT = 4


@pytest.fixture(scope="module")
def world(public_dir: Path, binaries: Binaries) -> Iterator[World]:
    """Back production up, commit, restore to the point between two commits, promote."""
    production, restored = place(public_dir, binaries, "prod"), place(public_dir, binaries, "copy")
    archive = production.data.parent / "archive"
    archive.mkdir()
    binaries.own(archive)
    production.initdb()
    # dynamically copied commands of a throwaway: %p and %f are PostgreSQL's
    archiving = {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f"}
    try:
        with running(production, {**QUICK, **archiving}):
            marks = written(production, restored, binaries)
            wait_for(lambda: archived(production, archive), timeout_s=30, what="the log is archived")
            yield from restored_world(production, restored, archive, marks)
    finally:
        shutil.rmtree(production.data.parent)
        shutil.rmtree(restored.data.parent)


def written(production: Server, restored: Server, binaries: Binaries) -> tuple[Mark, ...]:
    """Take a base backup, then commit one heartbeat at a time."""
    script(
        production.endpoint,
        "CREATE TABLE beat (at timestamptz)",
        "INSERT INTO beat VALUES (clock_timestamp())",
    )
    argv = [binaries.tool("pg_basebackup"), "-D", restored.data, "-X", "fetch", "-c", "fast"]
    run(argv, timeout_s=60, user=binaries.user, env=production.endpoint.environment())
    marks: list[Mark] = []
    for number in range(8):
        with connect(production.endpoint) as session:
            xid = session.value(
                "WITH b AS (INSERT INTO public.beat VALUES (clock_timestamp()) RETURNING xmin) "
                "SELECT xmin::text::int FROM b"
            )
            lsn, at = session.row("SELECT pg_current_wal_lsn()::text, clock_timestamp()")
            marks.append(Mark(xid=xid, at=at, lsn=Lsn.parse(lsn)))
            if number == AT:
                session.rows("SELECT pg_create_restore_point('here')")
    script(production.endpoint, "SELECT pg_switch_wal()")
    return tuple(marks)


def archived(production: Server, archive: Path) -> bool:
    """Whether the segment before the current one is in the archive."""
    with connect(production.endpoint) as session:
        return (archive / session.value("SELECT last_archived_wal FROM pg_stat_archiver")).exists() and bool(
            session.value("SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 16777216) "
                          "FROM pg_stat_archiver")
        )  # fmt: skip


def restored_world(
    production: Server, restored: Server, archive: Path, marks: tuple[Mark, ...]
) -> Iterator[World]:
    """Replay the copy to the restore point, take references while it waits, promote it."""
    (restored.data / "recovery.signal").touch()
    restored.binaries.own(restored.data / "recovery.signal")
    target = {
        "restore_command": f"cp {archive}/%f %p", "recovery_target_name": "here", "archive_mode": "off",
        "recovery_target_action": "pause", "recovery_target_timeline": "1", "hot_standby": "on",
    }  # fmt: skip
    with running(restored, {**QUICK, **target}):
        with connect(restored.endpoint) as session:
            wait_for(
                lambda: session.value("SELECT pg_get_wal_replay_pause_state()") == "paused",
                timeout_s=30, what="replay waits at its target",
            )  # fmt: skip
            stopped, last, identifier = session.row(
                "SELECT pg_last_wal_replay_lsn()::text, pg_last_xact_replay_timestamp(), system_identifier::text "
                "FROM pg_control_system()"
            )
        base = examined(restored, DATABASE)
        instance = replace(
            base.instance, stopped_at=Lsn.parse(stopped), last_commit_at=last, last_commit_xid=marks[AT].xid,
            timeline=2,
        )  # fmt: skip
        subject = replace(
            base, instance=instance, target=Target(kind=TargetKind.NAME, value="here"),
            cluster=Cluster(system_identifier=identifier, timeline=1, data_directory=str(production.data)),
            wal_folders=(archive,), binaries=restored.binaries, production=production.endpoint, discarded=(),
            references=take_references(restored.endpoint, (DATABASE,)),
        )  # fmt: skip
        paused = recovery.check(subject)
        with connect(restored.endpoint) as session:
            assert session.value("SELECT pg_promote(true, 30)")
        yield World(
            production=production,
            restored=restored,
            archive=archive,
            marks=marks,
            subject=subject,
            paused=paused,
        )


def equivalent(marks: tuple[Mark, ...], number: int) -> dict[str, Target]:
    """Return every way to name the point between one commit and the next."""
    mark, after = marks[number], marks[number + 1]
    return {
        "time": Target(kind=TargetKind.TIME, value=mark.at.isoformat(), at=mark.at),
        "time exclusive": Target(kind=TargetKind.TIME, value="", at=mark.at, exclusive=True),
        "lsn": Target(kind=TargetKind.LSN, value=str(mark.lsn)),
        "lsn exclusive": Target(kind=TargetKind.LSN, value=str(mark.lsn), exclusive=True),
        "xid": Target(kind=TargetKind.XID, value=str(mark.xid)),
        "xid exclusive": Target(kind=TargetKind.XID, value=str(after.xid), exclusive=True),
        "latest": Target(kind=TargetKind.LATEST, not_beyond=mark.lsn),
    }


KINDS = ("time", "time exclusive", "lsn", "lsn exclusive", "xid", "xid exclusive", "latest")


def test_recovery_fires_while_paused(world: World) -> None:
    """A copy still waiting at its target is in recovery."""
    assert found(world.paused, "recovery.ended").verdict is Verdict.FAIL
    assert verdicts(recovery.check(world.subject)) == {Verdict.PASS}


def test_identity_knows_the_child_of_productions_timeline(world: World) -> None:
    """The promoted copy left production's timeline; any other parent fails."""
    assert verdicts(identity.check(world.subject)) == {Verdict.PASS}
    other = replace(world.subject, cluster=replace(world.subject.cluster, timeline=7))
    assert found(identity.check(other), "identity.timeline").verdict is Verdict.FAIL


def test_references_taken_while_paused_hold_after_promotion(world: World) -> None:
    """Promotion changes no row."""
    answer = found(content.check(world.subject), "content.reference")
    assert answer.verdict is Verdict.PASS
    assert "key" not in answer.actual  # a key may be a person's number


def test_moment_is_quiet_at_a_restore_point(world: World) -> None:
    """The last commit before it is applied, the first after it is not."""
    assert verdicts(moment.check(world.subject)) == {Verdict.PASS}


@pytest.mark.parametrize("kind", KINDS)
def test_moment_is_quiet_at_its_own_target(world: World, kind: str) -> None:
    """However the target is named, log and heartbeat agree with the copy."""
    checks = moment.check(replace(world.subject, target=equivalent(world.marks, AT)[kind]))
    assert verdicts(checks) == {Verdict.PASS}, checks


@pytest.mark.parametrize("kind", KINDS)
def test_moment_fires_when_stopped_too_late(world: World, kind: str) -> None:
    """A copy that holds one commit more than its target fails, whoever reports the stop."""
    subject = replace(world.subject, target=equivalent(world.marks, AT - 1)[kind])
    assert found(moment.check(subject), "moment.last_commit").verdict is Verdict.FAIL
    assert found(moment.check(subject), "moment.next_commit").verdict is Verdict.FAIL


@pytest.mark.parametrize("kind", KINDS)
def test_moment_fires_when_stopped_too_early(world: World, kind: str) -> None:
    """A copy that lacks the last commit before its target fails."""
    silent = replace(world.subject.instance, last_commit_at=None, last_commit_xid=None)
    for instance in (world.subject.instance, silent):
        subject = replace(world.subject, instance=instance, target=equivalent(world.marks, AT + 1)[kind])
        assert found(moment.check(subject), "moment.last_commit").verdict is Verdict.FAIL


def test_a_reused_transaction_id_is_not_mistaken_for_the_damage(world: World) -> None:
    """After promotion the copy hands out the ids of commits it never replayed."""
    script(world.restored.endpoint, *["SELECT pg_current_xact_id()"] * 3)
    target = equivalent(world.marks, AT)["time"]
    for references in (world.subject.references, None):
        subject = replace(world.subject, target=target, references=references)
        assert found(moment.check(subject), "moment.next_commit").verdict is Verdict.PASS


def test_the_heartbeat_alone_proves_the_moment(world: World) -> None:
    """Without a log the heartbeat decides, and what the log could not say does not block."""
    subject = replace(world.subject, wal_folders=(), target=equivalent(world.marks, AT)["time"])
    checks = moment.check(subject)
    assert found(checks, "moment.last_commit").verdict is Verdict.COULD_NOT_VERIFY
    assert not any(check.stops for check in checks)


def test_the_heartbeat_fires_on_both_sides(world: World) -> None:
    """Rows after the target fail; so do rows production had before it and the copy has not."""
    name = ":postgres"
    late = replace(world.subject, wal_folders=(), target=equivalent(world.marks, AT - 2)["time"])
    assert found(moment.check(late), "moment.heartbeat_after" + name).verdict is Verdict.FAIL
    beat = Heartbeat(table="public.beat", interval=timedelta(microseconds=1000))
    early = replace(
        world.subject, wal_folders=(), target=equivalent(world.marks, len(world.marks) - 2)["time"],
        databases=(Database(name="postgres", heartbeat=beat),),
    )  # fmt: skip
    assert found(moment.check(early), "moment.heartbeat_last" + name).verdict is Verdict.FAIL
    alone = found(moment.check(replace(early, production=None)), "moment.heartbeat_last" + name)
    assert (alone.verdict, alone.stops) == (Verdict.COULD_NOT_VERIFY, True)


def test_without_log_and_heartbeat_nothing_is_proven(world: World) -> None:
    """No proof is could-not-verify, and stops."""
    subject = replace(world.subject, wal_folders=(), databases=(Database(name="postgres"),))
    checks = moment.check(subject)
    assert verdicts(checks) == {Verdict.COULD_NOT_VERIFY}
    assert all(check.stops for check in checks)


def test_a_snapshot_is_its_own_moment(world: World) -> None:
    """No log says how far a snapshot should reach: shown as not applicable, and does not stop."""
    silent = replace(world.subject.instance, last_commit_at=None, last_commit_xid=None, stopped_at=None)
    subject = replace(world.subject, instance=silent, target=Target(kind=TargetKind.SNAPSHOT, value="s1"))
    checks = moment.check(subject)
    assert verdicts(checks) == {Verdict.NOT_APPLICABLE, Verdict.COULD_NOT_VERIFY}
    assert not any(check.stops for check in checks)


def test_a_missing_segment_is_not_a_proof(world: World, tmp_path: Path) -> None:
    """A log that cannot be read stops the run."""
    subject = replace(world.subject, wal_folders=(tmp_path,), databases=(Database(name="postgres"),))
    checks = moment.check(subject)
    assert [(check.verdict, check.stops) for check in checks] == [(Verdict.COULD_NOT_VERIFY, True)]


def test_facts_give_the_measured_distance(world: World) -> None:
    """RPO and target gap come from the last recovered commit."""
    last = world.subject.instance.last_commit_at
    assert last is not None
    target = Target(kind=TargetKind.TIME, value="", at=last + timedelta(seconds=2))
    facts = moment.facts(replace(world.subject, target=target), damaged_at=last + timedelta(seconds=7))
    assert (facts["target gap, s"], facts["RPO, s"]) == (2.0, 7.0)
    with reading(world.restored.endpoint) as session:
        newest = session.value("SELECT max(at) FROM public.beat")
    assert facts["newest heartbeat in postgres"] == newest.isoformat()


def test_the_marks_are_the_logs_own_commits(world: World) -> None:
    """The scenario itself: one commit per mark, in order."""
    found_ids = [
        commit.xid
        for commit in commits(world.restored.binaries, (world.archive,), timeline=1, start=world.marks[0].lsn)
    ]
    assert found_ids[: len(world.marks) - 1] == [mark.xid for mark in world.marks[1:]]
    assert world.marks[0].at.tzinfo is UTC or world.marks[0].at.utcoffset() == timedelta(0)
