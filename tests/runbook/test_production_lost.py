"""A production that goes away between two steps: nobody is served before it is positively fenced."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.postgres.binaries import Binaries
from tests.runbook.incident_claims import arguments, assert_locked, assert_served_right, times_done
from tests.runbook.incident_parts import NAME
from tests.runbook.incident_sessions import TYPED, Session
from tests.runbook.incident_world import Shop, open_shop


@pytest.fixture
def shop(public_dir: Path, binaries: Binaries) -> Iterator[Shop]:
    """A damaged shop whose customers keep ordering."""
    with open_shop(public_dir, binaries) as shop:
        shop.edit("[safety_copy]", '[safety_copy]\nmode = "physical"')
        yield shop.damage()


def says(session: Session, code: int, *wanted: str) -> None:
    """The session ended with this code and said all of this."""
    assert session.code == code, session.output[-3000:]
    assert [text for text in wanted if text not in session.output] == [], session.output[-3000:]


def test_a_production_that_goes_away_is_never_replaced_unfenced(shop):
    """After the safety copy, and again before the switch: stopped, told what to do; back, or fenced, it goes on."""
    url = shop.command("database-url", "read")
    stopped = shop.at_terminal(*arguments(shop), "--until=pre_restore_backup")
    run_id = stopped.run_id
    says(stopped, 11, "writable: neither; production is fenced | fence: held")
    assert "its lock was interrupted" not in stopped.output

    shop.stop_postgres()
    says(
        shop.at_terminal(f"--resume={run_id}"), 1,
        "RB401 cannot log in to production", "check production.dsn", f"pytest --resume={run_id}",
    )  # fmt: skip
    assert times_done(shop, run_id, "restore to isolated instance") == 0
    assert shop.get("/up") == 503

    # it comes back: the lock is in its catalogs, and the run goes on, until it goes away once more
    shop.start_postgres()
    assert_locked(shop)

    def lose_it(gate: str, role: str) -> str:
        if (gate, role) == ("cutover", "reviewer"):
            shop.stop_postgres()
        return NAME if gate in TYPED and role == "owner" else "yes"

    lost = shop.at_terminal(f"--resume={run_id}", answer=lose_it)
    says(lost, 1, "fence: could not be asked", "no client commit since the lock: could not be asked")
    assert ("lift_maintenance", "owner") not in lost.gates
    assert times_done(shop, run_id, "rotate connection string 1") == 0
    assert shop.command("database-url", "read") == url
    assert shop.get("/up") == 503

    # it stays away: declared and fenced, in a run of its own
    says(shop.run(f"--rollback={run_id}"), 1)
    shop.edit(
        'app_role = "shop_app"', f'app_role = "shop_app"\nstate = "down"\nfence = ["{shop.home}/bin/fence"]'
    )
    says(
        shop.at_terminal(*arguments(shop)), 4,
        f"RB313 {shop.home}/archive-2 is not empty and not of this run", "HINT: name an empty folder",
    )  # fmt: skip
    shop.edit(f"{shop.home}/archive-2", f"{shop.home}/again/archive")
    shop.edit(f"{shop.home}/backups-2", f"{shop.home}/again/backups")
    session = shop.at_terminal(*arguments(shop))
    assert_served_right(shop, session)
    assert (shop.home / "fenced").exists()
    assert "NO ROLLBACK TARGET" in session.output
