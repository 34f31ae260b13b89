"""A checkpoint that takes a segment away as soon as it is archived."""

from collections.abc import Callable

import pytest

from fixtures.postgres.session import connect
from fixtures.providers.local import protect
from fixtures.providers.local.instance import Instance


def recycle_first(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have the first segment that is waited for recycled once it has arrived; return the names waited for."""
    wait = protect.await_arrival
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

    monkeypatch.setattr(protect, "await_arrival", and_recycle)
    return waited
