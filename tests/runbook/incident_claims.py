"""What the shop's incidents are judged by: command line, lock, journal, what customers were told."""

from fixtures.journal import read_journal
from tests.runbook.incident_sessions import Session
from tests.runbook.incident_world import Shop


def arguments(shop: Shop, target: str = "") -> tuple[str, ...]:
    """Return the incident's command line."""
    return (
        f"--config={shop.config}",
        target or f"--target-time={shop.target.isoformat()}",
        f"--damaged-at={shop.damaged_at.isoformat()}",
    )


def times_done(shop: Shop, run_id: str, action: str) -> int:
    """Return how often a run announced a change."""
    events = read_journal(shop.checkout / "reports" / "runs" / run_id)
    return sum(1 for event in events if event.kind == "intent" and event.data["action"] == action)


def assert_locked(shop: Shop) -> None:
    """Nobody is served, nobody but the administrator gets in."""
    databases, roles = shop.access_rules()
    assert [row[1] for row in databases if row[0].startswith("shop")] == [0, 0]
    assert ("shop_app", False) in roles
    assert shop.get("/up") == 503
    assert shop.command("maintenance", "status") == "on"
    assert shop.command("settlement", "status") == "on"


def assert_served_right(shop: Shop, session: Session) -> None:
    """Every order taken before the target is served as it was ordered, none sent after it, and the shop is open."""
    assert session.code == 0, session.output[-3000:]
    assert shop.wrong_orders() == []
    shop.wait_for_orders(3)
