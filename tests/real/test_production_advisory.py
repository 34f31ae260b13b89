"""The advisory lock inside production."""

import pytest

from fixtures.errors import LeaseError
from fixtures.postgres.session import connect
from fixtures.production.advisory import AdvisoryLock
from fixtures.production.lock import close


def test_a_second_runbook_is_told_and_a_lost_session_is_taken_again(new_server):
    """One holder at a time; the write lock spares it; a lost session is replaced, not believed."""
    server = new_server()
    server.wait_ready(server.start({"fsync": "off"}))
    with connect(server.endpoint) as session:
        session.do("CREATE ROLE app LOGIN")
    first, second = AdvisoryLock(server.endpoint), AdvisoryLock(server.endpoint)
    first.hold()
    with pytest.raises(LeaseError) as caught:
        second.hold()
    assert caught.value.code == "RB205"
    assert "postgres" in caught.value.fact

    close(server.endpoint, ["postgres"], app_role="app")
    first.hold()
    with pytest.raises(LeaseError):
        second.hold()
    with connect(server.endpoint) as session:
        session.rows("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    first.hold()
    with pytest.raises(LeaseError):
        second.hold()
    first.release()
    second.hold()
    second.release()
