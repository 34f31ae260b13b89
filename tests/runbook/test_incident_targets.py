"""Targets at the write lock through whole incidents: what lies behind it is refused, `latest` means it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.postgres.binaries import Binaries
from fixtures.postgres.lsn import Lsn
from tests.runbook.incident_claims import assert_locked, assert_served_right, times_done
from tests.runbook.incident_sessions import Session
from tests.runbook.incident_world import Shop, open_shop

#: bytes of log nobody writes during a test
FAR = 1 << 30


@pytest.fixture
def shop(public_dir: Path, binaries: Binaries) -> Iterator[Shop]:
    """A shop whose customers keep ordering; nothing is damaged, so that its last rows can be restored."""
    with open_shop(public_dir, binaries) as shop:
        shop.edit("[safety_copy]", '[safety_copy]\nmode = "keep"')
        shop.wait_for_orders(20)
        yield shop


def assert_refused(shop: Shop, session: Session, fact: str) -> None:
    """Refused with code, fact, place and next command; nothing was restored, no gate asked, the lock stays."""
    assert session.code == 1, session.output[-3000:]
    wanted = (
        f"RB304 {fact} is after the write lock",
        "at: write lock at ",
        "HINT: restore everything up to the lock: --target-time=latest",
    )
    assert [text for text in wanted if text not in session.output] == [], session.output[-3000:]
    assert times_done(shop, session.run_id, "restore to isolated instance") == 0
    assert not list((shop.home / "restored").rglob("PG_VERSION"))
    assert {gate for gate, _ in session.gates} <= {"production_name"}
    assert_locked(shop)


def test_what_lies_behind_the_lock_is_refused_and_latest_restores_every_order(shop):
    """A position and a restore point behind the lock restore nothing; the command both name serves every order."""
    with shop.admin() as session:
        end = Lsn.parse(session.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()[0])
    far = Lsn(end.value + FAR)
    assert_refused(shop, shop.at_terminal(f"--config={shop.config}", f"--target-lsn={far}"), f"LSN {far}")

    stopped = shop.at_terminal(
        f"--config={shop.config}", "--target-name=too late", "--until=pre_restore_backup"
    )
    assert stopped.code == 11, stopped.output[-3000:]
    assert "writable: neither; production is fenced | fence: held" in stopped.output
    assert "its lock was interrupted" not in stopped.output
    with shop.admin() as session:  # the lock does not hold off a superuser
        session.execute("SELECT pg_create_restore_point('at the lock')")
        session.execute("SELECT pg_create_restore_point('too late')")
    late = shop.at_terminal(f"--resume={stopped.run_id}")
    assert_refused(shop, late, "restore point 'too late'")

    taken = list(shop.orders)
    latest = shop.at_terminal(f"--config={shop.config}", "--target-time=latest")
    assert_served_right(shop, latest)
    served = shop.served_orders()
    assert [order for order in taken if served.get(order.key) != order.cents] == []
    assert "discards everything committed on shop-production after latest" in latest.output
    assert "0 transactions, 0 rows" in latest.output
