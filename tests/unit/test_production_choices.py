"""Choices about production that need no server."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fixtures.actions.write_lock import PROVEN_BY
from fixtures.errors import RefusedError, StepError
from fixtures.postgres.lsn import Lsn
from fixtures.postgres.xids import precedes
from fixtures.production.manifest import check_files, write_files
from fixtures.production.position import Mark
from fixtures.production.proof import LockProof, Traffic, _finished
from fixtures.production.safety import NO_ROLLBACK_TARGET, choose_mode, refuse_filesystem
from fixtures.production.state import fence

GB = 1_000_000_000


@pytest.mark.parametrize(
    ("state", "size", "rto_s", "offers", "files", "mode"),
    [
        ("reachable", GB, 3600, (), True, "dump"),
        ("read-only", GB, 3600, (), False, "dump"),
        ("reachable", 100 * GB, 3600, (), True, "physical"),
        ("reachable", 1000 * GB, 3600, (), False, "keep"),
        ("reachable", 1000 * GB, 3600, ("branch",), False, "branch"),
        ("damaged", GB, 3600, (), True, "physical"),
        ("damaged", 1000 * GB, 3600, (), True, "keep"),
        ("down", GB, 3600, (), True, "physical"),
        ("unknown", GB, 3600, (), False, "none"),
    ],
)
def test_auto_chooses_by_state_size_and_rto(
    tmp_path: Path, state: str, size: int, rto_s: int, offers: tuple[str, ...], files: bool, mode: str
) -> None:
    """Each row is one situation; where nothing can be kept the reason says so."""
    choice = choose_mode(
        "auto", state=state, size_bytes=size, rto_left_s=rto_s, provider_modes=offers,
        data_directory=tmp_path if files else None,
    )  # fmt: skip

    assert choice.mode == mode
    assert (NO_ROLLBACK_TARGET in choice.reason) is (mode == "none")


@pytest.mark.parametrize(("mode", "state"), [("dump", "down"), ("keep", "unknown"), ("branch", "reachable")])
def test_an_impossible_mode_is_refused(mode: str, state: str) -> None:
    """A configured mode is never quietly replaced by another."""
    with pytest.raises(RefusedError, match="RB404"):
        choose_mode(mode, state=state, size_bytes=GB, rto_left_s=3600)


def test_a_possible_mode_is_taken_as_configured(tmp_path: Path) -> None:
    """A backend's snapshot serves the mode branch."""
    kept = choose_mode("keep", state="down", size_bytes=GB, rto_left_s=60, data_directory=tmp_path)
    branch = choose_mode("branch", state="down", size_bytes=GB, rto_left_s=60, provider_modes=["snapshot"])

    assert (kept.mode, branch.mode) == ("keep", "snapshot")


def test_productions_own_file_system_is_refused_without_a_reason(tmp_path: Path) -> None:
    """A reason is kept as a note; an unreadable production is said to be unknown."""
    data = tmp_path / "data"
    (data / "pg_wal").mkdir(parents=True)

    with pytest.raises(RefusedError, match="RB404"):
        refuse_filesystem(tmp_path / "not/yet", data_directory=data, archive=None)
    assert "a drill" in refuse_filesystem(tmp_path, data_directory=data, archive=None, reason="a drill")[0]
    assert "could not be told" in refuse_filesystem(tmp_path, data_directory=None, archive=None)[0]
    assert refuse_filesystem(Path("/proc"), data_directory=data, archive=tmp_path) == ()


def test_the_fence_is_proven_by_status_0_alone() -> None:
    """Any other status, and a command that is not there, prove nothing."""
    assert fence(["echo", "power is off"]).said == "power is off"
    for argv in (["false"], ["no-such-fence-command"]):
        with pytest.raises(RefusedError, match="RB405"):
            fence(argv)


@pytest.mark.parametrize(
    ("before", "after", "finished"),
    [
        ("10:10:", "10:10:", 0),
        ("10:10:", "12:12:", 2),
        ("8:10:8", "10:10:", 1),
        ("8:10:8", "8:11:8", 1),
        ("10:10:", "10:13:10,11", 1),
    ],
)
def test_finished_transactions_are_counted_between_snapshots(before: str, after: str, finished: int) -> None:
    """An open transaction below the upper bound that ends moves no bound, and is still counted."""
    moments = [
        Mark(lsn=Lsn(0), snapshot=snapshot, timeline=1, at=datetime.now(UTC)) for snapshot in (before, after)
    ]

    assert _finished(*moments) == finished


def test_transaction_ids_wrap_around() -> None:
    """The highest id is older than the first normal one after it."""
    assert precedes(0xFFFFFFFF, 3)
    assert precedes(5, 6)
    assert not precedes(6, 6)


def test_a_manifest_finds_what_changed(tmp_path: Path) -> None:
    """Extra, missing and changed files are found; a changed byte of equal size by reading whole."""
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")

    assert write_files(tmp_path) == 6
    check_files(tmp_path, whole=True)
    (tmp_path / "a").write_text("eno")
    check_files(tmp_path, whole=False)
    with pytest.raises(StepError, match="RB404"):
        check_files(tmp_path, whole=True)
    (tmp_path / "a").write_text("one")
    (tmp_path / "c").write_text("new")
    with pytest.raises(StepError, match="RB404"):
        check_files(tmp_path, whole=False)


@pytest.mark.parametrize("method", ["xid", "wal", "counts", "recovery"])
def test_every_way_to_prove_the_lock_has_its_words(method: str) -> None:
    """A production in recovery is proven by its replay position: that was left out."""
    moment = Mark(lsn=Lsn(1), snapshot="1:1:", timeline=1, at=datetime.now(UTC))
    proof = LockProof(
        since=moment, until=moment, window_s=1, traffic=Traffic(finished=0, method=method), bypasses=(),
        at=moment.at,
    )  # fmt: skip

    assert PROVEN_BY[method]
    assert "no client commit from" in proof.how
