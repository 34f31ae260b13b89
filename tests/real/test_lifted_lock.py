"""A copy restored behind a write lock is opened to the checks and the canary, whoever put the lock there."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.actions.restore import _lift_earlier_lock
from fixtures.journal import Undo, When
from fixtures.postgres.server import Server
from fixtures.postgres.session import Endpoint, connect
from fixtures.production.lock import close, open_layers, original, to_json
from fixtures.providers.base import Target, TargetKind

LATEST = Target(kind=TargetKind.LATEST)
SNAPSHOT = Target(kind=TargetKind.SNAPSHOT, value="s")


@pytest.mark.parametrize(
    ("host", "target", "opened"), [("", LATEST, True), ("", SNAPSHOT, False), ("/sockets", LATEST, False)]
)
def test_a_services_latest_copy_is_opened_again(
    new_server: Callable[..., Server], host: str, target: Target, opened: bool
) -> None:
    """AWS restores "latest" with the run's own lock in it; another copy that is closed was so at its target."""
    server = new_server("copy")
    server.wait_ready(server.start({"fsync": "off", "listen_addresses": "", "autovacuum": "off"}))
    with connect(server.endpoint) as session:
        session.do("CREATE ROLE keeper LOGIN CREATEROLE IN ROLE pg_signal_backend, pg_monitor")
        session.do("CREATE ROLE shop LOGIN")
        session.do("GRANT shop TO keeper WITH ADMIN OPTION")
        session.do("CREATE DATABASE shop OWNER keeper")
    keeper = Endpoint(str(server.sockets), server.port, "keeper", "shop")
    before = original(keeper, ["shop"], app_role="shop")
    close(keeper, ["shop"], app_role="shop")
    undo = Undo(name="production_open", args={"original": to_json(before)}, when=When.RELEASE)
    run: Any = SimpleNamespace(
        journal=SimpleNamespace(events=[]), target=target, state=SimpleNamespace(open_undo={1: undo}),
        config=SimpleNamespace(
            settings=SimpleNamespace(
                databases=[SimpleNamespace(name="shop")], production=SimpleNamespace(app_role="shop")
            )
        ),
        change=lambda *_, **__: nullcontext(),
    )  # fmt: skip
    ref: Any = SimpleNamespace(host=host, endpoint=keeper, name="copy")

    _lift_earlier_lock(run, ref)

    assert (open_layers(keeper, ["shop"], app_role="shop") != ()) is opened
    assert (original(keeper, ["shop"], app_role="shop") == before) is opened
