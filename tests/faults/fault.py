"""What a fault is: how it is done to a restored copy, and which checks must see it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.faults.world import Copy

FAIL = "fail"
#: could not be verified, and says why
OPEN = "could-not-verify"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    One way in which a restore goes wrong.

    Attributes:
        name: the test's id.
        fires: id of every check that must not be green -> its verdict; all others must be.
        sql: statements in the running copy.
        database: where they run.
        offline: done to the stopped copy, after the statements.
        online: done to the running copy, right before it is asked.
        target: to which the copy was restored.
        late: whether it happens after step 5 took its references.
        settings: server's command line.
        stops: whether the run ends with the first group that sees it, as abort-grade findings do.
        unreadable: whether other checks may say that they could not read for it.
    """

    name: str
    fires: Mapping[str, str]
    sql: tuple[str, ...] = ()
    database: str = "shop"
    offline: Callable[[Copy], None] | None = None
    online: Callable[[Copy], None] | None = None
    target: str = "right"
    late: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    stops: bool = False
    unreadable: bool = False


def sql(
    name: str,
    fires: str | Mapping[str, str],
    *statements: str,
    late: bool = False,
    database: str = "shop",
    stops: bool = False,
) -> Fault:
    """Return a fault made by statements; `fires` as text names one check that fails."""
    return Fault(
        name=name, fires={fires: FAIL} if isinstance(fires, str) else fires, sql=statements, late=late,
        database=database, stops=stops,
    )  # fmt: skip
