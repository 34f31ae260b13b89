"""A difference from production is a fault, explained by what came after the target, or doubtful."""

from dataclasses import replace

import pytest

from fixtures.checks.comparing import EPOCH, Moment, Side, Verdicts, compared
from fixtures.checks.fingerprint import Line
from fixtures.checks.subject import Subject
from fixtures.providers.base import RestoredInstance

#: transactions below 100 are the target's, but for 95, which had not ended
SNAPSHOT = "95:100:95"
TABLE = ("table", "public.users")


def side(**lines: tuple[int, int]) -> Side:
    """Return a side; names are `kind__schema_name` with the digest and the transaction that wrote it."""
    found = {}
    for key, (digest, version) in lines.items():
        kind, _, name = key.partition("__")
        found[kind, name.replace("_of_", ".").replace("_in_", ".")] = Line(digest=digest, versions=(version,))
    return Side(lines=found, next_xid=200, names={})


def copy_of(snapshot: str = SNAPSHOT, own: str = "") -> Subject:
    """Return a copy of which nothing but its transactions is known."""
    subject = object.__new__(Subject)
    instance = object.__new__(RestoredInstance)
    object.__setattr__(instance, "origin", object() if own else None)
    object.__setattr__(subject, "snapshot", snapshot)
    object.__setattr__(subject, "own_snapshot", own)
    object.__setattr__(subject, "instance", instance)
    return subject


def told(
    ours: Side,
    theirs: Side,
    *,
    migrated: bool = False,
    snapshot: str = SNAPSHOT,
    own: str = "",
    **more: object,
) -> Verdicts:
    """Return the verdicts of the only kind that differs; `own` is a logical copy's snapshot of itself."""
    found = compared(copy_of(snapshot, own), ours, theirs, migrated=migrated, **more)
    assert len(found) <= 1, found
    return next(iter(found.values()), Verdicts())


def test_equal_objects_make_no_difference() -> None:
    """Whoever wrote them, and when."""
    assert told(side(view__a=(1, 50)), side(view__a=(1, 150))) == Verdicts()


@pytest.mark.parametrize(
    ("ours", "theirs", "group"),
    [
        (side(), side(view__a=(1, 50)), "faults"),
        (side(view__a=(2, 60)), side(view__a=(1, 50)), "faults"),
        (side(view__a=(2, 150)), side(view__a=(1, 50)), "faults"),
        (side(view__a=(2, 150)), side(), "faults"),
        (side(view__a=(2, 60)), side(view__a=(1, 150)), "explained"),
        (side(view__a=(2, 60)), side(view__a=(1, 95)), "explained"),
        (side(view__a=(2, 60)), side(), "explained"),
        (side(), side(view__a=(1, 150)), "explained"),
    ],
    ids=[
        "lost", "not what production had", "changed after recovery", "made after recovery",
        "changed on production later", "changed by what had not ended", "dropped on production", "made on production",
    ],
)  # fmt: skip
def test_who_wrote_a_row_decides(ours: Side, theirs: Side, group: str) -> None:
    """Production's row from before the target must be in the copy; a later one explains the difference."""
    verdicts = told(ours, theirs)

    assert {name: len(getattr(verdicts, name)) for name in ("faults", "doubtful", "explained")} == {
        "faults": 0, "doubtful": 0, "explained": 0, group: 1,
    }  # fmt: skip


def test_migrations_and_unknown_targets_leave_a_doubt() -> None:
    """What a migration may have changed, and what no snapshot tells, is shown and no fault."""
    ours, theirs = side(view__a=(2, 150)), side(view__a=(1, 50))

    assert len(told(ours, theirs, migrated=True).doubtful) == 1
    assert len(told(ours, theirs, snapshot="").doubtful) == 1


def test_a_migrated_tables_own_objects_are_left_out() -> None:
    """Its columns and sequences are; another table whose name begins alike is not."""
    ours = side()
    mine = side(column__public_of_users_in_id=(1, 50))
    other = side(column__public_of_users_archive_in_id=(1, 50))

    assert told(ours, mine, migrated=True, tables=("public.users",)) == Verdicts()
    assert len(told(ours, other, migrated=True, tables=("public.users",)).faults) == 1


def test_a_rename_on_production_explains_a_definition() -> None:
    """A text that names a column changes with the column's name, although its own row stays."""
    ours = side(column__public_of_t_in_old=(1, 50), index__public_of_t_in_i=(1, 50))
    theirs = side(column__public_of_t_in_new=(1, 150), index__public_of_t_in_i=(2, 50))
    found = compared(copy_of(), ours, theirs, migrated=False)

    assert all(not verdicts.faults for verdicts in found.values())
    assert found["index"].explained == ["index public.t.i changed"]


def test_ids_get_their_epoch_back() -> None:
    """A row's 32 bits stand for the newest transaction that had them."""
    moment = Moment.parse(f"{EPOCH + 10}:{EPOCH + 20}:")

    assert moment is not None
    assert moment.holds(15, next_xid=EPOCH + 30)
    assert not moment.holds(25, next_xid=EPOCH + 30)
    assert moment.holds(4_000_000_000, next_xid=EPOCH + 30)


@pytest.mark.parametrize(
    ("ours", "theirs", "group"),
    [
        (side(view__a=(2, 600)), side(view__a=(1, 150)), "explained"),
        (side(view__a=(2, 600)), side(view__a=(1, 50)), "faults"),
        (side(view__a=(2, 900)), side(view__a=(1, 150)), "faults"),
        (side(view__a=(2, 900)), side(), "faults"),
    ],
    ids=["changed on production later", "not what production had", "changed since it was filled", "made since"],
)  # fmt: skip
def test_a_logical_copy_has_ids_of_its_own(ours: Side, theirs: Side, group: str) -> None:
    """The dump's snapshot judges production's rows, the copy's own snapshot its rows."""
    ours = replace(ours, next_xid=1000)

    verdicts = told(ours, theirs, own="800:800:")

    assert len(getattr(verdicts, group)) == 1


def test_equal_numbers_of_a_logical_copy_explain_nothing() -> None:
    """A role of the same number with another name is no renamed one there."""
    ours = replace(side(view__a=(2, 60)), names={16400: "app"})
    theirs = replace(side(view__a=(1, 50)), names={16400: "report"})

    assert told(ours, theirs).explained
    assert told(ours, theirs, own="800:800:").faults
