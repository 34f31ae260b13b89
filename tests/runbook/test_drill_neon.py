"""The runbook on a simulated project of Neon, where a process that made nothing takes the cutover back."""

from aftermath import kill
from endings import audit_green

from fixtures.drill.neon_simulator.description import OBTAINED
from tests.missing import missing


def test_another_process_takes_a_cutover_to_a_branch_back(checkout):
    """It finds the branch by its name alone, fences it, keeps its rows, and leads everybody back."""
    if not OBTAINED.is_file():
        missing("the API description of Neon (make neon-api)")
    begun = checkout.run("--drill", "--provider=neon", "--disaster=update", "--seed=7", "--until=cutover")
    assert begun.code == 11, begun.output[-3000:]
    told = "simulated control plane of Neon, real PostgreSQL data; never tested on Neon itself"
    assert told in begun.output
    assert checkout.summary()["simulated"] == told
    assert told in (checkout.folder / "summary.html").read_text()
    run = checkout.folder.name

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
