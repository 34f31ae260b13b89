"""The runbook against a production it knows only from a hand-written file: refusals, plan, terminal, approvals."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures.command import wait_for
from fixtures.journal import read_journal
from fixtures.manifest import MANIFEST
from fixtures.postgres.binaries import Binaries
from fixtures.runs import is_open_elsewhere
from fixtures.state import RunState, fold
from tests.runbook.incident_parts import (
    APP_PASSWORD,
    CONNECTION_LIMIT,
    NAME,
    OWNER,
    PASSWORD,
    PASSWORD_ENV,
    REVIEWER,
)
from tests.runbook.incident_sessions import Session
from tests.runbook.incident_world import Shop, open_shop

APPROVE = re.compile(r'--approve=(\w+):(\w+) --run=\S+ --approver="([^"]*)"(?: --typed="([^"]*)")?')


@pytest.fixture(scope="module")
def quiet_shop(public_dir: Path, binaries: Binaries) -> Iterator[Shop]:
    """A damaged shop that nobody writes to: whatever changes, the session changed it."""
    with open_shop(public_dir, binaries) as shop:
        shop.damage()
        shop.be_quiet()
        shop.archive_everything()
        shop.archive_everything()
        yield shop


@pytest.fixture
def shop(public_dir: Path, binaries: Binaries) -> Iterator[Shop]:
    """A damaged shop whose customers keep ordering."""
    with open_shop(public_dir, binaries) as shop:
        yield shop.damage()


def state_of(shop: Shop, run_id: str) -> RunState:
    """Return a run as its journal tells it."""
    return fold(read_journal(shop.checkout / "reports" / "runs" / run_id))


def assert_no_secret(shop: Shop, *sessions: Session) -> None:
    """No password stands on a screen or in a report."""
    secrets = (PASSWORD, APP_PASSWORD, "app%3Asecret%2F8302")
    kept = {"secrets", "packs"}
    files = [path for path in (shop.checkout / "reports" / "runs").rglob("*") if path.is_file()]
    shown = [session.output for session in sessions]
    shown += [path.read_bytes().decode(errors="replace") for path in files if not kept & set(path.parts)]
    for secret in secrets:
        assert not [text for text in shown if secret in text]


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return what is not as it was."""
    return {name: after[name] for name in before if after[name] != before[name]}


@contextmanager
def edited(shop: Shop, change: tuple[str, str] | None) -> Iterator[None]:
    """Change production's configuration for a while."""
    before = shop.config.read_text()
    if change is not None:
        shop.edit(*change)
    try:
        yield
    finally:
        shop.config.write_text(before)


# -- refused before anything is touched -----------------------------------------------------------

#: name -> (arguments, edit of the configuration, what the answer must say)
REFUSED_AT_ONCE = {
    "a time without an offset": (
        ["--target-time=2026-03-01T11:58:30"], None,
        ("RB102", "has no offset", "at: --target-time", "HINT: if it is UTC:", "--target-time=2026-03-01T11:58:30Z"),
    ),
    "a time to come": (
        ["--target-time=2099-01-01T00:00:00Z"], None, ("RB102", "lies in the future", "at: --target-time", "HINT: it is now"),
    ),
    "an unknown key": (
        ["--target-time=latest"], ("proof_window =", "proof_windw ="),
        ("RB105", "production.toml:", "unknown key lock.proof_windw; did you mean 'proof_window'?", "docs/configuration.md"),
    ),
    "two clocks the wrong way round": (
        ["--target-time=latest", "--damaged-at=2026-01-02T00:00:00Z", "--detected-at=2026-01-01T00:00:00Z"], None,
        ("RB101", "--damaged-at lies after --detected-at", "HINT: check the offsets"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(REFUSED_AT_ONCE))
def test_bad_input_is_refused_without_a_trace(case, quiet_shop):
    """Exit 4 with code, fact, place and next command; no file anywhere is new."""
    arguments, edit, wanted = REFUSED_AT_ONCE[case]
    with edited(quiet_shop, edit):
        before = quiet_shop.traces()
        session = quiet_shop.incident(*arguments)
        after = quiet_shop.traces()

    assert session.code == 4, session.output[-2000:]
    for text in wanted:
        assert text in session.output
    assert changed(before, after) == {}


def test_a_missing_secret_is_refused_by_its_name(quiet_shop):
    """The environment variable is named, with the command that sets it."""
    before = quiet_shop.traces()
    session = quiet_shop.run(f"--config={quiet_shop.config}", "--target-time=latest", env={PASSWORD_ENV: ""})

    assert session.code == 4
    assert f"RB106 environment variable {PASSWORD_ENV} is not set" in session.output
    assert f"HINT: export {PASSWORD_ENV}=..." in session.output
    assert changed(before, quiet_shop.traces()) == {}


def test_modes_cannot_be_confused(quiet_shop):
    """An incident refuses the drill's file, and a drill production's."""
    before = quiet_shop.traces()
    incident = quiet_shop.run("--target-time=latest")
    drill = quiet_shop.run("--drill", f"--config={quiet_shop.config}")

    for session, said in ((incident, "is a drill's configuration"), (drill, "has no [drill] table")):
        assert session.code == 4
        assert "RB107" in session.output
        assert said in session.output
        assert "HINT" in session.output
    assert changed(before, quiet_shop.traces()) == {}


def _without_segment(shop: Shop) -> Callable[[], None]:
    with shop.admin() as session:
        name = session.execute("SELECT pg_walfile_name(%s)", (shop.target_lsn,)).fetchone()[0]
    return _moved(shop.home / "archive" / name)


def _moved(path: Path) -> Callable[[], None]:
    aside = path.with_name(f"{path.name}.aside") if path.is_dir() else path.parents[1] / f"{path.name}.aside"
    path.rename(aside)
    return lambda: aside.rename(path)


def _of_another_major(shop: Shop) -> Callable[[], None]:
    file = shop.home / "backups" / "monday" / "PG_VERSION"
    text = file.read_text()
    file.write_text("12\n")

    def mend() -> None:
        file.write_text(text)

    return mend


#: name -> (how the world is made wrong, edit of the configuration, target, what the answer must say)
NOT_READY = {
    "before the first backup": (
        None, None, "--target-time=2020-01-01T00:00:00Z",
        ("RB301", "no base backup ends before", "HINT: nearest that can be reached: --snapshot=monday"),
    ),
    "no server programs": (
        None, ("bin_dir = ", 'bin_dir = "/nowhere"\n# '), "--target-time=latest",
        ("RB109", "postgres was not found", "at: /nowhere", "HINT: set [postgres] bin_dir"),
    ),
    "a backup of another major version": (
        _of_another_major, None, "--target-time=latest",
        ("RB307", "is of PostgreSQL 12", "HINT: set [postgres] bin_dir"),
    ),
    "a segment is missing": (
        _without_segment, None, "",
        ("RB302", "cannot be replayed", "HINT: look for the segment in production's pg_wal"),
    ),
    "the archive is not there": (
        lambda shop: _moved(shop.home / "archive"), None, "--target-time=latest",
        ("RB309", "archive cannot be read", "HINT: mount the store"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(NOT_READY))
def test_what_a_restore_lacks_is_told_before_production_is_touched(case, quiet_shop):
    """Exit 4 at step 0; production, its folders and its lease are as they were; the run is on record."""
    damage, edit, target, wanted = NOT_READY[case]
    mend = damage(quiet_shop) if damage is not None else lambda: None
    try:
        with edited(quiet_shop, edit):
            before = quiet_shop.traces()
            session = quiet_shop.incident(target or f"--target-time={quiet_shop.target.isoformat()}")
            after = quiet_shop.traces()
    finally:
        mend()

    assert session.code == 4, session.output[-3000:]
    for text in wanted:
        assert text in session.output
    assert changed(before, after).keys() <= {"reports"}
    assert not list(quiet_shop.home.glob("leases/*"))
    assert state_of(quiet_shop, session.run_id).ended["exit_code"] == 4


def test_a_plan_names_every_step_and_changes_nothing(quiet_shop):
    """Steps, commands, changes, undo, present state, time and space; not one new file, no transaction."""
    before = quiet_shop.traces()
    session = quiet_shop.incident(f"--target-time={quiet_shop.target.isoformat()}", "--plan")
    after = quiet_shop.traces()

    assert session.code == 0, session.output[-3000:]
    assert changed(before, after) == {}
    for test in MANIFEST[:-1]:
        assert test in session.output
    for wanted in (
        f"PLAN for {NAME}", "objectives: RPO 15min, RTO 1h", "production is reachable",
        "ALTER ROLE shop_app NOLOGIN", "undo:    --release gives production back", "settlement",
        "/bin/shop canary {port}", "base backup monday", "of the RTO's 3600 s", "MB needed",
        f"Owner {OWNER} types '{NAME}', Reviewer {REVIEWER} approves", "nothing above was executed",
    ):  # fmt: skip
        assert wanted in session.output
    assert PASSWORD not in session.output


# -- an incident at a terminal --------------------------------------------------------------------


def test_an_incident_at_a_terminal_restores_the_shop(shop):
    """A wrong name stops it before anything is changed; the right one, and it serves the target's rows."""
    rules = shop.access_rules()
    arguments = (
        f"--config={shop.config}",
        f"--target-time={shop.target.isoformat()}",
        f"--damaged-at={shop.damaged_at.isoformat()}",
    )
    wrong = shop.at_terminal(*arguments, answer=lambda *_: "shop-prodution")

    assert wrong.code == 1, wrong.output[-3000:]
    assert wrong.gates == [("production_name", "owner")]
    assert "RB207 gate 'production_name' was not passed" in wrong.output
    assert "give production back" not in wrong.output
    assert shop.access_rules() == rules
    assert shop.command("maintenance", "status") == "off"
    assert shop.command("settlement", "status") == "off"

    shop.wait_for_orders(5)
    session = shop.at_terminal(f"--resume={wrong.run_id}")

    assert session.code == 0, session.output[-3000:]
    assert session.gates == [
        ("production_name", "owner"),
        ("discarded_window", "owner"),
        ("cutover", "owner"),
        ("cutover", "reviewer"),
        ("lift_maintenance", "owner"),
    ]
    assert_screen(session)
    assert shop.command("maintenance", "status") == "off"
    assert shop.command("settlement", "status") == "off"
    assert shop.wrong_orders() == []
    shop.wait_for_orders(5)
    key = shop.orders[-1].key
    assert key in shop.served_orders()
    with shop.admin() as old:
        assert old.execute("SELECT count(*) FROM shop.orders WHERE key = %s", (key,)).fetchone() == (0,)
        assert old.execute("SELECT datconnlimit FROM pg_database WHERE datname = 'shop'").fetchone() == (0,)
    assert_no_secret(shop, wrong, session)


def assert_screen(session: Session) -> None:
    """What must always be on screen is there, after each step and at each gate."""
    shown = [line for line in session.output.splitlines() if line.startswith("== ")]
    for wanted in (
        f"== {NAME} | writable: production | fence: open",
        f"== {NAME} | writable: neither; production is fenced | fence: held",
        f"== {NAME} | writable: the restored database | fence: held",
        "RTO left",
        "target: time",
        "discarded: not counted yet",
        "rollback target: production behind its fence",
        "next: pytest --resume=",
    ):
        assert any(wanted in line for line in shown), wanted
    for gate in ("production_name", "cutover", "lift_maintenance"):
        before = session.output[: session.output.index(f"GATE {gate}")]
        assert before.rstrip().splitlines()[-1].startswith("== rollback target:")


# -- an inspection, then the cutover, without any terminal ----------------------------------------


def test_an_inspection_is_cut_over_by_approvals_from_elsewhere(shop):
    """Production stays live; then each gate waits for its own people, this run's words, and their time."""
    shop.archive_everything()
    rules, taken = shop.access_rules(), len(shop.orders)
    looked = shop.incident(f"--target-xid={shop.target_xid}", "--exclusive", "--inspect")
    run_id = looked.run_id

    assert looked.code == 11, looked.output[-3000:]
    assert len(shop.orders) > taken + 20
    assert shop.access_rules() == rules
    assert re.search(r"shop\.shop\.orders: \d+ inserted, \d+ updated", looked.output)
    assert "shop.shop.payments:" in looked.output
    assert f"pytest --resume={run_id} --cutover" in looked.output
    assert not (shop.checkout / "reports/runs" / run_id / "packs").exists()
    with_marked = "SELECT count(*) FROM shop.customers WHERE email = 'marked@example.com'"

    # somebody else is told who holds it, since when
    second = shop.incident("--target-time=latest")
    assert second.code == 4
    assert f"RB205 run {run_id} holds {NAME} since 20" in second.output
    assert f"pytest --status={run_id}" in second.output

    first = shop.run(f"--resume={run_id}", "--cutover")
    assert first.code == 11, first.output[-3000:]
    ((gate, shown, person, typed),) = set(APPROVE.findall(first.output))
    assert (gate, person, typed) == ("production_name", OWNER, NAME)
    assert shop.access_rules() == rules

    # the wrong person, the wrong words, nothing typed, too old
    approve(shop, run_id, gate, shown, REVIEWER, typed)
    approve(shop, run_id, gate, "0" * 12, OWNER, typed)
    approve(shop, run_id, gate, shown, OWNER, "")
    approve(shop, run_id, gate, shown, OWNER, typed)
    with edited(shop, ("lease_directory", 'approval_expiry = "10ms"\nlease_directory')):
        assert shop.run(f"--resume={run_id}").code == 11
    assert shop.access_rules() == rules

    # while a process works on it, another is refused
    working = shop.start(f"--resume={run_id}")
    folder = shop.checkout / "reports" / "runs" / run_id
    wait_for(lambda: is_open_elsewhere(folder) or working.poll() is not None, timeout_s=60, what="it works")
    meanwhile = shop.run(f"--resume={run_id}")
    assert meanwhile.code == 4
    assert f"RB202 run {run_id} is still running in another process" in meanwhile.output
    output, _ = working.communicate(timeout=300)
    session = Session(working.returncode, output)

    gates = []
    while session.code == 11 and len(gates) < 6:
        for name, shown, person, typed in dict.fromkeys(APPROVE.findall(session.output)):
            gates.append((name, person))
            approve(shop, run_id, name, shown, person, typed)
        session = shop.run(f"--resume={run_id}")

    assert session.code == 0, session.output[-3000:]
    assert gates == [
        ("discarded_window", OWNER), ("cutover", OWNER), ("cutover", REVIEWER), ("lift_maintenance", OWNER),
    ]  # fmt: skip
    assert shop.wrong_orders() == []
    port = int(re.search(r":(\d+)/", shop.command("database-url", "read"))[1])
    with shop.admin(port=port) as restored:
        assert restored.execute(with_marked).fetchone() == (0,)
        limit = restored.execute("SELECT datconnlimit FROM pg_database WHERE datname = 'shop'").fetchone()
        assert limit == (CONNECTION_LIMIT,)
    assert_no_secret(shop, looked, first, session)


def approve(shop: Shop, run_id: str, gate: str, shown: str, person: str, typed: str) -> None:
    """Approve from another terminal."""
    words = [f"--typed={typed}"] if typed else []
    session = shop.run(f"--approve={gate}:{shown}", f"--run={run_id}", f"--approver={person}", *words)
    assert session.code == 0, session.output
