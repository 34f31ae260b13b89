"""The provider `neon` where Neon's own work fails; the simulated production stays half-made behind it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.errors import ProviderError
from fixtures.postgres.binaries import Binaries
from fixtures.providers import access
from fixtures.providers.base import Capture
from tests.real.neon_world import TOKEN, NeonWorld, neon_world
from tests.real.test_provider_neon import KEY_VARIABLE, at, in_place, quiet


@pytest.fixture
def neon(public_dir: Path, binaries: Binaries, monkeypatch: pytest.MonkeyPatch) -> Iterator[NeonWorld]:
    """One project for one test."""
    monkeypatch.setenv(KEY_VARIABLE, TOKEN)
    with neon_world(public_dir, binaries) as world:
        world.own("PATCH", "/project", json={"branches_limit": 100})
        yield world


def test_a_way_back_that_failed_is_not_taken_for_done(neon: NeonWorld) -> None:
    """What is kept has its name before the work on it is done: a second attempt waits for the work, too."""
    moment = neon.insert(431)
    neon.insert(432)
    own = in_place(neon, "p4")
    restored = own.start(own.plan(at(moment)), quiet)
    own.admit(restored.ref, Capture(), archive=None, base_backups=None, supervisor=None, allowed={})
    neon.own("POST", "/operation-faults", json={"action": "create_branch", "error": "storage is busy"})

    with pytest.raises(ProviderError, match="storage is busy"):
        own.isolate(restored.ref)

    other = in_place(neon, "p4")
    # nobody waits for an end that will not come before asking where production is
    assert access.production_now("p4") is None
    other._api._operations._timeout_s = 3
    with pytest.raises(ProviderError, match="RB315"):
        other.isolate(restored.ref)
