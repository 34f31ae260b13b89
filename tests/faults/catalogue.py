"""Every fault of the corpus."""

from tests.faults import privileges, rows, structure
from tests.faults.fault import Fault

FAULTS: tuple[Fault, ...] = (*structure.FAULTS, *privileges.FAULTS, *rows.FAULTS)
