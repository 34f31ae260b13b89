"""The ways a drill's production is backed up: their names, and the providers that read them."""

import pytest

from fixtures.drill.archiving import ARCHIVING, choose_archiving, timelines
from fixtures.errors import UsageError
from fixtures.providers import REGISTRY


def test_a_way_is_known_by_its_name() -> None:
    """Its name is what --provider takes; what reads it is a restore provider."""
    assert [way.name for way in ARCHIVING.values()] == list(ARCHIVING)
    assert {way.provider for way in ARCHIVING.values()} <= set(REGISTRY)


def test_an_unknown_way_is_refused_with_those_known() -> None:
    """Before a world is built."""
    with pytest.raises(UsageError) as error:
        choose_archiving("nobody")

    assert error.value.code == "RB101"
    assert "basebackup" in error.value.hints[0]


def test_timelines_are_read_from_names() -> None:
    """Segments, packed or not, backup labels and histories have one; a store's own files have none."""
    names = [
        "000000020000000000000003-0a1b.gz",
        "00000003.history",
        "archive.info",
        "00000001000000000000000A",
    ]

    assert list(timelines(names)) == [(names[0], 2), (names[1], 3), (names[3], 1)]
