"""
A drill stopped on purpose: what stands meanwhile, and what a resume does, proves again, and refuses.
"""

import hashlib
from pathlib import Path

import pytest
from endings import audit_green, failed_and_rolled_back, last_attempt, of_kind, standing, told

from fixtures import verbs
from fixtures.app import workers
from fixtures.config import load_config
from fixtures.drill.world import World, attach_world
from fixtures.journal import read_journal
from fixtures.options import Request
from fixtures.postgres.session import answers, connect
from fixtures.production.lock import original, to_json

#: recorded once, whatever a resume does
ONCE = (
    "declared", "writes_locked", "safety_copy", "rescued_wal", "target_reachable", "discarded_window", "restored",
    "discarded_kept", "opened", "references", "ledger_aligned", "sequences_raised",
)  # fmt: skip


def fingerprint(folder: Path) -> str:
    """Return a checksum over every file's name, content and time of change."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path} {path.stat().st_mtime_ns} ".encode() + path.read_bytes())
    return digest.hexdigest()


def test_a_stopped_drill_goes_on_from_where_it_stood(checkout):
    """Same run, same T0, same copy: --status only reads, a changed key is refused, another one is not."""
    stopped = checkout.run("--drill", "--disaster=truncate", "--seed=7", "--until=integrity")

    assert stopped.code == 11, stopped.output[-3000:]
    folder, before = checkout.folder, checkout.state()
    world = attach_world(folder / "world.json", adopt=False)
    assert answers(world.production)
    restored = before.actions["restored"]["result"]["instance"]
    assert restored["stopped_at"]
    assert world.places.maintenance.exists()
    skipped = [result.reason for result in before.results.values() if result.status == "skipped"]
    assert set(skipped) == {"stopped on purpose after step 7"}

    untouched = fingerprint(checkout.root / "reports")
    status = checkout.run("--status")
    assert status.code == 0
    assert fingerprint(checkout.root / "reports") == untouched
    for words in (
        folder.name,
        "neither; production is fenced",
        "Check integrity: passed",
        "--resume",
        "--rollback",
    ):
        assert words in status.output

    journal = (folder / "journal.jsonl").read_bytes()
    checkout.edit('timeout = "10min"               # copy', 'timeout = "11min"               # copy')
    refused = checkout.run("--resume")
    assert refused.code == 4, refused.output
    assert "RB204" in refused.output
    assert "restored was done with other values of restore" in refused.output
    assert (folder / "journal.jsonl").read_bytes() == journal
    assert world.places.maintenance.exists()

    checkout.edit('timeout = "11min"               # copy', 'timeout = "10min"               # copy')
    checkout.edit('window = "3s"', 'window = "2s"')
    resumed = checkout.run("--resume")

    assert resumed.code == 0, resumed.output[-3000:]
    after = checkout.state()
    assert checkout.folder == folder
    assert after.stamps["declared"] == before.stamps["declared"]
    assert after.stamps["locked"] == before.stamps["locked"]
    events = last_attempt(checkout)
    executed = {event.data["action"] for event in of_kind(events, "action-done")}
    assert executed.isdisjoint(ONCE)
    assert {"lock_proven", "canary", "watched"} <= executed
    for name in ONCE:
        assert after.actions[name] == before.actions[name]
    assert not any("restore to isolated" in event.data["action"] for event in of_kind(events, "intent"))
    # what the first attempt recorded is still on record, with the word that it was verified again
    recorded = [record["facts"] for record in after.evidence["s05.restored"]]
    assert "base backup" in recorded[0]
    assert recorded[-1] == {"already done": "restored, verified again"}
    assert {step["status"] for step in checkout.summary()["steps"]} == {"passed"}
    assert not checkout.world_folder().exists()

    ended = fingerprint(folder)
    for verb in ("--resume", "--rollback", "--release"):
        again = checkout.run(verb)
        assert again.code == 4, again.output
        assert "RB208" in again.output
    assert fingerprint(folder) == ended


def test_a_wrong_canary_route_is_rolled_back_after_a_resume(checkout):
    """A canary that fails in a resumed session ends like any failure before the switch."""
    assert checkout.run("--drill", "--disaster=drop", "--seed=7", "--until=integrity").code == 11
    checkout.edit('path = "/redeem"', 'path = "/redeemed"')

    session = checkout.run("--resume")

    assert session.code == 1, session.output[-3000:]
    failed_and_rolled_back(checkout, "s08.canary", reason="/redeemed")
    assert standing(checkout) == {"maintenance_off", "worker_resume", "production_open"}
    audit_green(told(checkout, "s08.canary"))
    gone = checkout.run("--resume")
    assert gone.code == 4, gone.output
    assert "the drill world has been ended" in gone.output


def test_a_lock_somebody_lifted_stops_the_resume(checkout):
    """A missing maintenance flag and a reopened database are named, and nothing more is done."""
    assert checkout.run("--drill", "--disaster=drop", "--seed=7", "--until=write_lock").code == 11
    world = attach_world(checkout.folder / "world.json", adopt=False)
    world.places.maintenance.unlink()
    with connect(world.production) as session:
        session.do("SET default_transaction_read_only = off")
        session.do("ALTER DATABASE stampcard CONNECTION LIMIT -1")

    resumed = checkout.run("--resume")

    assert resumed.code == 1, resumed.output[-3000:]
    events = failed_and_rolled_back(checkout, "s02.writes_locked", reason="RB211")
    reason = next(
        event.data["reason"] for event in of_kind(events, "result") if event.data["status"] == "failed"
    )
    assert "maintenance mode" in reason
    assert "the database lock" in reason
    assert "Maintenance mode: OFF" in of_kind(events, "escalated")[0].data["text"]
    # the summary must not say that the promise held: the world's own audit saw it broken
    broken = {check["id"] for check in checkout.summary()["audit"] if check["verdict"] == "fail"}
    assert "maintenance_on" in broken


@pytest.fixture
def held_world(checkout, monkeypatch):
    """A drill stopped after its lock, whose verbs leave the world up, so that it can be looked at."""
    assert checkout.run("--drill", "--disaster=drop", "--seed=7", "--until=write_lock").code == 11
    teardown = World.teardown
    monkeypatch.setattr(World, "teardown", lambda _self: ())
    world = attach_world(checkout.folder / "world.json")
    yield world
    teardown(world)


def test_production_is_given_back_as_it_was(checkout, held_world):
    """After a rollback --release opens the database with its own settings, then the doors, then the workers."""
    folder, maintenance = checkout.folder, held_world.places.maintenance
    config = load_config(
        Path(checkout.state().started["config"]),
        bindings={**held_world.bindings(), "ticket": {"directory": str(folder / "ticket")}},
    )
    team, names = config.settings.app.workers, [database.name for database in config.settings.databases]
    lock = next(
        undo.args["original"]
        for undo in checkout.state().open_undo.values()
        if undo.name == "production_open"
    )

    assert verbs.carry_out(Request(verb="rollback", run=folder.name), root=checkout.root) == 1
    assert maintenance.exists()
    assert standing(checkout) == {"maintenance_off", "worker_resume", "production_open"}
    assert all(state.paused for state in workers.inventory(team))

    assert verbs.carry_out(Request(verb="release", run=folder.name), root=checkout.root) == 0
    assert not maintenance.exists()
    assert not any(state.paused for state in workers.inventory(team))
    now = original(held_world.production, names, config.settings.production.app_role)
    assert to_json(now) == lock
    assert now.app_role_login
    with connect(held_world.app_endpoint()) as session:
        assert session.value("SHOW default_transaction_read_only") == "off"
    order = [(event.data["name"], event.data["outcome"]) for event in of_kind(read_journal(folder), "undone")]
    assert [name for name, _ in order] == [
        "production_open", "maintenance_off", "worker_resume", "worker_resume",
    ]  # fmt: skip
    assert "expiry" in order[2][1]
    assert checkout.state().released
    assert standing(checkout) == set()
