"""The world of the corpus, made once for all its files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.postgres.binaries import Binaries
from tests.faults.schema import STORY
from tests.faults.world import World, incident


@pytest.fixture(scope="session")
def world(public_dir: Path, binaries: Binaries) -> Iterator[World]:
    """Production after its damage, and the backup to restore it from."""
    with incident(public_dir, binaries, STORY) as made:
        yield made
