"""A checkpoint that takes a segment away as soon as it is archived."""

from collections.abc import Callable
from importlib import import_module

import pytest

from fixtures.postgres.session import connect
from fixtures.providers.local.instance import Instance


def recycle_first(monkeypatch: pytest.MonkeyPatch, module: str) -> list[str]:
    """Have the first segment that a module waits for recycled once it has arrived; return the names it waited for."""
    wait: Callable[[Instance, str, Callable[[], bool]], None] = import_module(module).await_arrival
    waited: list[str] = []

    def and_recycle(instance: Instance, name: str, arrived: Callable[[], bool]) -> None:
        wait(instance, name, arrived)
        waited.append(name)
        segment = instance.folder.data / "pg_wal" / name
        if len(waited) == 1:
            with connect(instance.ref.endpoint) as session:
                while segment.exists():  # each checkpoint takes what was archived before it
                    session.do("SELECT pg_switch_wal()")
                    session.do("CHECKPOINT")

    monkeypatch.setattr(f"{module}.await_arrival", and_recycle)
    return waited
