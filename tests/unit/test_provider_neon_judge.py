"""Neon's window and targets, and which addresses of its API are accepted."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from fixtures.postgres.lsn import Lsn
from fixtures.providers.base import Target, TargetKind
from fixtures.providers.neon import judge
from fixtures.providers.neon.models import Branch, Project
from fixtures.settings import NeonProvider

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def history(
    *,
    kept: timedelta = timedelta(hours=6),
    age: timedelta = timedelta(days=3),
    stores: bool = True,
    **branch: object,
):
    """A branch's past."""
    made = NOW - age
    return judge.History(
        project=Project(
            id="p", name="n", pg_version=17, history_retention_seconds=int(kept.total_seconds()),
            store_passwords=stores, created_at=NOW - timedelta(days=30),
        ),
        branch=Branch(
            **{
                "id": "br-1", "name": "main", "current_state": "ready", "created_at": made, "default": True,
                "protected": False, **branch,
            }
        ),
        snapshots=(),
        now=NOW,
    )  # fmt: skip


def at(moment: datetime, *, exclusive: bool = False) -> Target:
    """A time target."""
    return Target(kind=TargetKind.TIME, value=moment.isoformat(), at=moment, exclusive=exclusive)


def test_the_window_begins_with_the_history_or_the_branch_itself():
    """Whatever is later; the reason is told."""
    long_ago = at(NOW - timedelta(days=2))

    assert history().earliest == NOW - timedelta(hours=6)
    assert history(age=timedelta(hours=1)).earliest == NOW - timedelta(hours=1)
    assert "6 h of history" in history().refusals(long_ago, lock_lsn=None)[0].fact
    assert "made then" in history(age=timedelta(hours=1)).refusals(long_ago, lock_lsn=None)[0].fact


@pytest.mark.parametrize("kind", [TargetKind.XID, TargetKind.NAME])
def test_what_the_vendor_does_not_know_is_refused(kind):
    """No log to look a transaction or a restore point up in."""
    assert [each.code for each in history().refusals(Target(kind=kind, value="7"), lock_lsn=None)] == [
        "RB108"
    ]


OTHER = Branch(
    id="br-2", name="main", current_state="ready", created_at=NOW, default=True, protected=False,
    restore_status="finalized", restored_as="br-1",
)  # fmt: skip
SNAPSHOT = Target(kind=TargetKind.SNAPSHOT, value="snap-1")


@pytest.mark.parametrize(
    ("branch", "target", "in_place", "heir", "words"),
    [
        ({}, at(NOW), True, None, ""),
        ({"restricted_actions": ({"name": "restore", "reason": "busy"},)}, SNAPSHOT, True, None, "busy"),
        ({"restricted_actions": ({"name": "restore", "reason": "busy"},)}, at(NOW), False, None, ""),
        ({"protected": True}, at(NOW), True, None, "is protected"),
        ({"protected": True}, SNAPSHOT, True, None, ""),
        ({"protected": True}, at(NOW), False, None, ""),
        ({"restore_status": "restored"}, at(NOW), True, None, "not finalized"),
        ({"restore_status": "restored"}, at(NOW), False, None, ""),
        ({"restore_status": "finalized"}, at(NOW), True, None, ""),
        ({}, at(NOW), False, OTHER, "br-2 took its place"),
        ({"stores": False}, at(NOW), False, None, "stores no passwords"),
        ({"current_state": "archived"}, at(NOW), False, None, "archived"),
    ],
)
def test_what_is_against_restoring_at_all(branch, target, in_place, heir, words):
    """Read before anything is begun; nothing else is in the way."""
    found = history(**branch).obstacles(target, in_place=in_place, heir=heir)

    assert [words in each.fact for each in found] == [True] * bool(words)


def test_positions_are_bounded_by_the_branchs_own_beginning_and_the_lock():
    """What can be known beforehand is."""
    own = history(parent_id="br-0", parent_lsn="0/2000")

    def codes(text: str) -> list[str]:
        found = own.refusals(Target(kind=TargetKind.LSN, value=text), lock_lsn=Lsn.parse("0/3000"))
        return [each.code for each in found]

    assert codes("0/1FFF") == ["RB301"]
    assert codes("0/2000") == codes("0/3000") == []
    assert codes("0/3001") == ["RB304"]


def test_an_inclusive_time_is_the_next_microsecond():
    """The vendor takes commits before a timestamp."""
    assert judge.point(at(NOW)) == {"parent_timestamp": "2026-11-28T12:00:00.000001Z"}
    assert judge.point(at(NOW, exclusive=True)) == {"parent_timestamp": "2026-11-28T12:00:00.000000Z"}
    assert judge.point(Target(kind=TargetKind.LATEST)) == {}
    lock = Lsn.parse("0/3000")
    assert judge.point(Target(kind=TargetKind.LATEST, not_beyond=lock)) == {"parent_lsn": str(lock)}


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("https://console.neon.tech/api/v2", True), ("http://127.0.0.1:8080/api/v2", True),
        ("http://console.neon.tech/api/v2", False), ("http://127.0.0.1.example.org/", False), ("console", False),
    ],
)  # fmt: skip
def test_the_api_key_goes_over_no_open_network(address, good):
    """http:// is for this machine alone."""

    def settings() -> NeonProvider:
        return NeonProvider(api_key_env="K", project="p", branch="b", base_url=address)

    if good:
        assert settings().base_url == address
    else:
        with pytest.raises(ValidationError):
            settings()
