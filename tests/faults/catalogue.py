"""Every fault of the corpus."""

from tests.faults import cluster, physical, privileges, rows, structure
from tests.faults.fault import Fault

FAULTS: tuple[Fault, ...] = (
    *structure.FAULTS,
    *privileges.FAULTS,
    *rows.FAULTS,
    *physical.FAULTS,
    *cluster.FAULTS,
)
