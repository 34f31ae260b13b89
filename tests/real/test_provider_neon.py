"""
The provider `neon` against the simulator: simulated control plane, real data behind every branch.

Nothing here was tested on Neon itself.
"""

import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fixtures.command import JobRef, end_job, join, run, spawn, wait_for
from fixtures.drill.neon_simulator.owner import OWNER
from fixtures.errors import ConfigError, DatabaseError, ProviderError, UnsupportedError
from fixtures.evidence import Secret
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.lsn import Lsn
from fixtures.postgres.session import Endpoint, answers, connect
from fixtures.production.capture import capture
from fixtures.progress import Tick
from fixtures.providers import access
from fixtures.providers.base import Capture, Cluster, InstanceRef, Site, Target, TargetKind
from fixtures.providers.neon import places
from fixtures.providers.neon.backend import Neon
from fixtures.settings import NeonProvider
from tests.real.neon_world import DATABASE, PASSWORD, TOKEN, NeonWorld, neon_world

KEY_VARIABLE = "NEON_TEST_KEY"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def neon(public_dir: Path, binaries: Binaries) -> Iterator[NeonWorld]:
    """One project for all tests of this module, with a role of the application."""
    with neon_world(public_dir, binaries) as world:
        with connect(world.server.endpoint) as session:
            session.do("CREATE ROLE app LOGIN PASSWORD 'of the app'")
        yield world


@pytest.fixture(autouse=True)
def as_it_was(neon: NeonWorld, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No fault stays armed, no answer missed the description, limits and default branch are the usual ones."""
    monkeypatch.setenv(KEY_VARIABLE, TOKEN)
    neon.own(
        "PATCH",
        "/project",
        json={"history_retention_s": 86_400, "branches_limit": 100, "root_branches_limit": 25},
    )
    yield
    wait_for(lambda: _free(neon), timeout_s=60, what="the operations are over")
    neon.own("DELETE", "/faults")
    assert neon.own("GET")["misses"] == []


def _free(neon: NeonWorld) -> bool:
    shown = neon.call("GET", "/operations", status=200, params={"limit": "100"})["operations"]
    return all(each["status"] in {"finished", "failed", "cancelled", "skipped"} for each in shown)


def provider(neon: NeonWorld, run_id: str, **changes: object) -> Neon:
    """A provider for a run of its own; `changes` replace settings."""
    settings = NeonProvider(
        **{
            "api_key_env": KEY_VARIABLE, "project": neon.address.project_id, "branch": neon.address.branch_id,
            "role": OWNER, "database": DATABASE, "base_url": neon.address.url, **changes,
        }
    )  # fmt: skip
    return Neon(settings, site(neon, run_id))


def site(neon: NeonWorld, run_id: str) -> Site:
    """Where and for whom."""
    with connect(neon.server.endpoint) as session:
        identifier = session.value("SELECT system_identifier::text FROM pg_control_system()")
    return Site(
        run_id=run_id, directory=neon.home, host="", port=0, sockets=neon.home, logs=neon.home / "logs",
        binaries=None, timeout_s=60,
        cluster=Cluster(
            system_identifier=identifier, timeline=1, major=18, data_directory=str(neon.server.data),
            port=neon.server.port,
        ),
        production=lambda: Endpoint("127.0.0.1", neon.server.port, OWNER, DATABASE, Secret(PASSWORD)),
    )  # fmt: skip


def quiet(_: Tick) -> None:
    """Take progress and say nothing."""


def at(moment: datetime, *, exclusive: bool = False) -> Target:
    """A time target."""
    return Target(kind=TargetKind.TIME, value=moment.isoformat(), at=moment, exclusive=exclusive)


def rows(ref: InstanceRef) -> set[int]:
    """Rows that are there."""
    with connect(ref.endpoint.on(DATABASE)) as session:
        return {row for (row,) in session.rows("SELECT id FROM public.t")}


def named(neon: NeonWorld, name: str) -> list[dict]:
    """Branches of exactly a name."""
    found = neon.call("GET", "/branches", status=200, params={"search": name})["branches"]
    return [branch for branch in found if branch["name"] == name]


def asked(neon: NeonWorld, method: str, path: str) -> list[dict]:
    """Requests the simulator saw."""
    seen = neon.own("GET", "/requests")["requests"]
    return [each for each in seen if each["method"] == method and each["path"].endswith(path)]


def test_a_branch_is_made_at_the_target_and_proven(neon: NeonWorld) -> None:
    """Rows, position, last commit, isolation and identity, all asked of the copy."""
    moment = neon.insert(1)
    neon.insert(2)
    own = provider(neon, "r1", expires_after="1d")
    target = at(moment)
    plan = own.plan(target)
    assert own.check(target) == []

    restored = own.start(plan, quiet)

    assert rows(restored.ref) == {1}
    assert not restored.paused
    assert restored.stopped_at is not None
    assert restored.last_commit_at is not None
    assert restored.last_commit_at <= moment
    assert not [each for each in own.isolation(restored.ref) if not each.holds and each.blocking]
    assert {"another server", "branch", "default branch"} <= {
        each.subject for each in own.isolation(restored.ref) if each.holds
    }
    (branch,) = named(neon, plan.instance.name)
    assert branch["expires_at"]
    assert (restored.ref.host, restored.ref.port) == ("", 0)
    assert own.promote(restored.ref).paused is False
    assert own.attach(restored.ref).ref == restored.ref
    with pytest.raises(UnsupportedError):
        own.advance(restored.ref, plan, quiet)
    own.discard(restored.ref)
    own.discard(restored.ref)
    # a deleted branch can be had back for days otherwise, with real rows
    assert [each["query"] for each in asked(neon, "DELETE", f"/branches/{branch['id']}")] == [
        {"hard_delete": "true"}
    ]
    assert named(neon, plan.instance.name) == []
    assert not answers(restored.ref.endpoint)


def test_the_plan_is_the_call_that_is_sent(neon: NeonWorld) -> None:
    """--plan shows the request, without the key; planning asks nothing to be changed."""
    moment = neon.insert(11)
    own = provider(neon, "r2")
    before = len(neon.own("GET", "/requests")["requests"])

    plan = own.plan(at(moment))

    shown = neon.own("GET", "/requests")["requests"][before:]
    assert {each["method"] for each in shown} == {"GET"}
    assert plan.commands[0].startswith(f"POST {neon.address.url}/projects/")
    assert '"parent_timestamp"' in plan.commands[0]
    assert TOKEN not in "".join(plan.commands)
    own.start(plan, quiet)
    (sent,) = [
        e for e in asked(neon, "POST", "/branches") if e["body"]["branch"]["name"] == plan.instance.name
    ]
    assert all(f'"{key}"' in plan.commands[0] for key in sent["body"]["branch"])
    assert sent["request_id"] == "r2"
    own.discard(plan.instance)


def test_what_cannot_be_reached_is_refused_before_anything_is_changed(neon: NeonWorld) -> None:
    """Window, future, kinds and positions, each with the nearest that can be reached."""
    own = provider(neon, "r3")
    now = datetime.now(UTC)
    window = own.window()
    assert window.earliest is not None
    before = len(neon.own("GET", "/requests")["requests"])

    early, late = (
        own.check(at(window.earliest - timedelta(seconds=1))),
        own.check(at(now + timedelta(hours=1))),
    )
    named_point = own.check(Target(kind=TargetKind.NAME, value="x"))
    locked = own.check(Target(kind=TargetKind.LSN, value="7F/0"), lock_lsn=Lsn.parse("0/1"))
    unknown = own.check(Target(kind=TargetKind.SNAPSHOT, value="snap-none"))

    assert [each.code for each in (*early, *late, *named_point, *locked, *unknown)] == [
        "RB301", "RB303", "RB108", "RB304", "RB301",
    ]  # fmt: skip
    assert early[0].nearest is not None
    assert early[0].nearest.at == pytest.approx(window.earliest, abs=timedelta(seconds=5))
    for target in (at(window.earliest - timedelta(seconds=1)), at(now + timedelta(hours=1))):
        with pytest.raises(ProviderError):
            own.start(own.plan(target), quiet)
    assert {e["method"] for e in neon.own("GET", "/requests")["requests"][before:]} == {"GET"}


def test_a_shorter_history_moves_the_window(neon: NeonWorld) -> None:
    """What the project no longer keeps cannot be restored."""
    moment = neon.insert(21)
    own = provider(neon, "r4")
    assert own.check(at(moment)) == []

    neon.own("PATCH", "/project", json={"history_retention_s": 0})

    (finding,) = own.check(at(moment))
    assert finding.code == "RB301"
    assert "0 h of history" in finding.fact


def test_refusals_that_pass_are_outlasted_and_a_lost_answer_makes_no_second_branch(neon: NeonWorld) -> None:
    """423, 429, 503, 404 and a branch not ready yet are waited out; a branch whose answer was lost is found by its name."""
    moment = neon.insert(31)
    own = provider(neon, "r5")
    for fault in (
        {"kind": "locked", "method": "POST", "path": "/branches$"},
        {"kind": "rate-limited", "method": "POST", "path": "/branches$"},
        {"kind": "unavailable", "method": "POST", "path": "/branches$"},
        {"kind": "branch-not-ready", "method": "POST", "path": "/branches$"},
        {"kind": "timeout-after-success", "method": "POST", "path": "/branches$"},
        {"kind": "internal", "method": "GET", "path": "/operations/"},
        {"kind": "not-found-yet", "method": "GET", "path": "/branches/br-[^/]*$"},
        {"kind": "hang-up", "method": "GET", "path": "/connection_uri"},
    ):
        neon.own("POST", "/faults", json=fault)

    restored = own.start(own.plan(at(moment)), quiet)

    assert 31 in rows(restored.ref)
    assert len(named(neon, restored.ref.name)) == 1
    sent = [e for e in asked(neon, "POST", "/branches") if e["request_id"] == "r5"]
    assert [each["status"] for each in sent] == [423, 429, 503, 422, 524]
    neon.own(
        "POST", "/faults", json={"kind": "hang-up-after-success", "method": "DELETE", "path": "/branches/"}
    )
    own.discard(restored.ref)
    assert named(neon, restored.ref.name) == []


def test_a_failed_operation_is_told_and_the_next_start_begins_anew(neon: NeonWorld) -> None:
    """The vendor's reason is in the error; what it left half-made is replaced."""
    moment = neon.insert(41)
    own = provider(neon, "r6")
    plan = own.plan(at(moment))
    neon.own("POST", "/operation-faults", json={"action": "create_branch", "error": "storage is busy"})

    with pytest.raises(ProviderError) as error:
        own.start(plan, quiet)
    assert error.value.code == "RB310"
    assert "storage is busy" in error.value.fact

    assert 41 in rows(own.start(plan, quiet).ref)
    own.discard(plan.instance)


def test_a_plans_limit_is_told(neon: NeonWorld) -> None:
    """The vendor counts branches; what is left over of others is named by its own words."""
    moment = neon.insert(51)
    own = provider(neon, "r7")
    neon.own("PATCH", "/project", json={"branches_limit": 1})

    with pytest.raises(ProviderError) as error:
        own.start(own.plan(at(moment)), quiet)

    assert error.value.code == "RB308"


def test_a_copy_takes_over_and_goes_back(neon: NeonWorld) -> None:
    """
    Default, without an end, durable over a restart; isolated again it is only a branch.

    Nothing that serves is discarded, nor what has served: it alone holds the rows committed to it since.
    """
    moment = neon.insert(61)
    own = provider(neon, "r8", expires_after="1d")
    restored = own.start(own.plan(at(moment)), quiet)
    wanted = capture(Endpoint("127.0.0.1", neon.server.port, OWNER, DATABASE, Secret(PASSWORD)))

    def admit():
        return own.admit(
            restored.ref, wanted, archive=None, base_backups=None, supervisor=None, allowed={"work_mem": "x"}
        )

    service = admit()

    assert service.durable
    assert service.differences == ()
    assert service.unprotected_since is None
    assert (service.host, service.port) == (restored.ref.endpoint.host, restored.ref.endpoint.port)
    (branch,) = named(neon, restored.ref.name)
    assert branch["default"]
    assert "expires_at" not in branch
    assert admit().host == service.host
    with pytest.raises(ProviderError) as error:
        own.discard(restored.ref)
    assert error.value.code == "RB312"
    assert "default" in error.value.fact

    other = provider(neon, "r8")
    other.isolate(restored.ref)
    other.isolate(restored.ref)

    (branch,) = named(neon, restored.ref.name)
    assert not branch["default"]
    assert named(neon, "main")[0]["default"]
    with pytest.raises(ProviderError, match="it has served") as kept:
        other.discard(restored.ref)
    assert (kept.value.code, kept.value.where) == ("RB312", branch["id"])
    neon.insert(62, branch_id=branch["id"])
    assert {61, 62} <= rows(restored.ref)
    neon.wait(neon.call("DELETE", f"/branches/{branch['id']}", status=200))
    other.discard(restored.ref)


def test_a_protected_productions_copy_has_passwords_of_its_own(neon: NeonWorld) -> None:
    """They are asked of the vendor, for the application's role too; the copy is protected when it takes over."""
    main = neon.address.branch_id
    neon.call("PATCH", f"/branches/{main}", json={"branch": {"protected": True}}, status=200)
    try:
        moment = neon.insert(71)
        own = provider(neon, "r9")
        restored = own.start(own.plan(at(moment)), quiet)

        assert restored.ref.endpoint.password not in {None, Secret(PASSWORD)}
        assert access.password_of("r9", restored.ref.name, OWNER) == restored.ref.endpoint.password
        own.admit(restored.ref, Capture(), archive=None, base_backups=None, supervisor=None, allowed={})
        assert named(neon, restored.ref.name)[0]["protected"]
        with pytest.raises(ProviderError):
            own.discard(restored.ref)
        own.isolate(restored.ref)
        (branch,) = named(neon, restored.ref.name)
        assert not branch["protected"]
        neon.wait(neon.call("DELETE", f"/branches/{branch['id']}", status=200))
    finally:
        neon.call("PATCH", f"/branches/{main}", json={"branch": {"protected": False}}, status=200)


def test_the_safety_copy_is_a_branch_or_a_snapshot_made_once(neon: NeonWorld) -> None:
    """A second process finds the first one's; another kind than the configured one is refused."""
    neon.insert(81)
    own = provider(neon, "r10")

    kept = own.safety_copy("branch")

    assert provider(neon, "r10").safety_copy("branch") == kept
    assert own.capabilities().safety_copies == {"branch"}
    with pytest.raises(UnsupportedError):
        own.safety_copy("snapshot")
    taking = provider(neon, "r10", safety_copy="snapshot")
    taken = taking.safety_copy("snapshot")
    assert provider(neon, "r10", safety_copy="snapshot").safety_copy("snapshot") == taken
    assert [own.safety_copy_stands("branch", kept), taking.safety_copy_stands("snapshot", taken)] == ["", ""]

    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    neon.call("PATCH", f"/branches/{kept}", json={"branch": {"expires_at": tomorrow}}, status=200)
    assert f"is deleted at {tomorrow[:10]}" in own.safety_copy_stands("branch", kept)
    foreign = neon.call("POST", "/branches", json={"branch": {"parent_id": kept}}, status=201)
    neon.wait(foreign)
    assert f"its parent is {kept}" in own.safety_copy_stands("branch", foreign["branch"]["id"])
    for branch_id in (foreign["branch"]["id"], kept):
        neon.wait(neon.call("DELETE", f"/branches/{branch_id}", status=200))
    assert "it was deleted" in own.safety_copy_stands("branch", kept)
    neon.call("DELETE", f"/snapshots/{taken}", status=202)
    assert "it was deleted" in taking.safety_copy_stands("snapshot", taken)


def test_a_safety_copy_that_neon_did_not_finish_does_not_stand(neon: NeonWorld) -> None:
    """A failed branch is not ready; a snapshot has no state, its operation has. Unasked is no pass either."""
    neon.insert(82)
    branching, taking = provider(neon, "r11"), provider(neon, "r11", safety_copy="snapshot")
    for own, mode in ((branching, "branch"), (taking, "snapshot")):
        neon.own("POST", "/operation-faults", json={"action": "create_branch", "error": "storage is busy"})
        with pytest.raises(ProviderError, match="storage is busy"):
            own.safety_copy(mode)
    left = named(neon, "restore-runbook-r11-safety")[0]["id"]
    # a process that comes later finds the snapshot by its name
    taken = taking.safety_copy("snapshot")

    assert "is init" in branching.safety_copy_stands("branch", left)
    assert "was not taken" in taking.safety_copy_stands("snapshot", taken)
    neon.call("DELETE", f"/snapshots/{taken}", status=202)
    neon.wait(neon.call("DELETE", f"/branches/{left}", status=200))
    with pytest.raises(ProviderError):
        provider(neon, "r11", project="elsewhere").safety_copy_stands("branch", left)


def test_a_snapshot_is_restored_into_a_branch_of_its_own(neon: NeonWorld) -> None:
    """It reaches as far as it was taken, and replaces nothing."""
    neon.insert(91)
    taken = neon.call(
        "POST", f"/branches/{neon.address.branch_id}/snapshot", params={"name": "s"}, status=200
    )
    neon.wait(taken)
    neon.insert(92)
    own = provider(neon, "r11")
    target = Target(kind=TargetKind.SNAPSHOT, value=taken["snapshot"]["id"])
    assert own.check(target) == []

    restored = own.start(own.plan(target), quiet)

    assert {91, 92} & rows(restored.ref) == {91}
    assert "snapshot" in restored.backup_id
    assert own.start(own.plan(target), quiet).ref == restored.ref
    (branch,) = named(neon, restored.ref.name)
    # without it a second restore takes the place of the branch that the first one renamed
    (sent,) = [each for each in asked(neon, "POST", "/restore") if each["request_id"] == "r11"]
    assert sent["body"]["target_branch_id"] == neon.address.branch_id
    (finding,) = in_place(neon, "r17", branch=branch["id"]).check(at(datetime.now(UTC)))
    assert "not finalized" in finding.fact
    # a branch restored from a snapshot is a root: the vendor deletes none of those
    with pytest.raises(ProviderError):
        own.discard(restored.ref)
    assert branch["restored_from"] == target.value


def test_only_this_runs_branches_are_deleted(neon: NeonWorld) -> None:
    """Another run's reference, and a branch of our name that is not ours, are left alone; twice is quiet."""
    own = provider(neon, "r12")
    moment = neon.insert(101)
    restored = own.start(own.plan(at(moment)), quiet)

    for wrong in (replace(restored.ref, run_id="other"), replace(restored.ref, name="main")):
        with pytest.raises(ProviderError) as error:
            own.discard(wrong)
        assert error.value.code == "RB312"
    child = neon.create("child-of-r12", parent_id=named(neon, restored.ref.name)[0]["id"])
    with pytest.raises(ProviderError, match="no root branch"):
        provider(neon, "r12", branch=child["id"], safety_copy="snapshot").safety_copy("snapshot")
    with pytest.raises(ProviderError) as depended:
        own.discard(restored.ref)
    assert "child-of-r12" in depended.value.fact
    renamed = {"branch": {"name": "restore-runbook-r13"}}
    neon.call("PATCH", f"/branches/{child['id']}", json=renamed, status=200)
    with pytest.raises(ProviderError) as foreign:
        provider(neon, "r13").discard(replace(restored.ref, run_id="r13", name="restore-runbook-r13"))
    assert foreign.value.code == "RB312"
    assert len(named(neon, "restore-runbook-r13")) == 1
    neon.wait(neon.call("DELETE", f"/branches/{child['id']}", status=200))
    for _ in range(2):
        own.discard(restored.ref)
        assert named(neon, restored.ref.name) == []


def test_latest_ends_at_the_lock(neon: NeonWorld) -> None:
    """What was committed behind the lock does not come back; without a lock it is all there is."""
    neon.insert(111)
    with connect(neon.server.endpoint) as session:
        lock = Lsn.parse(session.value("SELECT pg_current_wal_insert_lsn()"))
    neon.insert(112)
    own = provider(neon, "r14")

    restored = own.start(own.plan(Target(kind=TargetKind.LATEST, not_beyond=lock)), quiet)

    assert {111, 112} & rows(restored.ref) == {111}
    # the same run with another target: what it made before is replaced
    again = own.start(own.plan(Target(kind=TargetKind.LATEST)), quiet)
    assert {111, 112} <= rows(again.ref)
    own.discard(again.ref)


def test_a_wrong_key_and_a_wrong_branch_are_told(neon: NeonWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with what to correct."""
    with pytest.raises(ProviderError) as branch:
        provider(neon, "r15", branch="br-none").window()
    assert branch.value.where == "[provider.neon] branch"
    monkeypatch.setenv(KEY_VARIABLE, "another key")
    with pytest.raises(ProviderError) as key:
        provider(neon, "r15").window()
    assert "API key" in key.value.fact
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(ConfigError) as missing:
        provider(neon, "r15").window()
    assert missing.value.code == "RB106"


def test_a_key_that_is_revoked_within_a_restore(neon: NeonWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to do; a process with a new key joins what was begun with the old one."""
    moment = neon.insert(115)
    old = provider(neon, "r18")
    neon.own("POST", "/faults", json={"kind": "key-revoked", "method": "GET", "path": "/operations/"})
    with pytest.raises(ProviderError) as revoked:
        old.start(old.plan(at(moment)), quiet)
    assert revoked.value.code == "RB309"
    assert "does not accept the API key" in revoked.value.fact
    assert "then --resume" in revoked.value.hints[0]
    with pytest.raises(ProviderError, match="API key"):
        old.window()

    neon.own("POST", "/keys", json={"key": "another"})
    neon.http.headers["Authorization"] = "Bearer another"
    try:
        with pytest.raises(ProviderError, match="API key"):
            provider(neon, "r18").window()
        monkeypatch.setenv(KEY_VARIABLE, "another")
        new = provider(neon, "r18")
        assert 115 in rows(new.start(new.plan(at(moment)), quiet).ref)
        assert len(named(neon, "restore-runbook-r18")) == 1
        new.discard(new.plan(at(moment)).instance)
    finally:
        neon.own("POST", "/keys", json={"key": TOKEN})
        neon.http.headers["Authorization"] = f"Bearer {TOKEN}"


def test_production_that_is_down_does_not_stop_a_restore(
    neon: NeonWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the restore is asked of production's SQL; a copy that does not answer this machine is told."""
    moment = neon.insert(121)
    own = provider(neon, "r16")
    own._copies._site = replace(own._site, production=lambda: Endpoint(access.NOWHERE, 1, "x"))

    restored = own.start(own.plan(at(moment)), quiet)

    assert 121 in rows(restored.ref)
    (branch,) = named(neon, restored.ref.name)
    (compute,) = neon.call("GET", f"/branches/{branch['id']}/endpoints", status=200)["endpoints"]
    neon.wait(neon.call("POST", f"/endpoints/{compute['id']}/suspend", status=200))
    monkeypatch.setattr(places, "ANSWERS_S", 0.5)
    with pytest.raises(ProviderError, match="RB315") as silent:
        own._copies.places.wait_answering(restored.ref.name, len)
    assert "IP allow list" in silent.value.hints[0]
    own.discard(restored.ref)
    with pytest.raises(DatabaseError), connect(restored.ref.endpoint):
        pass


def test_a_branch_is_fenced_by_disabling_its_compute(neon: NeonWorld, tmp_path: Path) -> None:
    """Once or twice, what ran is gone and cannot be started; without branch or key nothing is claimed."""
    branch = neon.create("to be fenced")
    place = neon.endpoint(branch["id"])
    assert answers(place)
    key = tmp_path / "key"
    key.write_text(f"{TOKEN}\n")
    fence = [
        sys.executable, "-m", "fixtures.providers.neon.fence", f"--project={neon.address.project_id}",
        f"--base-url={neon.address.url}",
    ]  # fmt: skip

    for _ in range(2):
        said = run([*fence, "--branch=to be fenced", f"--api-key-file={key}"], timeout_s=120, cwd=ROOT)
        assert said.stdout.endswith("of branch to be fenced is disabled and does not run\n")
    elsewhere = run([*fence, "--branch=main2", f"--api-key-file={key}"], timeout_s=120, cwd=ROOT, check=False)
    keyless = run([*fence, "--branch=main", f"--api-key-file={key}2"], timeout_s=120, cwd=ROOT, check=False)

    assert not answers(place)
    compute = neon.call("GET", f"/branches/{branch['id']}/endpoints", status=200)["endpoints"][0]
    refused = in_place(neon, "p4", branch=branch["id"]).check(Target(kind=TargetKind.LATEST))
    assert ["is disabled" in each.fact for each in refused] == [True]
    assert provider(neon, "p4", branch=branch["id"]).check(Target(kind=TargetKind.LATEST)) == []
    assert (compute["disabled"], compute["current_state"]) == (True, "idle")
    neon.call("POST", f"/endpoints/{compute['id']}/start", status=422)
    assert elsewhere.returncode != 0
    assert "RB309 main2 names 0 branches" in elsewhere.stderr
    assert keyless.returncode != 0
    assert answers(neon.endpoint(neon.address.branch_id))


@pytest.mark.parametrize(
    "seen",
    [("POST", "/branches"), ("GET", "/operations/"), ("GET", "/endpoints"), ("GET", "/connection_uri")],
    ids=["asked for", "being made", "made", "starting"],
)
def test_a_killed_restore_is_joined_wherever_it_was(neon: NeonWorld, seen: tuple[str, str]) -> None:
    """A new process finds what the dead one asked for by its name: one branch, with what it must hold."""
    number = 200 + len(seen[1])
    moment = neon.insert(number)
    run_id = f"k{number}"
    job = _start_elsewhere(neon, run_id, moment)
    method, path = seen

    def got_there() -> bool:
        mine = [each for each in neon.own("GET", "/requests")["requests"] if each["request_id"] == run_id]
        begun = any(each["method"] == "POST" for each in mine)
        return begun and any(each["method"] == method and path in each["path"] for each in mine)

    wait_for(got_there, timeout_s=60, what="the process has got there", interval_s=0.01)
    end_job(job, first=signal.SIGKILL)
    own = provider(neon, run_id)

    restored = own.start(own.plan(at(moment)), quiet)

    assert number in rows(restored.ref)
    assert len(named(neon, restored.ref.name)) == 1
    own.discard(restored.ref)


@pytest.mark.parametrize(
    ("number", "method", "path"),
    [(1601, "POST", "/branches"), (1602, "DELETE", "/branches/")],
    ids=["only reads", "may not delete"],
)
def test_a_key_that_may_not_leaves_at_most_one_branch_to_go_on_with(
    neon: NeonWorld, number: int, method: str, path: str
) -> None:
    """It is refused once, not asked again and again; with a better one the same branch is joined, and discarded."""
    moment = neon.insert(number)
    own = provider(neon, f"key{number}")
    plan = own.plan(at(moment))
    neon.own("POST", "/faults", json={"status": 403, "method": method, "path": path, "message": "refused"})

    with pytest.raises(ProviderError) as error:
        own.discard(own.start(plan, quiet).ref)

    assert error.value.code == "RB309"
    assert "may create and delete branches; then --resume" in error.value.hints[0]
    assert len(named(neon, plan.instance.name)) == (path != "/branches")
    again = provider(neon, f"key{number}")
    restored = again.start(plan, quiet)
    assert number in rows(restored.ref)
    assert len(named(neon, plan.instance.name)) == 1
    again.discard(restored.ref)
    assert named(neon, plan.instance.name) == []


def test_two_restores_at_once_do_not_meet(neon: NeonWorld) -> None:
    """A project does one thing at a time: each waits for the other's, and gets a branch of its own."""
    moment = neon.insert(301)
    jobs = {run_id: _start_elsewhere(neon, run_id, moment) for run_id in ("two-a", "two-b")}

    for run_id, job in jobs.items():
        join(job, timeout_s=120, what=f"restore {run_id}")
        own = provider(neon, run_id)
        restored = own.attach(own.plan(at(moment)).instance)
        assert 301 in rows(restored.ref)
        own.discard(restored.ref)


def _start_elsewhere(neon: NeonWorld, run_id: str, moment: datetime) -> JobRef:
    """Begin a restore in a process of its own."""
    known = site(neon, run_id)
    told = {
        "run_id": run_id, "home": str(neon.home), "at": moment.isoformat(),
        "system_identifier": known.cluster.system_identifier,
        "production": f"host=127.0.0.1 port={neon.server.port} user={OWNER} dbname={DATABASE} password='{_quoted(PASSWORD)}'",
        "settings": {
            "api_key_env": KEY_VARIABLE, "project": neon.address.project_id, "branch": neon.address.branch_id,
            "role": OWNER, "database": DATABASE, "base_url": neon.address.url,
        },
    }  # fmt: skip
    file = neon.home / f"{run_id}.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(told))
    argv = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.real.neon_starts", file]
    return spawn(argv, name=run_id, folder=neon.home / "logs", env={KEY_VARIABLE: TOKEN}, cwd=ROOT)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def in_place(neon: NeonWorld, run_id: str, **changes: object) -> Neon:
    """A provider that gives production's host to the copy."""
    own = provider(neon, run_id, in_place=True, **changes)
    base = own._site.production
    own._copies._site = replace(own._site, production=lambda: access.production_now(run_id) or base())
    return own


def host(neon: NeonWorld) -> set[int]:
    """Rows behind production's own address, as the superuser of whatever answers there."""
    with connect(Endpoint("127.0.0.1", neon.server.port, OWNER, DATABASE, Secret(PASSWORD))) as session:
        return {row for (row,) in session.rows("SELECT id FROM public.t")}


def test_production_takes_the_copy_over_in_place_and_gives_it_back(neon: NeonWorld) -> None:
    """Host and port stay; what production held is kept and answers; going back keeps what was served meanwhile."""
    moment = neon.insert(401)
    neon.insert(402)
    own = in_place(neon, "p1")
    restored = own.start(own.plan(at(moment)), quiet)
    assert access.production_now("p1") is None

    def admit(by: Neon):
        return by.admit(restored.ref, Capture(), archive=None, base_backups=None, supervisor=None, allowed={})

    def die_before_what_production_held_has_a_compute() -> None:
        neon.own("POST", "/faults", json={"status": 403, "method": "POST", "path": "/endpoints$"})
        with pytest.raises(ProviderError, match="may not do this"):
            admit(in_place(neon, "p1"))

    neon.own("PATCH", "/project", json={"root_branches_limit": 1})
    with pytest.raises(ProviderError, match="RB308"):
        admit(own)
    neon.own("PATCH", "/project", json={"root_branches_limit": 25})
    assert access.production_now("p1") is None
    assert {401, 402} <= host(neon)
    die_before_what_production_held_has_a_compute()
    own = in_place(neon, "p1")
    found = access.production_now("p1")
    assert found is not None
    assert answers(found)
    service = admit(own)

    assert (service.host, service.port) == ("127.0.0.1", neon.server.port)
    assert service.durable
    assert {401, 402} & host(neon) == {401}
    assert {401, 402} & rows(restored.ref) == {401}
    moved = access.production_now("p1")
    assert moved is not None
    with connect(moved.on(DATABASE)) as session:
        assert session.value("SELECT count(*) FROM public.t WHERE id IN (401, 402)") == 2
    assert own.attach(restored.ref).paused is False
    assert admit(in_place(neon, "p1")).port == service.port
    for default in (named(neon, "restore-runbook-p1-before-1")[0]["id"], neon.address.branch_id):
        neon.call("POST", f"/branches/{default}/set_as_default", status=200)
        if default != neon.address.branch_id:
            with pytest.raises(ProviderError, match="is not the default branch"):
                admit(in_place(neon, "p1"))
    neon.insert(403)

    other = in_place(neon, "p1")
    other.isolate(restored.ref)
    other.isolate(restored.ref)

    assert access.production_now("p1") is None
    assert {401, 402, 403} & host(neon) == {401, 402}
    kept = named(neon, "restore-runbook-p1-after-1")
    assert len(kept) == 1
    assert {401, 402, 403} & rows(restored.ref) == {401}
    die_before_what_production_held_has_a_compute()
    assert {401, 402} & host(neon) == {401}
    in_place(neon, "p1").isolate(restored.ref)
    assert {401, 402} <= host(neon)
    other.discard(restored.ref)


def test_a_snapshot_is_finalized_in_productions_place(neon: NeonWorld) -> None:
    """
    Production's compute and protection move to the restored branch; what production held is renamed, and answers.

    A protection that is lifted for the way back is put back by whoever goes on.
    """
    neon.insert(421)
    taken = neon.call(
        "POST", f"/branches/{neon.address.branch_id}/snapshot", params={"name": "f"}, status=200
    )
    neon.wait(taken)
    neon.insert(422)
    own = in_place(neon, "p3")
    restored = own.start(own.plan(Target(kind=TargetKind.SNAPSHOT, value=taken["snapshot"]["id"])), quiet)
    assert {421, 422} <= host(neon)
    main = neon.address.branch_id
    neon.call("PATCH", f"/branches/{main}", json={"branch": {"protected": True}}, status=200)

    def admit():
        return in_place(neon, "p3").admit(
            restored.ref, Capture(), archive=None, base_backups=None, supervisor=None, allowed={}
        )

    def die_on_the_way_back(method: str, path: str, *, skip: int = 0) -> None:
        neon.own("POST", "/faults", json={"status": 403, "method": method, "path": path, "skip": skip})
        with pytest.raises(ProviderError, match="may not do this"):
            in_place(neon, "p3").isolate(restored.ref)
        assert not named(neon, "main")[0]["protected"]

    # a process that dies right after it asked: the exchange shows only with its end
    neon.own(
        "POST",
        "/faults",
        json={"status": 403, "method": "POST", "path": "/finalize_restore$", "after": True},
    )
    with pytest.raises(ProviderError, match="may not do this"):
        admit()
    moved = access.production_now("p3")
    assert moved is not None
    assert moved.port != neon.server.port
    with connect(moved.on(DATABASE)) as session:
        assert session.value("SELECT count(*) FROM public.t WHERE id IN (421, 422)") == 2
    service = admit()

    assert service.port == neon.server.port
    assert {421, 422} & host(neon) == {421}
    assert named(neon, "main")[0]["restore_status"] == "finalized"
    assert own.attach(restored.ref).ref == restored.ref
    die_on_the_way_back("POST", "/restore$")
    admit()
    assert named(neon, "main")[0]["protected"]
    die_on_the_way_back("POST", "/restore$")
    own.discard(restored.ref)
    assert named(neon, "main")[0]["protected"]
    # named, lifted, and then put back
    die_on_the_way_back("PATCH", "/branches/", skip=2)
    in_place(neon, "p3").isolate(restored.ref)
    assert {421, 422} <= host(neon)
    assert named(neon, "main")[0]["protected"]
    assert len(named(neon, "restore-runbook-p3-before-1")) == 1
    assert in_place(neon, "p3").check(at(datetime.now(UTC))) == []
    (replaced,) = provider(neon, "r20").check(at(datetime.now(UTC)))
    assert replaced.where == "[provider.neon] branch"
    neon.call(
        "PATCH",
        f"/branches/{named(neon, 'main')[0]['id']}",
        json={"branch": {"protected": False}},
        status=200,
    )


def test_in_place_is_refused_beforehand_where_the_vendor_restricts_it(neon: NeonWorld) -> None:
    """Read before acting: a protected branch, or a restricted action, with its reason."""
    moment = neon.insert(411)
    main = named(neon, "main")[0]["id"]
    neon.call("PATCH", f"/branches/{main}", json={"branch": {"protected": True}}, status=200)
    protected = in_place(neon, "p2", branch=main).check(at(moment))
    neon.call("PATCH", f"/branches/{main}", json={"branch": {"protected": False}}, status=200)
    neon.own(
        "POST", "/restrictions", json={"branch_id": main, "name": "restore", "reason": "maintenance runs"}
    )

    restricted = in_place(neon, "p2", branch=main).check(at(moment))

    assert [each.code for each in (*protected, *restricted)] == ["RB108", "RB108"]
    assert "maintenance runs" in restricted[0].fact
    assert provider(neon, "p2", branch=main).check(at(moment)) == []
