"""A drill's production that dies: its fence, its end, and the outside audit's questions about both."""

import shutil
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from fixtures.command import run
from fixtures.drill.audit import last_word
from fixtures.drill.audit_dead import (
    copy_holds_all,
    opened_copy,
    stays_fenced,
    unarchived_served,
    unchanged_since_death,
)
from fixtures.drill.record import end_world
from fixtures.drill.world import World, build_world
from fixtures.evidence import Verdict
from fixtures.postgres.session import answers, connect
from fixtures.settings import Embedded

SMALL = Embedded(users=60, warmup=timedelta(seconds=0.4), writers=2)
FENCE_S = 60.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose production was damaged and died."""
    record = tmp_path_factory.mktemp("run") / "world.json"
    world = build_world(
        run_id="20251005T123400Z-abce", folder=Path(f"/tmp/rrb-{uuid.uuid4().hex[:6]}"), record=record,  # noqa: S108
        shape=SMALL, seed=11, scale=1.0, disaster="delete-down", progress=lambda _: None,
    )  # fmt: skip
    try:
        yield world
    finally:
        end_world(record)


def keep(world: World) -> Path:
    """Make a safety copy as the runbook would."""
    kept = world.places.safety / "a-run" / "data"
    kept.parent.mkdir()
    run(["cp", "-a", world.places.data, kept], timeout_s=FENCE_S)
    return kept


def test_it_is_down_as_it_died(world: World) -> None:
    """Nothing answers, nothing starts it again, and its files are those it died with."""
    assert not answers(world.production)
    assert world.server.pid() is None
    assert unchanged_since_death(world).verdict is Verdict.PASS


def test_its_safety_copy_holds_what_it_acknowledged(world: World) -> None:
    """The copy is opened; a missing one, and one that lacks a row, are found out."""
    until = last_word(world)
    with opened_copy(world) as nothing:
        assert nothing is None
    assert copy_holds_all(world, None, "", until=until).verdict is Verdict.FAIL
    kept = keep(world)

    with opened_copy(world) as copy:
        assert copy is not None
        whole = copy_holds_all(world, copy, "", until=until)
        unarchived = unarchived_served(world, copy, target_at=until, past_damage=True)
        nothing_asked = unarchived_served(
            world, copy, target_at=world.damage.at.replace(year=2000), past_damage=True
        )
        with connect(copy) as session:
            session.do("DELETE FROM public.stamps WHERE at = (SELECT max(at) FROM public.stamps)")
        lacking = copy_holds_all(world, copy, "", until=until)
        lost = unarchived_served(world, copy, target_at=until, past_damage=True)

    assert [whole.verdict, unarchived.verdict] == [Verdict.PASS, Verdict.PASS]
    assert nothing_asked.verdict is Verdict.COULD_NOT_VERIFY
    assert [lacking.verdict, lost.verdict] == [Verdict.FAIL, Verdict.FAIL]
    assert "1 acknowledged row(s)" in lost.reason
    shutil.rmtree(kept.parent)


def test_its_fence_holds_until_somebody_lifts_it(world: World) -> None:
    """Fenced twice, it does not start and is not changed; unfenced it starts, and the fence ends what runs."""
    for _ in range(2):
        assert "none can start there" in run(world.fence, timeout_s=FENCE_S).stdout
    assert stays_fenced(world).verdict is Verdict.PASS
    assert unchanged_since_death(world).verdict is Verdict.PASS

    world.places.data.chmod(0o700)
    assert stays_fenced(world).verdict is Verdict.FAIL
    assert unchanged_since_death(world).verdict is Verdict.FAIL
    job = world.server.start(name="somebody-started-it")
    world.server.wait_ready(job)
    run(world.fence, timeout_s=FENCE_S)

    assert not answers(world.production)
    assert stays_fenced(world).verdict is Verdict.PASS
