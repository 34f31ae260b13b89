"""What checks declare about themselves is what they answer."""

from fixtures.checks import GROUPS
from fixtures.checks.catalogue import CATALOGUE


def test_every_group_declares_its_checks() -> None:
    """The catalogue has the groups that are asked, in their order, none empty."""
    assert list(CATALOGUE) == list(GROUPS)
    assert all(group.checks for group in CATALOGUE.values())


def test_a_check_is_declared_once() -> None:
    """An id says which check answered."""
    ids = [each.id for group in CATALOGUE.values() for each in group.checks]

    assert sorted(ids) == sorted(set(ids))
