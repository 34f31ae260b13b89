"""Programs that are missing, or cannot open production's backup, are refused at step 0, before anything is copied."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.command import run
from fixtures.journal import read_journal
from fixtures.postgres.binaries import Binaries
from fixtures.state import fold
from tests.runbook.incident_world import Shop, open_shop

#: file of the backup, the line in it, what the wheel's programs were built without
LACKING = {
    "TLS": ("postgresql.conf", "ssl = on", "openssl"),
    "TLS, said in other words": ("postgresql.conf", "SSL 'yes'  # since 2019", "openssl"),
    "lz4 in the log": ("postgresql.auto.conf", "wal_compression = 'lz4'", "lz4"),
    "zstd in the log": ("postgresql.conf", "wal_compression=zstd", "zstd"),
}


@pytest.fixture(scope="module")
def quiet_shop(public_dir: Path, binaries: Binaries) -> Iterator[Shop]:
    """A shop that nobody writes to: whatever changes, the session changed it."""
    with open_shop(public_dir, binaries) as shop:
        shop.be_quiet()
        shop.archive_everything()
        shop.archive_everything()
        yield shop


@pytest.mark.parametrize("case", sorted(LACKING))
def test_programs_that_lack_what_the_backup_uses_are_refused_before_the_copy(case, quiet_shop, binaries):
    """Exit 4 with RB307, the setting and the missing part; production and every folder are as they were."""
    file, line, lacking = LACKING[case]
    built = run([binaries.tool("pg_config"), "--configure"], timeout_s=20).stdout
    assert lacking not in built, f"the programs have {lacking}: this case proves nothing any more"
    settings = quiet_shop.home / "backups" / "monday" / file
    text = settings.read_text()
    settings.write_text(f"{text}\n{line}\n")
    try:
        before = quiet_shop.traces()
        session = quiet_shop.incident("--target-time=latest")
        after = quiet_shop.traces()
    finally:
        settings.write_text(text)

    assert session.code == 4, session.output[-3000:]
    wanted = (
        "RB307 production uses ",
        "the programs are built without it",
        f"at: {lacking}",
        "HINT: set [postgres] bin_dir to production's programs",
    )
    assert [words for words in wanted if words not in session.output] == [], session.output[-3000:]
    assert {name for name in before if after[name] != before[name]} <= {"reports"}
    assert not list(quiet_shop.home.glob("leases/*"))
    journal = read_journal(quiet_shop.checkout / "reports" / "runs" / session.run_id)
    assert fold(journal).ended["exit_code"] == 4
    assert not [event for event in journal if event.kind in {"intent", "job"}]


@pytest.mark.parametrize(("tool", "package"), [("sync", "coreutils"), ("sh", "dash")])
def test_a_missing_tool_is_told_by_the_plan_and_not_behind_the_lock(tool, package, quiet_shop, tmp_path):
    """The copy's archive_command would hang without sync, and no job would start without sh."""
    for folder in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(folder).glob("*"):
            if program.name != tool:
                (tmp_path / program.name).unlink(missing_ok=True)
                (tmp_path / program.name).symlink_to(program)

    session = quiet_shop.run(
        f"--config={quiet_shop.config}", "--target-time=latest", "--plan", env={"PATH": str(tmp_path)}
    )

    assert session.code == 4, session.output[-3000:]
    assert f"MISSING programs: RB109 {tool} was not found" in session.output
    assert f"HINT: apt-get install {package}" in session.output
