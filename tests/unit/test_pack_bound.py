"""The moment a pack begins at: what lies behind it is in no copy."""

from datetime import UTC, datetime, timedelta

import pytest

from fixtures.actions.pack import bound

ACCEPTED = datetime(2026, 11, 28, 7, 44, 40, 777_000, tzinfo=UTC)
EARLIER, LATER = ACCEPTED - timedelta(seconds=1), ACCEPTED + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("managed", "last", "since"),
    [
        (True, EARLIER, EARLIER),  # a service stopped before the target, or a snapshot is older than the lock
        (True, LATER, ACCEPTED),
        (True, None, ACCEPTED),
        (False, EARLIER, ACCEPTED),  # our own replay went up to the target
    ],
)
def test_a_managed_copys_last_commit_bounds_the_pack(
    managed: bool, last: datetime | None, since: datetime
) -> None:
    """What a service's copy lacks is in the pack, wherever the target lies."""
    assert bound(ACCEPTED, last, managed=managed) == since
