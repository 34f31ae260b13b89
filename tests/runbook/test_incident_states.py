"""Incidents that do not go straight: a failure before the switch, a production that is down, one that is damaged."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.command import wait_for
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.server import free_port
from tests.runbook.incident_claims import arguments, assert_locked, assert_served_right, times_done
from tests.runbook.incident_parts import NAME
from tests.runbook.incident_world import Shop, open_shop


@pytest.fixture
def shop(public_dir: Path, binaries: Binaries) -> Iterator[Shop]:
    """A damaged shop whose customers keep ordering."""
    with open_shop(public_dir, binaries) as shop:
        yield shop.damage()


def test_a_failure_before_the_switch_is_mended_and_a_later_run_gives_back_what_the_first_one_locked(shop):
    """The lock stays, the copy is not made again, and release restores the values from before the first run."""
    rules, url = shop.access_rules(), shop.command("database-url", "read")
    shop.edit('path = "/customers/1"', 'path = "/customers/1"\nexpect_status = 418')
    failed = shop.at_terminal(*arguments(shop))
    first = failed.run_id

    assert failed.code == 1, failed.output[-3000:]
    assert "GET /customers/1" in failed.output
    assert f"pytest --resume={first}" in failed.output
    assert_locked(shop)
    assert "s08.canary failed" in (shop.home / "tickets" / "escalations.log").read_text()
    copy = shop.home / "restored" / first / "data"
    made = (copy / "PG_VERSION").stat().st_ino

    shop.edit("expect_status = 418\n", "")
    mended = shop.at_terminal(f"--resume={first}", "--until=canary")
    assert mended.code == 11, mended.output[-3000:]
    assert mended.gates == []
    assert (copy / "PG_VERSION").stat().st_ino == made
    assert times_done(shop, first, "restore to isolated instance") == 1
    assert_locked(shop)

    undone = shop.run(f"--rollback={first}")
    assert undone.code == 1, undone.output
    assert_locked(shop)

    # another target, another run: it takes over what stands, with the values from before the first one
    second = shop.at_terminal(
        f"--config={shop.config}", f"--target-lsn={shop.target_lsn}", "--until=write_lock"
    )
    assert second.code == 11, second.output[-3000:]
    assert second.gates == [("production_name", "owner")]
    superseded = shop.run(f"--resume={first}")
    assert superseded.code == 4
    assert f"RB208 run {second.run_id} took over from run {first}" in superseded.output
    assert f"pytest --resume={second.run_id}" in superseded.output
    assert_locked(shop)

    nobody = shop.run(f"--release={second.run_id}")
    assert nobody.code == 11, nobody.output
    assert f"then go on: pytest --release={second.run_id}" in nobody.output
    assert_locked(shop)
    released = shop.at_terminal(f"--release={second.run_id}")
    assert released.code == 0, released.output[-3000:]
    assert released.gates == [("release", "owner")]
    assert shop.access_rules() == rules
    assert shop.command("database-url", "read") == url
    assert shop.command("settlement", "status") == "off"
    assert shop.get("/up") == 200
    shop.wait_for_orders(3)
    ended = shop.run(f"--resume={second.run_id}")
    assert ended.code == 4
    assert "RB208" in ended.output


def test_a_production_that_is_down_is_fenced_copied_and_replaced(shop):
    """Silence is refused, a word without a fence too; with both, the unarchived end of its log is served."""
    shop.stop_postgres()
    before = shop.files()
    silent = shop.incident(*arguments(shop)[1:])
    shop.edit('app_role = "shop_app"', 'app_role = "shop_app"\nstate = "down"')
    unfenced = shop.incident(*arguments(shop)[1:])

    for session, code, facts in (
        (silent, "RB401", ("cannot log in to production", "check production.dsn", 'state = "down"')),
        (unfenced, "RB405", ("no fence is configured", "set [production] fence")),
    ):
        assert session.code == 4, session.output[-3000:]
        assert code in session.output
        assert [fact for fact in facts if fact not in session.output] == []
    assert shop.files() == before
    assert not (shop.home / "fenced").exists()

    shop.edit('state = "down"', f'state = "down"\nfence = ["{shop.home}/bin/fence"]')
    session = shop.at_terminal(*arguments(shop, "--target-name=before the deploy"))

    assert_served_right(shop, session)
    assert (shop.home / "fenced").exists()
    assert "| NO ROLLBACK TARGET |" in session.output.replace("rollback target: ", "| ")
    assert f"lock writes on {NAME} (down) and restore it" in session.output
    assert "writable: neither; production is fenced | fence: held by its own command" in session.output
    folder = shop.checkout / "reports" / "runs" / session.run_id
    assert "NO ROLLBACK TARGET" in (folder / "summary.json").read_text()
    assert (shop.home / "safety" / session.run_id / "data" / "global" / "pg_control").exists()
    assert not (shop.home / "pg" / "data" / "postmaster.pid").exists() or not shop.answers()


def test_a_dead_production_whose_log_cannot_be_read_is_never_counted_whole(shop):
    """What it had not archived is in no count: the Owner is told so, and that no safety copy is possible."""
    with shop.admin("postgres") as session:
        known = session.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()[0]
        session.execute("SELECT pg_switch_wal()")
    shop.wait_for_orders(3)
    shop.stop_postgres()
    files = next(line for line in shop.config.read_text().splitlines() if line.startswith("data_directory"))
    shop.edit(
        files,
        f'system_identifier = "{known}"\ntimeline = 1\nstate = "down"\nfence = ["{shop.home}/bin/fence"]',
    )
    session = shop.at_terminal(f"--config={shop.config}", "--target-time=latest", "--until=target")

    assert session.code == 11, session.output[-3000:]
    assert ("no_safety_copy", "owner") in session.gates
    assert "HOW MUCH COULD NOT BE COUNTED COMPLETELY" in session.output
    assert "the end of production's log could not be read" in session.output


def test_a_production_that_only_others_reach_is_cut_off_before_anything_is_copied(shop):
    """Unreachable from here is not dead: it serves on until its fence is proven, and nothing is copied before."""
    shop.edit(f"port={shop.port} ", f"port={free_port()} ")  # the way from here to production is cut
    shop.edit(
        'app_role = "shop_app"',
        'app_role = "shop_app"\nstate = "unknown"\n'
        f'probe = ["{shop.binaries.tool("pg_isready")}", "-q", "-h", "127.0.0.1", "-p", "{shop.port}"]',
    )
    shop.wait_for_orders(3)
    unfenced = shop.incident(*arguments(shop)[1:])
    assert unfenced.code == 4, unfenced.output[-3000:]
    assert "RB405" in unfenced.output
    shop.wait_for_orders(3)

    shop.edit('state = "unknown"', f'state = "unknown"\nfence = ["{shop.home}/bin/fence"]')
    unproven = shop.at_terminal(*arguments(shop, "--target-name=before the deploy"))
    assert unproven.code == 1, unproven.output[-3000:]
    wanted = (
        "RB405 the fencing command did not prove that production is fenced",
        f"{shop.home}/bin/fence ended with status 1",
        "HINT: fence production by hand (power, network)",
        f"pytest --resume={unproven.run_id}",
    )
    assert [text for text in wanted if text not in unproven.output] == [], unproven.output[-3000:]
    assert shop.answers()
    assert not list((shop.home / "restored").rglob("PG_VERSION"))
    assert not list((shop.home / "safety").rglob("PG_VERSION"))

    fence = shop.home / "bin" / "fence"
    pid_file = f"{shop.server.data}/postmaster.pid"
    power_off = f"kill -QUIT $(head -n 1 {pid_file}); while test -e {pid_file}; do sleep 0.02; done\n"
    fence.write_text(fence.read_text().replace("echo", f"{power_off}echo"))
    session = shop.at_terminal(f"--resume={unproven.run_id}")
    assert_served_right(shop, session)
    assert "NO ROLLBACK TARGET" in session.output
    assert not shop.answers()
    assert (shop.home / "safety" / session.run_id / "data" / "global" / "pg_control").exists()


def test_a_production_that_turned_read_only_is_replaced_by_one_that_takes_orders(shop):
    """Measured, not declared; what made it read-only is not carried over to the restored one."""
    with shop.admin() as session:
        session.execute("ALTER DATABASE shop RESET default_transaction_read_only")
        session.execute("ALTER SYSTEM SET default_transaction_read_only = 'on'")
        session.execute("SELECT pg_reload_conf()")
    wait_for(lambda: not shop.order(1), timeout_s=30, what="production takes no orders")

    session = shop.at_terminal(*arguments(shop))

    assert_served_right(shop, session)
    assert f"lock writes on {NAME} (read-only) and restore it" in session.output
    assert "NO ROLLBACK TARGET" not in session.output


def test_a_damaged_production_is_kept_as_it_is_where_no_dump_can_be_made(shop):
    """Declared damaged, its files are copied with their damage; undeclared, the dump fails and says what to do."""
    damage_files(shop)
    with shop.admin(
        "postgres"
    ) as session:  # somebody's first aid, before the runbook; it must not come with the copy
        session.execute("ALTER DATABASE shop SET default_transaction_read_only = 'on'")
        session.execute("ALTER ROLE shop_app NOLOGIN")
    shop.edit('app_role = "shop_app"', 'app_role = "shop_app"\nstate = "damaged"')
    declared = shop.at_terminal(*arguments(shop), "--until=pre_restore_backup")
    assert declared.code == 11, declared.output[-3000:]
    assert (shop.home / "safety" / declared.run_id / "data" / "backup_manifest").exists()
    assert shop.run(f"--rollback={declared.run_id}").code == 1

    shop.edit('state = "damaged"\n', "")
    undeclared = shop.at_terminal(*arguments(shop, f"--target-lsn={shop.target_lsn}"))
    assert undeclared.code == 1, undeclared.output[-3000:]
    assert "RB404" in undeclared.output
    assert 'set [safety_copy] mode = "physical" or "keep"' in undeclared.output
    assert_locked(shop)

    shop.edit("[safety_copy]", '[safety_copy]\nmode = "keep"')
    session = shop.at_terminal(f"--resume={undeclared.run_id}")
    assert_served_right(shop, session)
    assert "safety copy: keep at" in session.output


def damage_files(shop: Shop) -> None:
    """Overwrite pages of a table while production is stopped, and start it again."""
    with shop.admin() as session:
        session.execute("CHECKPOINT")
        path = session.execute("SELECT pg_relation_filepath('shop.orders')").fetchone()[0]
    shop.stop_postgres(signal.SIGINT)
    with (shop.server.data / path).open("r+b") as file:
        file.seek(8192 + 512)
        file.write(b"\xde\xad\xbe\xef" * 64)
    shop.start_postgres()
