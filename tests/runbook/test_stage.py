"""A stage drill on somebody else's production: the real backup restored, verified and discarded, nothing touched."""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aftermath import finish, kill, processes_of

from fixtures.command import run, wait_for
from fixtures.config import UNSET
from fixtures.journal import read_journal
from fixtures.manifest import CLOSE_OUT, STAGED
from fixtures.postgres.binaries import Binaries
from fixtures.state import RunState, fold
from tests.runbook.incident_parts import PASSWORD, PASSWORD_ENV
from tests.runbook.incident_sessions import Session
from tests.runbook.incident_world import ROOT, Shop, open_shop

DRILL = "--drill=restore-only"
WRITTEN = "SELECT sum(tup_inserted), sum(tup_updated), sum(tup_deleted) FROM pg_stat_database"
SESSIONS = "SELECT sum(sessions) FROM pg_stat_database"


@pytest.fixture(scope="module")
def shop(public_dir: Path, binaries: Binaries) -> Iterator[Shop]:
    """A shop in good order with a second base backup, which nobody writes to."""
    with open_shop(public_dir, binaries) as shop:
        shop.wait_for_orders(20)
        shop.base_backup("tuesday")
        shop.wait_for_orders(20)
        shop.be_quiet()
        shop.archive_everything()
        shop.archive_everything()
        yield shop


@pytest.fixture
def config(shop: Shop) -> Iterator[Shop]:
    """The shop, whose configuration a test may change."""
    before = shop.config.read_text()
    yield shop
    shop.config.write_text(before)


def drill(shop: Shop, *arguments: str, **env: str) -> Session:
    """Run a stage drill without a terminal."""
    return shop.run(DRILL, f"--config={shop.config}", *arguments, env=env)


def folder_of(shop: Shop, session: Session) -> Path:
    """Return a run's folder."""
    return shop.checkout / "reports" / "runs" / session.run_id


def state_of(shop: Shop, session: Session) -> RunState:
    """Return a run as its journal tells it."""
    return fold(read_journal(folder_of(shop, session)))


def summary_of(shop: Shop, session: Session) -> dict[str, Any]:
    """Return a run's summary."""
    loaded: dict[str, Any] = json.loads((folder_of(shop, session) / "summary.json").read_text())
    return loaded


def scratch_of(shop: Shop, session: Session) -> Path:
    """Return where a run's real rows are."""
    return shop.home / "restored" / f"stage-{session.run_id}"


def untouched(shop: Shop) -> dict[str, Any]:
    """Return what a stage drill may not change, and what PostgreSQL counts as written."""
    shop.admin("postgres").close()  # a session's end brings its counts up to date
    with shop.admin("postgres") as session:
        written = session.execute(WRITTEN).fetchone()
        advisory = session.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
    traces = {name: value for name, value in shop.traces().items() if name != "reports"}
    leases = sorted(path.name for path in (shop.home / "leases").glob("*"))
    return {**traces, "written": written, "advisory": advisory, "leases": leases}


def assert_gone(shop: Shop, session: Session) -> None:
    """Neither a file nor a process of the copy is left, and the run's folder holds no rows."""
    scratch = scratch_of(shop, session)
    assert not scratch.exists()
    assert processes_of(scratch) == []
    assert not (folder_of(shop, session) / "packs").exists()
    assert state_of(shop, session).discarded


def test_the_real_backup_is_restored_verified_and_discarded(config):
    """On a CI runner that may: steps 0, 1 and 4 to 8, and production is as it was to the last count."""
    shop = config
    shop.config.write_text(shop.config.read_text() + '\n[stage]\nreal_data = "a test"\n')
    before = untouched(shop)

    session = drill(shop, CI="true")

    assert session.code == 0, session.output[-4000:]
    assert untouched(shop) == before
    assert_gone(shop, session)
    assert "exit code 0, restored, verified, discarded" in session.output
    assert "GATE" not in session.output
    summary = summary_of(shop, session)
    assert {step["id"] for step in summary["steps"] if step["status"] == "passed"} == STAGED | {CLOSE_OUT}
    assert {step["status"] for step in summary["steps"] if step["id"] not in STAGED | {CLOSE_OUT}} == {
        "skipped"
    }
    assert (summary["mode"], summary["bindings"]) == ("stage", "restore-only")
    stage = summary["stage"]
    assert stage["discarded"]
    assert stage["restore_and_verify_s"] == pytest.approx(stage["restore_s"] + stage["verify_s"], abs=0.002)
    assert (summary["rto"]["measured_s"], summary["rto"]["verdict"]) == (None, "unknown")
    assert {check["id"]: check["verdict"] for check in stage["wipe"]} == dict.fromkeys(
        ("wipe.instance", "wipe.processes", "wipe.handles", "wipe.folder", "wipe.packs"), "pass"
    )
    for unproven in ("lock", "safety copy", "cutover"):
        assert unproven in summary["verdict"]
        assert any(unproven in line for line in stage["not_proven"])
    report = (folder_of(shop, session) / "summary.html").read_text()
    assert "Not proven by this drill" in report
    line = json.loads((shop.checkout / "reports" / "history.jsonl").read_text().splitlines()[-1])
    assert (line["mode"], line["rto_s"]) == ("stage", None)
    assert line["restore_and_verify_s"] == stage["restore_and_verify_s"]
    assert Path(summary["ticket"]).is_relative_to(folder_of(shop, session))


def test_a_drill_at_a_manifests_moment_compares_everything(config):
    """A manifest taken of the quiet production names the target; the copy equals it, and the summary says so."""
    shop = config
    shop.config.write_text(shop.config.read_text() + f'\n[integrity]\nmanifests = "{shop.home}/manifests"\n')
    taken = run(
        [sys.executable, "-m", "fixtures.attest", f"--config={shop.config}", "--wait=30s"], timeout_s=120, cwd=ROOT,
        env={PASSWORD_ENV: PASSWORD},
    )  # fmt: skip
    target = re.findall(r"--target-name=\S+", taken.stdout)
    assert len(target) == 1, taken.stdout
    shop.archive_everything()
    shop.archive_everything()

    session = drill(shop, *target)

    assert session.code == 0, session.output[-4000:]
    checks = summary_of(shop, session)["checks"]
    compared = {check["id"]: check for check in checks if check["source"].startswith("integrity manifest of")}
    names = ("manifest", "manifest_structure", "manifest_sequences")
    assert {name: check["verdict"] for name, check in compared.items()} == {
        f"content.{name}:{database}": "pass" for name in names for database in ("shop", "shop_history")
    }
    assert all("exact, quiet primary" in check["source"] for check in compared.values())


def test_production_that_may_not_be_asked_is_not_asked(config):
    """Switched off: no session, no password; the cluster is known from the configuration."""
    shop = config
    with shop.admin("postgres") as asking:
        known = asking.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()[0]
    shop.edit("[production]\n", f'[production]\nsystem_identifier = "{known}"\ntimeline = 1\n')
    shop.config.write_text(shop.config.read_text() + '\n[stage]\nproduction = "off"\n')
    with shop.admin("postgres") as watching:
        before = watching.execute(SESSIONS).fetchone()
        session = drill(shop, **{PASSWORD_ENV: ""})
        after = watching.execute(SESSIONS).fetchone()

    assert session.code == 0, session.output[-4000:]
    assert after == before
    assert_gone(shop, session)
    summary = summary_of(shop, session)
    assert summary["production_state"] == "not asked"
    assert any("production, which was not asked" in line for line in summary["stage"]["not_proven"])


def test_what_only_a_cutover_needs_may_be_left_open(config):
    """A file as `make init` writes it will do, but for the canary; a stopped drill goes on with it as well."""
    shop = config
    text = re.sub(
        r'^(served_url|metrics_url) = ".*"', rf'\1 = "{UNSET}"', shop.config.read_text(), flags=re.MULTILINE
    )
    text = re.sub(
        r"^(on|off|status|write|read|write_probe) = \[.*\]", rf'\1 = ["{UNSET}"]', text, flags=re.MULTILINE
    )
    shop.config.write_text(re.sub(r"^command = \[.*\]", f'command = ["{UNSET}"]', text, flags=re.MULTILINE))
    refused = drill(shop)
    shop.config.write_text(text)

    stopped = drill(shop, "--until=incident")
    resumed = shop.run(f"--resume={stopped.run_id}")

    assert refused.code == 4, refused.output[-2000:]
    assert re.findall(r"(\S+) is not set yet", refused.output) == ["canary.command"]
    assert text.count(UNSET) > 8
    assert stopped.code == 11, stopped.output[-4000:]
    assert resumed.code == 0, resumed.output[-4000:]
    assert_gone(shop, stopped)


def test_a_moment_is_chosen_by_the_seed(shop):
    """The same seed and backups give the same moment, printed so that it can be restored again by name."""
    session = drill(shop, "--target-time=random", "--seed=11")
    again = drill(shop, "--target-time=random", "--seed=11", "--until=incident")

    assert session.code == 0, session.output[-4000:]
    assert_gone(shop, session)
    found = re.search(r"seed 11\); the same moment again: --target-time=(\S+)", session.output)
    assert found
    assert f"--target-time={found[1]}" in again.output
    summary = summary_of(shop, session)
    assert (summary["stage"]["chosen"], summary["stage"]["seed"]) == ("random", 11)
    assert summary["target"]["value"].replace("+00:00", "Z") == found[1]
    assert summary["stage"]["window_from"] < summary["target"]["value"] < summary["stage"]["window_to"]
    assert again.code == 11, again.output[-2000:]
    assert shop.run(f"--rollback={again.run_id}").code == 1


def test_a_failed_check_discards_the_copy_all_the_same(config):
    """A wrong answer of the team's own query ends with 1; nothing is left to go on with, nobody is called."""
    shop = config
    shop.edit("expect = 0", "expect = 1")
    before = untouched(shop)

    session = drill(shop)

    assert session.code == 1, session.output[-4000:]
    assert "a step failed; the copy is discarded; production was not touched" in session.output
    assert untouched(shop) == before
    assert_gone(shop, session)
    summary = summary_of(shop, session)
    assert summary["verdict"].startswith("NOT RESTORED")
    assert summary["stage"]["restore_and_verify_s"] is None
    assert not [event for event in read_journal(folder_of(shop, session)) if event.kind == "escalated"]
    for verb in ("resume", "rollback"):
        refused = shop.run(f"--{verb}={session.run_id}")
        assert refused.code == 4
        assert "RB208" in refused.output


@pytest.mark.parametrize("variable", ["CI", "JENKINS_URL"])
def test_a_ci_runner_is_refused_unless_it_may_hold_real_rows(shop, variable):
    """Without a declared reason nothing is read and nothing is written."""
    before, reports = untouched(shop), shop.reports()

    session = drill(shop, **{variable: "true"})

    assert session.code == 4
    assert "RB112" in session.output
    assert "real_data" in session.output
    assert untouched(shop) == before
    assert shop.reports() == reports


def test_a_drills_configuration_is_refused(shop):
    """The shipped runbook.toml describes a throwaway production, which has no real backup."""
    session = shop.run(DRILL, f"--config={shop.checkout / 'runbook.toml'}")

    assert session.code == 4
    assert "RB107" in session.output


def test_a_kept_copy_is_closed_to_others_and_not_gone_while_held(shop):
    """--until keeps it, mode 0700; a process that holds one of its files makes a person act, then it goes."""
    kept = drill(shop, "--until=restore")
    scratch = scratch_of(shop, kept)

    assert kept.code == 11, kept.output[-3000:]
    assert "THE COPY OF REAL DATA IS KEPT" in kept.output
    assert scratch.stat().st_mode & 0o777 == 0o700
    assert "isolated, real rows" in shop.run(f"--status={kept.run_id}").output

    with (scratch / kept.run_id / "data" / "PG_VERSION").open():
        held = shop.run(f"--resume={kept.run_id}")
        assert held.code == 10, held.output[-3000:]
        assert "RB316" in held.output
        assert str(os.getpid()) in held.output
    assert "NOT PROVEN" in (folder_of(shop, kept) / "summary.html").read_text()

    undone = shop.run(f"--rollback={kept.run_id}")
    assert undone.code == 1, undone.output
    assert_gone(shop, kept)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_drill_leaves_no_rows(shop, how):
    """A signal discards the copy at once and ends with 2; after a kill the next command does."""
    child = shop.start(DRILL, f"--config={shop.config}")
    places = shop.home / "restored"
    wait_for(
        lambda: child.poll() is not None or any(places.glob("stage-*/*/data/postmaster.pid")),
        timeout_s=120, what="the copy is there", interval_s=0.02,
    )  # fmt: skip
    if how is signal.SIGKILL:
        kill(child)
        session = Session(-how, str(next(places.glob("stage-*"))))
        assert shop.run(f"--rollback={session.run_id}").code == 1
    else:
        child.send_signal(how)
        output = finish(child)
        session = Session(child.returncode, output)
        assert session.code == 2, output[-3000:]

    assert_gone(shop, session)


def test_a_gap_in_the_archive_fails_the_drill(config):
    """A nightly drill says that the newest base backup cannot be brought forward, before it copies anything."""
    shop = config
    archive = shop.home / "archive"
    copy = shop.home / "archive-with-a-gap"
    shutil.copytree(archive, copy)
    segments = sorted(path for path in copy.iterdir() if re.fullmatch(r"[0-9A-F]{24}", path.name))
    segments[-2].unlink()
    shop.edit(f'archive = "{archive}"', f'archive = "{copy}"')
    try:
        session = drill(shop)
    finally:
        shutil.rmtree(copy)

    assert session.code == 4, session.output[-3000:]
    assert "RB302" in session.output
    assert not list((shop.home / "restored").iterdir())
