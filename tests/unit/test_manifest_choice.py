"""Which integrity manifest speaks for a target."""

from datetime import UTC, datetime

import pytest

from fixtures.checks.exact import IntegrityManifest, choose
from fixtures.checks.manifested import key_of
from fixtures.checks.sums import TableSum
from fixtures.postgres.lsn import Lsn
from fixtures.providers.base import Target, TargetKind

LATER = Target(kind=TargetKind.TIME, value="", at=datetime(2026, 1, 2, tzinfo=UTC))
LINEAGE = ((3, Lsn(0x500)), (1, Lsn(0)))


def manifest(
    position: str, *, timeline: int = 1, cluster: str = "7", exactness: str = "standby", point: str = ""
) -> IntegrityManifest:
    """Return one without content."""
    return IntegrityManifest(
        taken_at=datetime(2026, 1, 1, tzinfo=UTC), system_identifier=cluster, timeline=timeline,
        exactness=exactness, position=position, restore_point=point, settled_before=1, cluster={}, settings={}, databases={},
    )  # fmt: skip


def chosen(*manifests: IntegrityManifest, target: Target = LATER, reached: int = 0x400) -> str:
    """Return the position of the one chosen, "" for none."""
    found = choose(manifests, target=target, system_identifier="7", lineage=LINEAGE, reached=Lsn(reached))
    return found.position if found else ""


def test_the_newest_at_or_before_the_target_is_chosen() -> None:
    """One behind the stop proves nothing of it."""
    assert chosen(manifest("0/100"), manifest("0/300"), manifest("0/401"), manifest("0/200")) == "0/300"
    assert chosen(manifest("0/401")) == ""
    assert chosen() == ""


def test_the_targets_own_goes_first() -> None:
    """A named point, or a position with an exclusive stop, is the manifest's own moment."""
    here = manifest("0/100", point="integrity-x")
    assert (
        chosen(here, manifest("0/300"), target=Target(kind=TargetKind.NAME, value="integrity-x")) == "0/100"
    )
    exclusive = Target(kind=TargetKind.LSN, value="0/100", exclusive=True)
    assert chosen(manifest("0/100"), manifest("0/300"), target=exclusive) == "0/100"
    inclusive = Target(kind=TargetKind.LSN, value="0/100")
    assert not manifest("0/100").is_at(inclusive)
    assert not manifest("0/100", exactness="fuzzy").is_at(exclusive)


@pytest.mark.parametrize(
    "stranger",
    [manifest("0/300", cluster="8"), manifest("0/300", timeline=2), manifest("0/600", timeline=1)],
    ids=[
        "another cluster",
        "a timeline production never was on",
        "behind where production left the timeline",
    ],
)
def test_strangers_are_left_out(stranger: IntegrityManifest) -> None:
    """A manifest of another history says nothing about this one."""
    assert chosen(stranger, reached=0x700) == ""


def test_a_manifest_of_an_ancestor_counts() -> None:
    """What was taken before the switch of timelines is part of the history."""
    assert chosen(manifest("0/400"), manifest("0/550", timeline=3), reached=0x700) == "0/550"
    assert chosen(manifest("0/400"), reached=0x700) == "0/400"


def summed(rows: dict[int, int]) -> TableSum:
    """Return the sums of rows given as key -> 64-bit hash."""
    weighted = sum((each & (1 << 31) - 1) * (key & (1 << 32) - 1) for key, each in rows.items())
    return TableSum(rows=len(rows), checksum=f"h{sum(rows.values())}", max_key=None, weighted=f"w{weighted}")


def test_the_only_row_that_differs_is_named() -> None:
    """Changed up or down, lost or added; several are not mistaken for one."""
    rows = {key: (key * 0x9E3779B97F4A7C15) % (1 << 64) - (1 << 63) for key in range(1, 200)}
    for number in (1, 57, 199):
        for change in (-7_000_000_001, 3):
            assert key_of(summed(rows), summed({**rows, number: rows[number] + change})) == number
        less = {key: each for key, each in rows.items() if key != number}
        assert key_of(summed(rows), summed(less)) == number
        assert key_of(summed(less), summed(rows)) == number
    assert key_of(summed(rows), summed({**rows, 5: rows[5] + 12345, 6: rows[6] - 999})) is None
    assert key_of(summed(rows), summed(rows)) is None
