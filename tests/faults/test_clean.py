"""What is whole raises no alarm, and what is asked is declared."""

from pathlib import Path

from fixtures.checks.catalogue import CATALOGUE
from fixtures.checks.declared import Severity
from fixtures.evidence import Verdict
from fixtures.postgres.binaries import Binaries
from tests.faults import shapes
from tests.faults.catalogue import FAULTS
from tests.faults.fault import Fault
from tests.faults.world import World, copy_of, done, fired, incident

DECLARED = [each for group in CATALOGUE.values() for each in group.checks]
NOTHING = Fault(name="nothing", fires={})


def test_the_clean_copy_raises_no_alarm(world: World) -> None:
    """Damage and rightful changes of production after the target are told from faults of the restore."""
    with copy_of(world) as copy:
        checks = done(copy, NOTHING)
    declared = {name: next((each for each in DECLARED if each.names(name)), None) for name in checks}

    assert fired(checks) == {}
    assert [name for name, each in declared.items() if each is None] == []
    assert [
        name for name, each in declared.items()
        if each and checks[name].verdict is not Verdict.NOT_CONFIGURED  # never blocks, whatever its severity
        and checks[name].blocking is not (each.severity is Severity.ABORT)
    ] == []  # fmt: skip


def test_ten_clean_databases_of_other_shapes_raise_no_alarm(public_dir: Path, binaries: Binaries) -> None:
    """What a database is made of is no fault."""
    with incident(public_dir, binaries, shapes.STORY) as made, copy_of(made) as copy:
        checks = done(copy, NOTHING)

    assert len(shapes.STORY.names) == 10
    assert fired(checks) == {}


def test_the_corpus_names_each_fault_once() -> None:
    """A hundred faults and more, and every expectation is of a check that is declared."""
    unknown = {
        name for fault in FAULTS for name in fault.fires if not any(each.names(name) for each in DECLARED)
    }

    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 100
    assert unknown == set()
