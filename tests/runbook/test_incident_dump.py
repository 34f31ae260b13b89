"""An incident whose only backups are dumps: nothing between two of them is promised, and the newest serves again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.command import run
from fixtures.postgres.binaries import Binaries
from fixtures.providers.dump.record import parse_record
from tests.runbook.incident_claims import arguments, assert_served_right, times_done
from tests.runbook.incident_parts import ADMIN, PASSWORD
from tests.runbook.incident_world import Shop, open_shop

SCRIPT = Path(__file__).parents[2] / "fixtures" / "providers" / "dump" / "dump-set.sh"


@pytest.fixture
def shop(public_dir: Path, binaries: Binaries) -> Iterator[Shop]:
    """A shop that is dumped while customers order, and damaged soon after."""
    with open_shop(public_dir, binaries) as shop:
        sets = shop.home / "sets"
        sets.mkdir()
        shop.edit('name = "basebackup"', 'name = "dump"')
        shop.edit(
            "[provider.basebackup]",
            f'[provider.dump]\nlocation = "{sets}"\njobs = 2\n\n[provider.basebackup]',
        )
        shop.wait_for_orders(20)
        yield shop


def take_set(shop: Shop) -> str:
    """Take a set with the script; return its name, with the shop judged by its moment from now on."""
    sets = shop.home / "sets"
    done = run(
        ["sh", SCRIPT, sets, "shop", "shop_history"],
        timeout_s=120,
        env={
            "PGHOST": "127.0.0.1", "PGPORT": str(shop.port), "PGUSER": ADMIN, "PGPASSWORD": PASSWORD,
            "DUMP_PROGRAMS": str(shop.binaries.bin_dir),
        },
    )  # fmt: skip
    return done.stdout.strip()


def test_the_newest_dump_serves_again_and_nothing_between_is_promised(shop):
    """A time between is refused before anything is locked; the set restores, and later orders are kept aside."""
    name = take_set(shop)
    shop.damage()
    backup = parse_record((shop.home / "sets" / name / "set.json").read_bytes(), where=name).backup(name)
    shop.before, shop.after = backup.started_at, backup.ended_at

    between = shop.at_terminal(*arguments(shop))
    assert between.code != 0
    assert "RB303" in between.output
    assert f"--snapshot={name}" in between.output
    assert times_done(shop, between.run_id, "close production's databases") == 0
    assert shop.get("/up") == 200

    plan = shop.run("--plan", *arguments(shop, f"--snapshot={name}"))
    assert plan.code == 0, plan.output[-3000:]
    assert "pg_restore --create --exit-on-error" in plan.output

    session = shop.at_terminal(*arguments(shop, f"--snapshot={name}"))
    assert_served_right(shop, session)
    packed = "".join(
        path.read_text()
        for path in (shop.checkout / "reports" / "runs" / session.run_id / "packs").rglob("*.jsonl")
    )
    later = [order for order in shop.orders if shop.after < order.sent < shop.damaged_at]
    assert later
    assert [order for order in later if order.key not in packed] == []


def test_a_stage_drill_and_an_inspection_go_through_dumps(shop):
    """A random moment is a set; an inspection says what a cutover would lose, with production live."""
    names = [take_set(shop), take_set(shop)]

    staged = shop.run("--drill=restore-only", f"--config={shop.config}", "--target-time=random", "--seed=3")
    assert staged.code == 0, staged.output[-3000:]
    assert any(f"--snapshot={name}" in staged.output for name in names)

    shop.wait_for_orders(5)
    inspected = shop.run(f"--config={shop.config}", "--inspect", "--target-time=latest")
    assert inspected.code in {0, 11}, inspected.output[-3000:]
    assert "a cutover to this copy would lose" in inspected.output
    assert "shop.shop.orders: " in inspected.output
    assert shop.get("/up") == 200

    given_up = shop.run(f"--rollback={inspected.run_id}")
    assert "RB" not in given_up.output, given_up.output[-3000:]
    assert not list((shop.home / "restored").rglob("PG_VERSION"))

    shop.edit('rpo = "15min"', 'rpo = "1s"')
    old = shop.run(f"--config={shop.config}", "--inspect", "--target-time=latest")
    assert old.code == 1, old.output[-3000:]
    assert "target.distance_s <= target.rpo_s" in old.output
    assert times_done(shop, old.run_id, "restore to isolated instance") == 0
