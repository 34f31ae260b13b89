"""
A disk that fills in the safety copy, in the restore's copy, in its replay, and while a pack is written.

No privilege is needed: the writing process gets a limit on the size of its files, so that the
system refuses the write in the middle, as it does on a full disk.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.postgres.binaries import Binaries
from tests.limits import small_files
from tests.runbook.incident_claims import arguments, assert_locked
from tests.runbook.incident_sessions import Session
from tests.runbook.incident_world import Shop, open_shop

#: where the disk fills -> the program that writes there, and the arguments by which it is told apart
PLACES = {
    "dump": ("pg_dump", "*--format=directory*"),
    "copy": ("cp", "*--reflink=auto*"),
    "replay": ("cp", "*RECOVERYXLOG*"),
}
#: a program whose files cannot grow past 512 kB while a word stands; it is told, not killed
LIMITED = """#!/bin/sh
case "$*" in
{cases}
esac
exec '{real}' "$@"
"""
CASE = "  {words}) if test -e '{home}/full-{name}'; then trap '' XFSZ; ulimit -f 1000; fi ;;"
#: bytes: more than a segment of the log, less than the rows that are discarded
PACK_LIMIT = 20 * 1024 * 1024
#: 24 pages of a megabyte that do not compress away
SCANS = """
CREATE TABLE public.scans AS
SELECT page, (SELECT string_agg(md5(page || '-' || n), '') FROM generate_series(1, 32768) AS n) AS scan
  FROM generate_series(1, 24) AS page
"""


@pytest.fixture
def shop(public_dir: Path, binaries: Binaries, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A damaged shop that lost its payments and took in large scans since; its programs can be limited."""
    with open_shop(public_dir, binaries) as shop:
        shop.damage()
        with shop.admin("shop_history") as session:
            session.execute(SCANS)
        programs, tools = shop.home / "programs", shop.home / "tools"
        for folder in (programs, tools):
            folder.mkdir()
        for program in binaries.bin_dir.iterdir():
            if program.name != "pg_dump":
                (programs / program.name).symlink_to(program)
        limited(programs / "pg_dump", shop.home, real=binaries.bin_dir / "pg_dump")
        limited(tools / "cp", shop.home, real=Path("/bin/cp"))
        shop.edit(f'bin_dir = "{binaries.bin_dir}"', f'bin_dir = "{programs}"')
        monkeypatch.setenv("PATH", str(tools), prepend=":")
        yield shop


def limited(path: Path, home: Path, *, real: Path) -> None:
    """Write a program that can be limited."""
    cases = [
        CASE.format(words=words, home=home, name=name)
        for name, (program, words) in PLACES.items()
        if program == path.name
    ]
    path.write_text(LIMITED.format(cases="\n".join(cases), real=real))
    path.chmod(0o755)


@contextmanager
def full(shop: Shop, *places: str) -> Iterator[None]:
    """Let the disk be full at these places for a while."""
    flags = [shop.home / f"full-{place}" for place in places]
    for flag in flags:
        flag.touch()
    try:
        yield
    finally:
        for flag in flags:
            flag.unlink()


def content(shop: Shop) -> tuple[object, ...]:
    """Return what production holds."""
    with shop.admin() as session:
        orders = "SELECT count(*), sum(hashtextextended(o::text, 0)) FROM shop.orders AS o"
        found = session.execute(orders).fetchone()
    with shop.admin("shop_history") as session:
        return (found, session.execute("SELECT count(*), sum(length(scan)) FROM public.scans").fetchone())


def assert_failed(shop: Shop, session: Session, *wanted: str) -> None:
    """Failed with code, fact, place and next command, no stack; production as it was, behind its lock."""
    assert session.code == 1, session.output[-3000:]
    wanted = (*wanted, "File too large", f"pytest --resume={session.run_id}")
    assert [text for text in wanted if text not in session.output] == [], session.output[-3000:]
    assert "Traceback" not in session.output
    assert "rollback complete: the application points at production" in session.output
    assert_locked(shop)


def test_a_full_disk_is_named_and_freed_and_costs_nothing(shop):
    """Four times in one run: each failure is rolled back, production untouched and fenced, and a resume goes on."""
    with full(shop, "dump", "copy"):
        dump = shop.at_terminal(*arguments(shop), "--until=restore")
    before, resume = content(shop), (f"--resume={dump.run_id}", "--until=restore")
    assert_failed(
        shop, dump, "RB404 the safety copy could not be made or proven",
        f"HINT: free space in {shop.home}/safety and {shop.home}/restored, then --resume",
    )  # fmt: skip

    with full(shop, "copy"):
        assert_failed(
            shop, shop.at_terminal(*resume), "RB308 base backup monday could not be copied",
            f"HINT: free space in {shop.home}/restored, then --resume",
        )  # fmt: skip
    assert not list((shop.home / "restored").glob("*/data"))

    with full(shop, "replay"):
        assert_failed(
            shop, shop.at_terminal(*resume), "RB308 the restored server did not reach its target",
            f"HINT: free space in {shop.home}/restored, then --resume",
        )  # fmt: skip

    with small_files(PACK_LIMIT):
        assert_failed(
            shop, shop.at_terminal(*resume), "RB409 the reconciliation pack could not be written",
            "packs/after-target.partial", "HINT: the safety copy still holds the rows; mend the cause and resume",
        )  # fmt: skip

    done = shop.at_terminal(*resume)
    assert done.code == 11, done.output[-3000:]
    assert_locked(shop)
    assert content(shop) == before
    packs = shop.checkout / "reports" / "runs" / done.run_id / "packs"
    assert [path.name for path in packs.iterdir()] == ["after-target"]
    assert (packs / "after-target" / "shop_history" / "public.scans.jsonl").stat().st_size > PACK_LIMIT
