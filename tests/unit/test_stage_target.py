"""A stage drill's own parts: the moment it chooses, the codes it ends with, the scratch place, the CI runner."""

import mmap
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.action import Mode
from fixtures.config import CI_SYSTEMS, ci_runner
from fixtures.errors import ConfigError, ExitCode, ProviderError, ToolError
from fixtures.journal import Undo, When
from fixtures.manifest import CLOSE_OUT, MANIFEST, STAGED
from fixtures.outcome import exit_code
from fixtures.postgres.lsn import Lsn
from fixtures.postgres.session import Endpoint
from fixtures.providers.base import BaseBackup, Capabilities, Finding, Gap, RestoreWindow, TargetKind
from fixtures.scratch import make_scratch, prove_gone, remains_of, wipe_scratch
from fixtures.stage import random_target, reachable
from fixtures.steps import Ledger

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = RestoreWindow(earliest=MONDAY, latest=MONDAY + 10 * HOUR, latest_lsn=None, timeline=1)


def gap(after: datetime | None, before: datetime | None) -> Gap:
    """Return a hole between two commits."""
    return Gap(first_missing="000000010000000000000007", segments=1, after=after, before=before)


class Backups:
    """A provider that refuses moments by a rule."""

    name = "backups"

    def __init__(
        self, refuses: Any = lambda _at: False, code: str = "RB302", *, physical: bool = True
    ) -> None:
        self.refuses, self.code, self.physical = refuses, code, physical

    def capabilities(self) -> Capabilities:
        """Say what its copies are."""
        return Capabilities(targets=frozenset(TargetKind), pauses=self.physical, physical=self.physical)

    def check(self, target: Any) -> list[Finding]:
        """Refuse by the rule; sets of dumps by their name."""
        return [Finding(code=self.code, fact="no")] if self.refuses(target.at or target.value) else []


# -- the moment --------------------------------------------------------------------------------------


def test_a_seed_gives_one_moment_inside_the_window() -> None:
    """Same seed, same moment; another seed, another one; none at or beyond the ends."""
    chosen = [random_target(Backups(), WINDOW, seed=seed).at for seed in range(50)]

    assert chosen == [random_target(Backups(), WINDOW, seed=seed).at for seed in range(50)]
    assert len(set(chosen)) == 50
    assert all(at is not None and MONDAY <= at < MONDAY + 10 * HOUR for at in chosen)


def test_no_moment_lies_in_a_gap() -> None:
    """What the archive lost is never chosen, also where its borders are not known."""
    hole = gap(MONDAY + HOUR, MONDAY + 9 * HOUR)
    window = RestoreWindow(
        earliest=MONDAY, latest=MONDAY + 10 * HOUR, latest_lsn=None, timeline=1, gaps=(hole,)
    )
    open_ended = RestoreWindow(
        earliest=MONDAY,
        latest=MONDAY + 10 * HOUR,
        latest_lsn=None,
        timeline=1,
        gaps=(gap(MONDAY + HOUR, None),),
    )

    chosen = [random_target(Backups(), window, seed=seed).at for seed in range(50)]

    assert not [at for at in chosen if at is not None and MONDAY + HOUR <= at < MONDAY + 9 * HOUR]
    assert len({at is not None and at < MONDAY + HOUR for at in chosen}) == 2
    assert reachable(open_ended) == [(MONDAY, MONDAY + HOUR)]


def test_of_dumps_a_set_is_drawn_and_no_moment_between() -> None:
    """A dump is one moment; a set that cannot be restored is not drawn."""
    sets = tuple(
        BaseBackup(
            id=f"set-{number}", started_at=MONDAY, ended_at=MONDAY, start_lsn=Lsn(1), stop_lsn=Lsn(1), timeline=1,
            size_bytes=1, system_identifier="1", major=18,
        )
        for number in range(4)
    )  # fmt: skip
    window = replace(WINDOW, base_backups=sets)
    dumps = Backups(lambda name: name == "set-2", physical=False)

    chosen = [random_target(dumps, window, seed=seed) for seed in range(40)]

    assert {target.kind for target in chosen} == {TargetKind.SNAPSHOT}
    assert {target.value for target in chosen} == {"set-0", "set-1", "set-3"}
    assert chosen == [random_target(dumps, window, seed=seed) for seed in range(40)]
    with pytest.raises(ProviderError):
        random_target(Backups(lambda _: True, physical=False), window, seed=1)


def test_a_moment_the_backups_refuse_is_drawn_again() -> None:
    """After a gap a moment needs a base backup of its own: the provider's word decides."""
    late = Backups(lambda at: at < MONDAY + 8 * HOUR)

    assert all(random_target(late, WINDOW, seed=seed).at >= MONDAY + 8 * HOUR for seed in range(5))


@pytest.mark.parametrize(
    ("window", "backups", "code"),
    [
        (RestoreWindow(earliest=None, latest=None, latest_lsn=None, timeline=None), Backups(), "RB301"),
        (RestoreWindow(earliest=MONDAY, latest=MONDAY, latest_lsn=None, timeline=1), Backups(), "RB303"),
        (RestoreWindow(earliest=MONDAY, latest=None, latest_lsn=None, timeline=1), Backups(), "RB303"),
        (WINDOW, Backups(lambda _at: True), "RB303"),
        (WINDOW, Backups(lambda _at: True, "RB308"), "RB308"),
    ],
    ids=["no backup", "no time", "no end", "all refused", "no space"],
)
def test_a_window_without_a_moment_is_refused(window: RestoreWindow, backups: Backups, code: str) -> None:
    """Nothing is approximated: no moment, no drill, and what stands against all of them is told as it is."""
    with pytest.raises(ProviderError) as caught:
        random_target(backups, window, seed=1)

    assert caught.value.code == code


# -- exit codes --------------------------------------------------------------------------------------


def a_run(*, standing: bool = False, proven: bool = True, interrupted: str = "", **state: Any) -> Any:
    """Return what `exit_code` looks at of a stage drill."""
    entries = [(1, Undo(name="discard_copy", args={}, when=When.ROLLBACK))] if standing else []
    return SimpleNamespace(
        options=SimpleNamespace(mode=Mode.STAGE),
        interrupted_by=interrupted,
        standing=lambda _when: entries,
        state=SimpleNamespace(**{"rolled_back": None, "closed": False, "discarded": proven, **state}),
        journal=SimpleNamespace(events=[SimpleNamespace(kind="intent", data={"action": "open ticket"})]),
    )


GREEN = {**dict.fromkeys(MANIFEST, "skipped"), **dict.fromkeys(STAGED, "passed"), CLOSE_OUT: "passed"}


@pytest.mark.parametrize(
    ("run", "outcomes", "code"),
    [
        (a_run(), GREEN, ExitCode.SERVED),
        (a_run(), {**GREEN, CLOSE_OUT: "failed"}, ExitCode.REPORT_FAILED),
        (a_run(proven=False), GREEN, ExitCode.FAILED),
        (a_run(standing=True), GREEN, ExitCode.PERSON_MUST_ACT),
        (a_run(rolled_back=False), GREEN, ExitCode.PERSON_MUST_ACT),
        (a_run(rolled_back=True), {**GREEN, "s07.content": "failed"}, ExitCode.FAILED),
        (a_run(rolled_back=True, interrupted="SIGTERM"), {"s00.ready": "passed"}, ExitCode.INTERRUPTED),
    ],
    ids=["done", "close-out", "nothing wiped", "copy stands", "wipe failed", "check failed", "signal"],
)
def test_the_code_is_what_became_of_the_copy(run: Any, outcomes: dict[str, str], code: ExitCode) -> None:
    """Green checks are not enough: while real rows may be left, a person must act."""
    assert exit_code(run, Ledger(outcomes=dict(outcomes))) is code


# -- the scratch place -------------------------------------------------------------------------------


def test_a_scratch_place_is_closed_to_others_and_goes_as_a_whole(tmp_path: Any) -> None:
    """Mode 0700, also when the umask says otherwise; after the wipe every question has the right answer."""
    before = os.umask(0)
    try:
        make_scratch(tmp_path / "a" / "stage", owner=None)
    finally:
        os.umask(before)
    place = tmp_path / "a" / "stage"
    (place / "run" / "data").mkdir(parents=True)
    (place / "run" / "data" / "rows").write_text("real")

    assert place.stat().st_mode & 0o777 == 0o700
    make_scratch(place, owner=None)

    wipe_scratch(place)
    wipe_scratch(place)

    checks = prove_gone(place, server=False, jobs=(), packs=tmp_path / "packs")
    assert [check.id for check in checks if check.stops] == []


def test_an_open_file_keeps_a_wiped_place_from_being_gone(tmp_path: Any) -> None:
    """A removed file lives on for whoever holds it: the process is named, also when it only mapped it."""
    place = tmp_path / "stage"
    make_scratch(place, owner=None)
    (place / "rows").write_text("real")
    file = (place / "rows").open()
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    wipe_scratch(place)
    try:
        assert [holder.split()[0] for holder in remains_of(place).holders] == [str(os.getpid())]
        file.close()
        checks = prove_gone(place, server=False, jobs=(), packs=tmp_path / "packs")
        assert [check.id for check in checks if check.stops] == ["wipe.handles"]
    finally:
        mapped.close()
    assert remains_of(place).holders == ()


def test_what_is_no_scratch_place_is_neither_used_nor_removed(tmp_path: Any) -> None:
    """A folder somebody else made, and a link to one, stay as they are."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("keep")
    link = tmp_path / "link"
    link.symlink_to(theirs)

    for place in (theirs, link):
        with pytest.raises(ConfigError):
            make_scratch(place, owner=None)
        with pytest.raises(ToolError) as caught:
            wipe_scratch(place)
        assert caught.value.code == "RB316"
    assert (theirs / "file").read_text() == "keep"


# -- doors -------------------------------------------------------------------------------------------


def test_production_is_asked_through_sessions_that_only_read() -> None:
    """The startup option comes after the team's own, so that it wins."""
    plain = Endpoint.parse("host=db1 user=dba options='-c default_transaction_read_only=off'")

    assert dict(plain.read_only().options)["options"].endswith(" -c default_transaction_read_only=on")
    assert "default_transaction_read_only=on" in plain.read_only().conninfo()


@pytest.mark.parametrize("name", ["CI", *CI_SYSTEMS])
def test_every_ci_system_is_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner is recognised by any of its variables, and a desk by none."""
    for other in ("CI", *CI_SYSTEMS):
        monkeypatch.delenv(other, raising=False)
    assert ci_runner() == ""
    monkeypatch.setenv(name, "true")

    assert ci_runner() == name
