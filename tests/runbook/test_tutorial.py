"""
docs/tutorial.md, walked: every command of it, in order, in one shell, with a reader's own production.

The reader's production is the shop of tests/runbook: its addresses, folders and password take the
places of the tutorial's. What a command is said to end with is what it must end with.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.config import UNSET
from tests.runbook.incident_parts import PASSWORD, ROOT
from tests.runbook.incident_world import Shop, open_shop

TUTORIAL = ROOT / "docs" / "tutorial.md"
#: bound of one command, seconds; reached only when something hangs
COMMAND_S = 300
EXIT_CODE = re.compile(r"# exit code (\d+)")


def commands() -> list[tuple[str, int]]:
    """Return the tutorial's commands with the code each is said to end with."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```$", TUTORIAL.read_text(), re.DOTALL | re.MULTILINE):
        for command in block.replace("\\\n", " ").splitlines():
            said = EXIT_CODE.search(command)
            found.append((command.strip(), int(said[1]) if said else 0))
    return found


@pytest.fixture
def shop(public_dir, binaries):
    """The reader's production, some time after its base backup."""
    with open_shop(public_dir, binaries) as shop:
        yield shop


def checkout_with_make(shop: Shop) -> Path:
    """Complete the shop's copy of the checkout: the Makefile, and an environment that is built already."""
    for part in ("Makefile", "requirements.lock"):
        shutil.copy2(ROOT / part, shop.checkout / part)
    shutil.copy2(ROOT / "reports" / "package-lock.json", shop.checkout / "reports" / "package-lock.json")
    environment = shop.checkout / ".venv"
    environment.mkdir()
    for part in ("bin", "lib", "include", "pyvenv.cfg"):
        if (Path(sys.prefix) / part).exists():
            (environment / part).symlink_to(Path(sys.prefix) / part)
    (environment / ".installed").touch()
    return shop.checkout


def moment_in_the_backups(shop: Shop) -> int:
    """Return a second that lies behind the base backup and in the archive."""
    shop.wait_for_orders(5)
    second = int(time.time()) + 1
    while time.time() < second + 1:
        shop.wait_for_orders(1)
    shop.archive_everything()
    shop.archive_everything()
    return second


def test_every_command_of_the_tutorial_does_what_it_says(shop):
    """From `make setup` to giving up an inspection of real backups; production is untouched by all of it."""
    own = {
        "SHOP_DBA_PASSWORD=...": f"SHOP_DBA_PASSWORD={PASSWORD}",
        "host=db1.internal port=5432": f"host=127.0.0.1 port={shop.port}",
        "/srv/shop/backups": f"{shop.home}/backups",
        "/srv/shop/archive": f"{shop.home}/archive",
        "/srv/shop/migrations": f"{shop.home}/migrations",
        "/mnt/restore/shop": f"{shop.home}/restored",
        "/mnt/safety/shop": f"{shop.home}/safety",
        "/mnt/tickets": f"{shop.home}/tickets",
        "--bin-dir=/usr/lib/postgresql/18/bin": f"--bin-dir={shop.binaries.bin_dir}"
        + (f" --run-as={shop.binaries.user}" if shop.binaries.user else ""),
        "'10 minutes ago'": f"'@{moment_in_the_backups(shop)}'",
    }
    text = TUTORIAL.read_text()
    assert [old for old in own if old not in text] == []
    rules, checkout = shop.access_rules(), checkout_with_make(shop)
    exports, outputs = "", {}
    env = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("PYTEST_") and k not in {"CI", "SHOP_DBA_PASSWORD"}
    }
    for command, said in commands():
        mine = command
        for old, new in own.items():
            mine = mine.replace(old, new)
        if mine.startswith("export "):
            exports += f"{mine}\n"
            continue
        done = subprocess.run(
            ["bash", "-c", exports + mine], cwd=checkout, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip
        assert done.returncode == said, f"{command}\n{done.stdout[-6000:]}"
        if "--inspect" in command:
            assert_no_cutover_with_gaps(shop, checkout)
        outputs[command.partition(" #")[0].strip()] = done.stdout
    told = "".join(outputs.values())

    assert re.search(r"2 drill\(s\), 2 green|1 drill\(s\), 1 green", told)
    assert "NOT CONFIGURED YET" in told
    assert re.search(r"production\.toml:\d+: app\.maintenance\.on is not set yet", told)
    inspected = next(output for command, output in outputs.items() if "--inspect" in command)
    assert "test_it_stands_exactly_at_the_target PASSED" in inspected
    assert "Maintenance mode: not turned by this run" in outputs["pytest --rollback"]
    assert list((shop.home / "restored").rglob("*")) == []
    assert PASSWORD not in told
    assert shop.access_rules() == rules
    assert shop.get("/up") == 200
    assert UNSET in (checkout / "production.toml").read_text()


def assert_no_cutover_with_gaps(shop: Shop, checkout: Path) -> None:
    """What an inspection could do without, its cutover cannot: refused by name and line, the copy stays."""
    assert list((shop.home / "restored").rglob("postmaster.pid")) != []
    refused = subprocess.run(
        [sys.executable, "-m", "pytest", "--resume", "--cutover"], cwd=checkout, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, timeout=COMMAND_S,
        env={**os.environ, "SHOP_DBA_PASSWORD": PASSWORD}, check=False,
    )  # fmt: skip
    assert refused.returncode == 4, refused.stdout
    assert re.search(r"RB105.*\n.*production\.toml:\d+: app\.served_url is not set yet", refused.stdout)


def test_the_tutorial_shows_its_commands_where_they_are_run():
    """No command hides in a block that the test above does not run."""
    others = re.findall(r"^```(?!sh$|text$|$)(\w*)$", TUTORIAL.read_text(), re.MULTILINE)

    assert others == []
    assert len(commands()) >= 14
