"""The simulator of Neon: real branches behind simulated calls, both held to the vendor's description."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from fixtures.command import wait_for
from fixtures.drill.neon_simulator.owner import OWNER
from fixtures.errors import DatabaseError
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.session import connect
from tests.real.neon_world import DATABASE, NeonWorld, neon_world


@pytest.fixture(scope="module")
def neon(public_dir: Path, binaries: Binaries) -> Iterator[NeonWorld]:
    """One project for all tests of this module."""
    with neon_world(public_dir, binaries) as world:
        world.own("PATCH", "/project", json={"branches_limit": 100})
        yield world


@pytest.fixture(autouse=True)
def kept_to_the_description(neon: NeonWorld) -> Iterator[None]:
    """No fault stays armed, and every answer kept to the description."""
    yield
    wait_for(lambda: _free(neon), timeout_s=60, what="the operations are over")
    neon.own("DELETE", "/faults")
    neon.own("PATCH", "/project", json={"history_retention_s": 86_400, "branches_limit": 100})
    assert neon.own("GET")["misses"] == []


def test_a_branch_holds_its_moment_and_nothing_later(neon: NeonWorld) -> None:
    """Every commit up to the timestamp is there, none after it; production goes on."""
    at = neon.insert(1)
    neon.insert(2)

    made = neon.create("then", parent_timestamp=at.isoformat())
    head = neon.create("now")

    assert neon.rows(made["id"]) == [1]
    assert neon.rows(head["id"]) == [1, 2]
    shown = neon.call("GET", f"/branches/{made['id']}", status=200)["branch"]
    assert shown["current_state"] == "ready"
    assert shown["parent_lsn"]


def test_a_branch_of_a_branch_has_its_ancestors_history(neon: NeonWorld) -> None:
    """A fork can be forked again, at a moment of its own."""
    first = neon.create("first")
    at = neon.insert(101, branch_id=first["id"])
    neon.insert(102, branch_id=first["id"])

    second = neon.create("second", parent_id=first["id"], parent_timestamp=at.isoformat())

    assert set(neon.rows(second["id"])) - set(neon.rows(neon.address.branch_id)) == {101}
    neon.call("DELETE", f"/branches/{first['id']}", status=422)  # it has a child
    neon.wait(neon.call("DELETE", f"/branches/{second['id']}", status=200))
    neon.call("DELETE", f"/branches/{second['id']}", status=204)
    neon.call("GET", f"/branches/{second['id']}", status=404)


def test_restoring_keeps_the_connection_string(neon: NeonWorld) -> None:
    """The branch's host, port and password stay, its data is of then, and what it held is preserved."""
    made = neon.create("stays")
    at = neon.insert(201, branch_id=made["id"])
    neon.insert(202, branch_id=made["id"])
    before = neon.endpoint(made["id"])
    body = {"source_branch_id": made["id"], "source_timestamp": at.isoformat()}
    neon.call("POST", f"/branches/{made['id']}/restore", json=body, status=422)  # nothing would be preserved

    answer = neon.call(
        "POST", f"/branches/{made['id']}/restore", json={**body, "preserve_under_name": "kept"}, status=200
    )

    assert answer["branch"]["current_state"] == "resetting"
    neon.wait(answer)
    assert neon.endpoint(made["id"]) == before
    assert {201, 202} & set(neon.rows(made["id"])) == {201}
    kept = next(b for b in neon.call("GET", "/branches", status=200)["branches"] if b["name"] == "kept")
    made_of = neon.call(
        "POST", "/endpoints", json={"endpoint": {"branch_id": kept["id"], "type": "read_write"}}, status=201
    )
    neon.wait(made_of)
    assert {201, 202} <= set(neon.rows(kept["id"]))


def test_a_snapshot_takes_a_branchs_place(neon: NeonWorld) -> None:
    """Finalized, the restored branch has name, standing and computes of the one it replaces."""
    neon.insert(301)
    main = neon.address.branch_id
    query = {"name": "before"}
    taken = neon.call("POST", f"/branches/{main}/snapshot", params=query, status=200)
    neon.wait(taken)
    neon.insert(302)
    target = neon.create("target")

    restored = neon.call(
        "POST", f"/snapshots/{taken['snapshot']['id']}/restore", status=200,
        json={"name": "restored", "target_branch_id": target["id"]},
    )  # fmt: skip
    neon.wait(restored)
    branch = restored["branch"]["id"]
    before = neon.endpoint(target["id"])
    neon.wait(neon.call("POST", f"/branches/{branch}/finalize_restore", json={}, status=200))

    assert neon.endpoint(branch) == before
    assert {301, 302} & set(neon.rows(branch)) == {301}
    assert neon.call("GET", f"/branches/{branch}", status=200)["branch"]["name"] == "target"
    assert neon.call("GET", f"/branches/{target['id']}", status=200)["branch"]["name"] == "target (old)"


def test_operations_of_a_project_never_overlap(neon: NeonWorld) -> None:
    """What needs a second one meanwhile is told to wait."""
    made = neon.call("POST", "/branches", json={"branch": {"name": "busy"}}, status=201)

    refused = neon.call("POST", "/branches", json={"branch": {"name": "other"}}, status=423)

    assert "conflicting operations" in refused["message"]
    neon.wait(made)


def test_a_suspended_compute_refuses_and_comes_back(neon: NeonWorld) -> None:
    """Suspend, start and restart act on a real server, which keeps its port."""
    made = neon.create("sleeper")
    endpoint = neon.call("GET", f"/branches/{made['id']}/endpoints", status=200)["endpoints"][0]["id"]
    where = neon.endpoint(made["id"])

    neon.wait(neon.call("POST", f"/endpoints/{endpoint}/suspend", status=200))
    with pytest.raises(DatabaseError), connect(where):
        pass
    neon.wait(neon.call("POST", f"/endpoints/{endpoint}/start", status=200))
    neon.wait(neon.call("POST", f"/endpoints/{endpoint}/restart", status=200))

    with connect(where) as session:
        assert session.value("SELECT 1") == 1


def test_children_of_a_protected_branch_have_passwords_of_their_own(neon: NeonWorld) -> None:
    """Production's password opens no child; the child's own does."""
    main = neon.address.branch_id
    neon.call("PATCH", f"/branches/{main}", json={"branch": {"protected": True}}, status=200)
    try:
        made = neon.create("child")
    finally:
        neon.call("PATCH", f"/branches/{main}", json={"branch": {"protected": False}}, status=200)
    theirs, ours = neon.endpoint(main), neon.endpoint(made["id"])

    assert theirs.password
    assert ours.password
    assert theirs.password.reveal() != ours.password.reveal()
    neon.rows(made["id"])
    with (
        pytest.raises(DatabaseError),
        connect(type(ours)(ours.host, ours.port, OWNER, DATABASE, theirs.password)),
    ):
        pass


def test_an_expired_branch_is_gone(neon: NeonWorld) -> None:
    """Its time is up: the branch and its server end by themselves."""
    made = neon.create("brief")
    where = neon.endpoint(made["id"])

    soon = {"branch": {"expires_at": "2020-01-01T00:00:00Z"}}
    neon.call("PATCH", f"/branches/{made['id']}", json=soon, status=200)

    def gone() -> bool:
        answer = neon.http.get(f"/projects/{neon.address.project_id}/branches/{made['id']}")
        return answer.status_code == httpx.codes.NOT_FOUND

    wait_for(gone, timeout_s=60, what="the branch is gone")

    def closed() -> bool:
        try:
            with connect(where):
                return False
        except DatabaseError:
            return True

    wait_for(closed, timeout_s=60, what="its server ended")


def test_moments_outside_the_window_are_refused(neon: NeonWorld) -> None:
    """The future, and what lies behind the retention; the words are marked as invented."""
    at = neon.insert(401)
    for moment in (at + timedelta(hours=1), at - timedelta(days=1)):
        body = {"branch": {"parent_timestamp": moment.isoformat()}}
        assert "invented" in neon.call("POST", "/branches", json=body, status=400)["message"]
    neon.own("PATCH", "/project", json={"history_retention_s": 0})

    body = {"branch": {"parent_timestamp": at.isoformat()}}
    assert "restore window" in neon.call("POST", "/branches", json=body, status=400)["message"]


def test_limits_and_restrictions_are_kept(neon: NeonWorld) -> None:
    """The plan's branch limit and a branch's restricted actions refuse."""
    made = neon.create("restricted")
    neon.own("PATCH", "/project", json={"branches_limit": 1})
    assert neon.call("POST", "/branches", status=422)["code"] == "BRANCHES_LIMIT_EXCEEDED"
    neon.own("POST", "/restrictions", json={"branch_id": made["id"], "name": "restore", "reason": "said so"})

    body = {"source_branch_id": neon.address.branch_id}
    assert "said so" in neon.call("POST", f"/branches/{made['id']}/restore", json=body, status=422)["message"]


def test_requests_are_held_to_the_description(neon: NeonWorld) -> None:
    """An unknown token, a wrong type, an unknown name and an unknown route are refused in the vendor's shape."""
    strangers = httpx.get(f"{neon.address.url}/projects", headers={"Authorization": "Bearer other"})
    assert strangers.status_code == httpx.codes.UNAUTHORIZED
    for body in ({"branch": {"parent_timestamp": "yesterday"}}, {"branch": {"nmae": "typo"}}, []):
        refused = neon.call("POST", "/branches", json=body, status=400)
        assert refused["message"].startswith("invalid request: ")
        assert refused["code"] == ""
    assert neon.call("GET", "/connection_uri", status=400)["message"].count("field required") == 2
    neon.call("GET", "/no/such/route", status=404)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        pytest.param("locked", 423, id="423"),
        pytest.param("rate-limited", 429, id="429"),
        pytest.param("unavailable", 503, id="503"),
        pytest.param("branch-not-ready", 422, id="422"),
        pytest.param("not-found-yet", 404, id="404"),
    ],
)
def test_armed_faults_strike_once(neon: NeonWorld, kind: str, status: int) -> None:
    """The next matching request meets the fault, the one after goes well."""
    neon.own("POST", "/faults", json={"kind": kind, "method": "GET", "path": "/branches$"})

    answer = neon.http.get(f"/projects/{neon.address.project_id}/branches")

    assert answer.status_code == status
    assert ("Retry-After" in answer.headers) == (kind == "rate-limited")
    neon.call("GET", "/branches", status=200)


def test_what_timed_out_may_have_been_done(neon: NeonWorld) -> None:
    """The edge gives up or the connection breaks, and the branch is there all the same."""
    neon.own(
        "POST", "/faults", json={"kind": "timeout-after-success", "method": "POST", "path": "/branches$"}
    )
    lost = neon.http.post(
        f"/projects/{neon.address.project_id}/branches", json={"branch": {"name": "lost-1"}}
    )
    assert (lost.status_code, lost.headers["Content-Type"]) == (524, "text/html")
    wait_for(lambda: _free(neon), timeout_s=60, what="the operations are over")
    neon.own(
        "POST", "/faults", json={"kind": "hang-up-after-success", "method": "POST", "path": "/branches$"}
    )
    with pytest.raises(httpx.RemoteProtocolError):
        neon.http.post(f"/projects/{neon.address.project_id}/branches", json={"branch": {"name": "lost-2"}})
    wait_for(lambda: _free(neon), timeout_s=60, what="the operations are over")

    names = {
        b["name"] for b in neon.call("GET", "/branches", params={"search": "lost"}, status=200)["branches"]
    }

    assert names == {"lost-1", "lost-2"}


def test_an_operation_can_fail(neon: NeonWorld) -> None:
    """The failed one says why, and what was to follow it is cancelled."""
    neon.own("POST", "/operation-faults", json={"action": "create_branch", "error": "out of luck"})
    body = {"branch": {"name": "unlucky"}, "endpoints": [{"type": "read_write"}]}

    first, second = neon.call("POST", "/branches", json=body, status=201)["operations"]

    assert "out of luck" in neon.wait_operation(first["id"], status="failed")["error"]
    neon.wait_operation(second["id"], status="cancelled")


def _free(neon: NeonWorld) -> bool:
    """Whether every operation of the project is over."""
    shown = neon.call("GET", "/operations", status=200)["operations"]
    return not {"running", "scheduling"} & {each["status"] for each in shown}
