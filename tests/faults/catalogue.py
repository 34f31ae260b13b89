"""Every fault of the corpus."""

from tests.faults import cluster, physical, privileges, rows, structure
from tests.faults.fault import Fault

SUBJECTS: dict[str, tuple[Fault, ...]] = {
    "structure": structure.FAULTS,
    "privileges": privileges.FAULTS,
    "rows": rows.FAULTS,
    "files": physical.FAULTS,
    "the whole, the moment, surroundings": cluster.FAULTS,
}
FAULTS: tuple[Fault, ...] = tuple(fault for faults in SUBJECTS.values() for fault in faults)
