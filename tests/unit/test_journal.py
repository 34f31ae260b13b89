"""The journal: hash chain, write-ahead, torn writes, one writer, inbox."""

import json

import pytest

from fixtures.errors import JournalError, LeaseError
from fixtures.journal import FILE, Journal, Undo, When, collect, drop, read_journal
from fixtures.state import fold


@pytest.fixture
def journal(tmp_path):
    """An open journal in its own folder."""
    made = Journal(tmp_path / "run")
    made.open()
    yield made
    made.close()


def test_what_is_written_is_read_back_in_order(journal):
    """Events come back with their sequence, kind and data."""
    journal.append("stamp", name="declared", at="2026-01-01T00:00:00+00:00")
    journal.append("closed")

    assert [(event.seq, event.kind) for event in read_journal(journal.folder)] == [
        (1, "stamp"),
        (2, "closed"),
    ]


def test_an_edited_line_breaks_the_chain(journal):
    """Changing a value in the middle is found when reading."""
    for number in range(3):
        journal.append("note", by="scribe", text=f"n{number}")
    path = journal.folder / FILE
    path.write_bytes(path.read_bytes().replace(b"n1", b"n9"))

    with pytest.raises(JournalError) as caught:
        read_journal(journal.folder)
    assert caught.value.code == "RB201"


def test_a_line_torn_by_a_crash_does_not_count(journal):
    """A last line without its newline was never durable: it is dropped and written over."""
    journal.append("note", by="scribe", text="kept")
    journal.close()
    with (journal.folder / FILE).open("ab") as file:
        file.write(b'{"seq": 2, "half')
    again = Journal(journal.folder)
    again.open()
    again.append("note", by="scribe", text="after")
    again.close()

    assert [event.data["text"] for event in read_journal(journal.folder)] == ["kept", "after"]


def test_two_writers_are_refused(journal):
    """A second process cannot write the same run."""
    with pytest.raises(JournalError) as caught:
        Journal(journal.folder).open()
    assert caught.value.code == "RB202"


def test_a_missing_run_is_named(tmp_path):
    """Reading a run that is not there says so."""
    with pytest.raises(JournalError) as caught:
        read_journal(tmp_path / "nothing")
    assert caught.value.code == "RB203"


def test_an_intent_is_on_disk_before_the_change_and_stands_when_it_fails(journal):
    """The undo entry of an interrupted change is found by a new process."""
    undo = Undo(name="maintenance_off", args={"x": 1}, when=When.RELEASE)

    def change():
        with journal.intent("maintenance on", undo=undo):
            assert read_journal(journal.folder)[-1].kind == "intent"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        change()
    state = fold(read_journal(journal.folder))
    assert [undo] == list(state.open_undo.values())
    assert read_journal(journal.folder)[-1].kind == "interrupted"


def test_an_undone_or_discharged_entry_stands_no_more(journal):
    """Undone and discharged entries are struck."""
    for name in ("a", "b", "c"):
        with journal.intent(name, undo=Undo(name=name, args={}, when=When.ROLLBACK)):
            pass
    journal.append("undone", intent=1)
    journal.append("discharged", intent=5)

    assert [undo.name for undo in fold(journal.events).open_undo.values()] == ["b"]


def test_a_lost_lease_stops_every_change(tmp_path):
    """The lease is read again before each intent."""

    def lost():
        raise LeaseError("RB205", "gone")

    journal = Journal(tmp_path / "run", before_intent=lost)
    journal.open()
    with pytest.raises(LeaseError), journal.intent("switch"):
        pytest.fail("the change must not happen")
    journal.close()
    assert read_journal(journal.folder) == []


def test_secrets_and_personal_data_never_reach_the_file(journal):
    """Everything is redacted before it is written."""
    journal.append(
        "note", by="s", text="call anna@example.org, password=hunter22, postgresql://u:s3cretpw@h/db"
    )
    text = (journal.folder / FILE).read_text()

    assert not [word for word in ("anna@", "hunter22", "s3cretpw") if word in text]


def test_numbers_that_only_look_like_cards_survive(journal):
    """A system identifier must come back as it was: a resume compares it."""
    identifiers = [str(7500000000000000000 + number) for number in range(200)]
    journal.append("x", ids=identifiers)

    assert identifiers == json.loads((journal.folder / FILE).read_text())["data"]["ids"]


def test_checksums_survive_whatever_their_digits(journal):
    """A resume compares sums that went through the journal: none may be taken for a card number."""
    sums = ["h4111111111111111", *(f"h{4_000_000_000_000_000_000 + number}" for number in range(500))]
    journal.append("x", sums=sums)

    assert sums == json.loads((journal.folder / FILE).read_text())["data"]["sums"]


def test_the_inbox_is_taken_into_the_chain(journal):
    """Another process's approval becomes an event, once."""
    drop(journal.folder, "approval", gate="cutover", approver="Rita", hash="abc")

    assert collect(journal) == 1
    assert collect(journal) == 0
    assert fold(journal.events).approvals[0]["approver"] == "Rita"
