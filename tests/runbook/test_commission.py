"""A commissioning that fails: nothing is switched, production stays the one to go back to, and a resume goes on."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fixtures.postgres.binaries import Binaries
from fixtures.postgres.server import free_port
from tests.runbook.incident_claims import arguments, assert_locked, assert_served_right, times_done
from tests.runbook.incident_sessions import Session
from tests.runbook.incident_world import Shop, open_shop


@pytest.fixture
def shop(public_dir: Path, binaries: Binaries) -> Iterator[Shop]:
    """A damaged shop whose customers keep ordering."""
    with open_shop(public_dir, binaries) as shop:
        shop.edit("[safety_copy]", '[safety_copy]\nmode = "keep"')
        yield shop.damage()


def assert_failed_before_the_switch(shop: Shop, session: Session, *wanted: str) -> None:
    """Step 9 failed with code, fact, place and next command; production is fenced and unchanged, users wait."""
    assert session.code == 1, session.output[-3000:]
    wanted = (*wanted, f"pytest --resume={session.run_id}", "rollback target: production behind its fence")
    assert [text for text in wanted if text not in session.output] == [], session.output[-3000:]
    assert "s09.commissioned failed" in (shop.home / "tickets" / "escalations.log").read_text()
    assert ("lift_maintenance", "owner") not in session.gates
    assert times_done(shop, session.run_id, "rotate connection string 1") == 0
    assert shop.command("database-url", "read").endswith(f":{shop.port}/shop")
    assert_locked(shop)


def test_a_failing_commission_switches_nothing_and_is_mended(shop):
    """A new archive nobody can write to, then a port somebody took: each rolled back, mended, resumed."""
    port, archive = free_port(), shop.home / "archive-2"
    shop.edit("[restore]", f"[restore]\nport = {port}")
    archive.chmod(0o555)

    failed = shop.at_terminal(*arguments(shop))
    assert_failed_before_the_switch(
        shop, failed, "RB313 the server's user cannot write into a new place", f"at: {archive}",
        "HINT: make it writable for that user, then --resume",
    )  # fmt: skip

    archive.chmod(0o755)
    with closing(socket.create_server(("127.0.0.1", port))):
        taken = shop.at_terminal(f"--resume={failed.run_id}")
    assert_failed_before_the_switch(
        shop, taken, f"RB313 the copy cannot listen at 127.0.0.1:{port}", f"HINT: end what listens at 127.0.0.1:{port}",
    )  # fmt: skip

    session = shop.at_terminal(f"--resume={failed.run_id}")
    assert_served_right(shop, session)
    assert shop.command("database-url", "read").endswith(f":{port}/shop")
    assert times_done(shop, failed.run_id, "restore to isolated instance") == 1
    assert any(path.stat().st_size for path in archive.glob("0*"))
