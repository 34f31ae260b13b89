"""What is printed when nobody reads it any more."""

import io
import os
import signal
from pathlib import Path

import pytest

from fixtures.terminal import outlet


@pytest.fixture
def hung_up():
    """The signals this process got instead of an error."""
    got = []
    before = signal.signal(signal.SIGHUP, lambda number, _frame: got.append(number))
    yield got
    signal.signal(signal.SIGHUP, before)


def test_a_reader_that_is_gone_is_a_lost_terminal_once(hung_up):
    """The first line nobody reads tells it; the further ones, on every copy of the descriptor, go nowhere."""
    reader, writer = os.pipe()
    copy = os.dup(writer)
    with io.TextIOWrapper(io.FileIO(writer, "w"), encoding="utf-8") as stream:
        out = outlet(stream)
        out.write("read\n")
        assert os.read(reader, 100) == b"read\n"
        os.close(reader)

        out.write("one\n")
        out.write("two\n")
        os.write(copy, b"three\n")

    os.close(copy)
    assert hung_up == [signal.SIGHUP]


def test_a_reader_that_is_gone_changes_nothing_for_who_ignores_hangups():
    """As under nohup: it goes on without its output."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    reader, writer = os.pipe()
    os.close(reader)
    with io.TextIOWrapper(io.FileIO(writer, "w"), encoding="utf-8") as stream:
        outlet(stream).write("one\n")
    signal.signal(signal.SIGHUP, before)


def test_a_full_disk_costs_the_lines_only(hung_up):
    """The output in a file on it is cut short, the run is not, and its terminal is not lost."""
    with Path("/dev/full").open("w", encoding="utf-8") as stream:
        outlet(stream).write("one\n")

    assert hung_up == []
