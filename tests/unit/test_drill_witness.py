"""The witness, the sorting of acknowledgements, and packs: what the outside audit judges by."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fixtures.drill.audit_served import sort_acks
from fixtures.drill.lookup import found_in_packs
from fixtures.drill.witness import Ack, Recorder, last_closing, read_acks, read_doors
from fixtures.errors import ToolError

START = datetime(2025, 10, 5, 12, 34, 0, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def ack(sent: float, acked: float, *, kind: str = "claim", name: str = "") -> Ack:
    return Ack(
        kind=kind, request_id=name or f"{sent}-{acked}", user_id=2, sent_at=at(sent), acked_at=at(acked)
    )


def test_acks_are_read_back_to_the_microsecond(tmp_path: Path) -> None:
    """What was recorded is what is read, and half a line is not read yet."""
    recorder = Recorder(tmp_path)
    recorder.acked(ack(1, 2, kind="redeem"))
    with (tmp_path / "acks.jsonl").open("a") as file:
        file.write('{"kind": "cl')

    assert (ack(1, 2, kind="redeem"),) == read_acks(tmp_path)
    assert read_acks(tmp_path)[0].table == "public.rewards"


def test_door_turns_once_per_change(tmp_path: Path) -> None:
    """Two clients' refusals close the door once, and an answer under way does not open it."""
    recorder = Recorder(tmp_path)
    recorder._door = type(recorder._door)(state="open", at=at(0))
    recorder.refused(sent_at=at(1), at=at(2))
    recorder.refused(sent_at=at(1.5), at=at(2.5))
    recorder.acked(ack(1.9, 3))
    recorder.acked(ack(5, 6))
    recorder.refused(sent_at=at(5.5), at=at(6.5))
    recorder.refused(sent_at=at(7), at=at(8))

    doors = read_doors(tmp_path)
    closing = last_closing(doors)

    assert [door.state for door in doors] == ["closed", "open", "closed"]
    assert closing is not None
    assert at(8) == closing.at


def test_a_missing_witness_is_an_error(tmp_path: Path) -> None:
    """Without the witness nothing can be judged, which is never a pass."""
    with pytest.raises(ToolError, match="RB703"):
        read_acks(tmp_path)


def test_acks_are_sorted_by_what_was_promised() -> None:
    """Before the target, under way at it, after it, and after the cutover are told apart."""
    before, straddling, fresh = ack(1, 10), ack(9, 11), ack(10.5, 10.9)
    between, draining, after = ack(11, 12), ack(19, 30), ack(21, 22)

    found = sort_acks(
        [before, straddling, fresh, between, draining, after],
        target_at=at(10),
        certainly_after=at(10.8),
        closed_at=at(20),
    )

    assert (before,) == found.before
    assert (straddling, fresh) == found.straddling
    assert (between, draining) == found.between
    assert (after,) == found.after


def test_packs_are_searched_by_request_id(tmp_path: Path) -> None:
    """Every table's file of every pack is read, in a folder per database too; a pack without files holds nothing."""
    one, two = tmp_path / "after-target", tmp_path / "after-cutover"
    one.mkdir()
    (two / "stampcard").mkdir(parents=True)
    (one / "public.stamps.jsonl").write_text(json.dumps({"id": 1, "request_id": "a"}) + "\n")
    (two / "stampcard" / "public.users.jsonl").write_text(json.dumps({"id": 1, "request_id": "b"}) + "\n\n")

    assert {"a", "b"} == found_in_packs([one, two, tmp_path / "nothing"])


def test_a_damaged_pack_is_an_error(tmp_path: Path) -> None:
    """A pack that cannot be read is reported, without its content."""
    (tmp_path / "public.stamps.jsonl").write_text("not json\n")

    with pytest.raises(ToolError, match="RB703") as caught:
        found_in_packs([tmp_path])
    assert "not json" not in str(caught.value)
