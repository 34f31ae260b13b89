"""The runbook on a simulated project of Neon, where a process that made nothing takes the cutover back."""

import json
import secrets
from pathlib import Path

import httpx
from aftermath import kill
from endings import audit_green, check_served, failed_and_rolled_back, last_attempt, of_kind, standing, world

from fixtures.actions.restore import RESTORING
from fixtures.command import wait_for
from fixtures.drill.neon_simulator.description import OBTAINED
from fixtures.drill.neon_simulator.setup import Address
from fixtures.journal import read_journal
from tests.missing import missing

#: bound of one session, seconds; reached only when something hangs
SESSION_S = 300
#: commits as autovacuum does, where the owner of the databases may not read what it wrote
ANALYZE = """
{indent}from fixtures.postgres.session import connect
{indent}with connect(run.production.on("stampcard"), settings={{"default_transaction_read_only": "off"}}) as other:
{indent}    other.do("ANALYZE public.stamps")
"""


class Simulator:
    """The simulator's own paths, in a drill's world."""

    def __init__(self, world: Path) -> None:
        self._url = Address.load(world / "neon" / "address.json").own
        self._token = (world / "neon" / "token").read_text().strip()

    def own(self, method: str, path: str, body: object = None) -> dict:
        """Ask it."""
        answer = httpx.request(
            method, f"{self._url}{path}", json=body, headers={"Authorization": f"Bearer {self._token}"}, timeout=30
        )  # fmt: skip
        assert answer.is_success, answer.text
        return answer.json()

    def asked(self, method: str, path: str) -> bool:
        """Whether a client has asked for a change."""
        seen = self.own("GET", "/requests")["requests"]
        return any(each["method"] == method and each["path"].endswith(path) for each in seen)


def test_another_process_takes_a_cutover_to_a_branch_back(checkout):
    """
    It finds the branch by its name alone, fences it, keeps its rows, and leads everybody back.

    Two ANALYZE commit meanwhile: while the lock closes, which puts it anew, and behind it, which is told apart.
    """
    if not OBTAINED.is_file():
        missing("the API description of Neon (make neon-api)")
    closing, proving = "        closed = _close_database(run, names)\n", "        proven = prove(\n"
    once = ANALYZE.format(indent="            ").replace("\n", "\n        if not again:\n", 1)
    for old, new in ((closing, once + closing), (proving, ANALYZE.format(indent="        ") + proving)):
        checkout.edit(old, new, file="fixtures/actions/write_lock.py")
    begun = checkout.run("--drill", "--provider=neon", "--disaster=update", "--seed=7", "--until=cutover")
    assert begun.code == 11, begun.output[-3000:]
    told = "simulated control plane of Neon, real PostgreSQL data; never tested on Neon itself"
    assert told in begun.output
    assert checkout.summary()["simulated"] == told
    assert told in (checkout.folder / "summary.html").read_text()
    run = checkout.folder.name
    assert len(of_kind(read_journal(checkout.folder), "lock-position")) == 2
    assert (
        "no row changed since the last client was gone"
        in checkout.state().actions["lock_proven"]["result"]["how"]
    )

    undone = checkout.run(f"--rollback={run}")

    assert undone.code == 1, undone.output[-3000:]
    assert "rollback complete: the application points at production" in undone.output
    assert list((checkout.folder / "packs" / "after-cutover").rglob("*.jsonl")) != []


def test_a_service_out_of_its_objectives_is_taken_back(checkout):
    """After a cutover the copy is fenced: the outside audit tries the application's own password on it."""
    if not OBTAINED.is_file():
        missing("the API description of Neon (make neon-api)")
    checkout.edit("p95_ms = 500", "p95_ms = 0.001")

    ended = checkout.run("--drill", "--provider=neon", "--disaster=drop", "--seed=7")

    assert ended.code == 1, ended.output[-3000:]
    summary = checkout.summary()
    assert summary["rollback"]["complete"]
    verdicts = {check["id"]: check["verdict"] for check in summary["audit"]}
    assert verdicts.pop("restored_closed") == "pass"
    assert set(verdicts.values()) == {"pass"}
    assert not checkout.world_folder().exists()


def test_a_safety_copy_that_is_about_to_end_switches_nothing(checkout):
    """Somebody gives the kept branch an end while the restored copy is commissioned: the barrier asks Neon."""
    if not OBTAINED.is_file():
        missing("the API description of Neon (make neon-api)")
    child = checkout.start("--drill", "--provider=neon", "--disaster=drop", "--seed=7")
    checkout.wait_for_event(child, "intent", action="commission the restored instance")
    kept = checkout.state().actions["safety_copy"]["result"]
    project = checkout.world_folder() / "neon"
    address = json.loads((project / "address.json").read_text())
    answer = httpx.patch(
        f"{address['url']}/projects/{address['project_id']}/branches/{kept['place']}",
        json={"branch": {"expires_at": "2099-01-01T00:00:00Z"}},
        headers={"Authorization": f"Bearer {(project / 'token').read_text()}"},
    )
    assert answer.is_success, answer.text
    output, _ = child.communicate(timeout=120)

    assert child.returncode == 1, output[-3000:]
    assert (kept["mode"], kept["proven"]) == ("branch", True)
    events = failed_and_rolled_back(checkout, "s09.switched", reason="is deleted at 2099-01-01")
    assert not of_kind(events, "switching")
    assert not checkout.world_folder().exists()


def test_a_resume_goes_on_behind_a_copy_that_was_closed(checkout):
    """Killed while the copy was commissioned: the application cannot log in there, and its canary was green."""
    if not OBTAINED.is_file():
        missing("the API description of Neon (make neon-api)")
    child = checkout.start("--drill", "--provider=neon", "--disaster=drop", "--seed=7")
    checkout.wait_for_event(child, "intent", action="commission the restored instance")
    kill(child)

    resumed = checkout.run(f"--resume={checkout.folder.name}")

    assert resumed.code == 0, resumed.output[-5000:]
    audit_green(checkout.summary(), wanted={"application_writes"})


def test_production_keeps_its_host_over_an_exchange_that_was_killed(checkout):
    """In place, killed when production's host led to the copy and what it held answered nowhere."""
    if not OBTAINED.is_file():
        missing("the API description of Neon (make neon-api)")
    child = checkout.start("--drill", "--provider=neon-in-place", "--disaster=drop", "--seed=7")
    checkout.wait_for_event(child, "intent", action=RESTORING)
    production = world(checkout)
    simulator = Simulator(checkout.world_folder())
    simulator.own(
        "POST", "/faults", {"kind": "locked", "method": "POST", "path": "/endpoints$", "times": 10_000}
    )
    wait_for(
        lambda: simulator.asked("POST", "/endpoints"), timeout_s=SESSION_S, what="the exchange is made",
        interval_s=0.2,
    )  # fmt: skip
    kill(child)
    simulator.own("DELETE", "/faults")

    resumed = checkout.run(f"--resume={checkout.folder.name}")

    assert resumed.code == 0, resumed.output[-5000:]
    check_served(checkout)
    service = checkout.state().actions["commissioned"]["result"]
    assert (service["host"], service["port"]) == ("127.0.0.1", production["port"])


def test_a_key_that_is_revoked_at_the_barrier(checkout):
    """Nothing is switched, what cannot be taken back without a key is left to a person, and a new key goes on."""
    if not OBTAINED.is_file():
        missing("the API description of Neon (make neon-api)")
    child = checkout.start("--drill", "--provider=neon", "--disaster=drop", "--seed=7")
    checkout.wait_for_event(child, "intent", action=RESTORING)
    kept = checkout.state().actions["safety_copy"]["result"]["place"]
    simulator = Simulator(checkout.world_folder())
    # asked for at the barrier, and nowhere before
    simulator.own("POST", "/faults", {"kind": "key-revoked", "method": "GET", "path": f"/branches/{kept}$"})
    output, _ = child.communicate(timeout=SESSION_S)
    assert child.returncode == 10, output[-3000:]
    events = last_attempt(checkout)
    (switched,) = [each for each in of_kind(events, "result") if each.data["test"] == "s09.switched"]
    for told in (switched.data["reason"], output[output.index("undo isolate: attempt 3") :]):
        assert "Neon does not accept the API key" in told
        assert "make a new key" in told
    assert not of_kind(events, "switching")
    assert standing(checkout) >= {"isolate", "production_open", "maintenance_off"}
    new = secrets.token_urlsafe()
    simulator.own("POST", "/keys", {"key": new})
    (checkout.world_folder() / "neon" / "token").write_text(new)

    resumed = checkout.run(f"--resume={checkout.folder.name}")

    assert resumed.code == 0, resumed.output[-5000:]
    check_served(checkout)
