"""Tickets and escalations."""

import logging
from pathlib import Path

import pytest

from fixtures.errors import ToolError
from fixtures.evidence import Secret
from fixtures.settings import Notify
from fixtures.tickets import file, notify


def test_a_ticket_holds_title_facts_sections_and_its_closing(tmp_path: Path) -> None:
    """The document reads top to bottom as the incident went."""
    ref = file.open_ticket(tmp_path / "t", "run-1", "Restore shop", {"T0": "12:34Z", "drill": False})
    file.append(ref, "Target", ["2025-10-05T12:34:00Z"])
    file.close(ref, {"RTO": 12, "protected": None})

    assert ref.read_text() == (
        "# Restore shop\n\n- **T0**: 12:34Z\n- **drill**: no\n\n"
        "## Target\n\n2025-10-05T12:34:00Z\n\n"
        "## Closed\n\n- **RTO**: 12\n- **protected**: unknown\n"
    )
    assert [path.name for path in ref.parent.iterdir()] == ["run-1.md"]


def test_a_repeated_section_is_replaced_in_place(tmp_path: Path) -> None:
    """A resumed run does not tell things twice, and leaves other sections alone."""
    ref = file.open_ticket(tmp_path, "run-1", "Restore", {})
    file.append(ref, "Lock", ["first"])
    file.append(ref, "Notes", ["by hand"])
    file.append(ref, "Lock", ["second"])

    text = ref.read_text()
    assert text.count("## Lock") == 1
    assert text.index("second") < text.index("by hand")
    assert "first" not in text


def test_opening_again_keeps_the_sections(tmp_path: Path) -> None:
    """A resumed step 1 renews the facts only."""
    ref = file.open_ticket(tmp_path, "run-1", "Restore", {"a": 1})
    file.append(ref, "Lock", ["held"])
    file.open_ticket(tmp_path, "run-1", "Restore", {"a": 2})

    assert "**a**: 2" in ref.read_text()
    assert "held" in ref.read_text()


def test_nothing_secret_or_personal_reaches_a_ticket(tmp_path: Path) -> None:
    """Every field passes the redactor, repeated secret headings included."""
    Secret("hunter2-hunter2")
    ref = file.open_ticket(tmp_path, "run-1", "for bob@example.com", {"dsn": "postgresql://a:pw-pw-pw@h/d"})
    file.append(ref, "hunter2-hunter2", ["call +49 170 1234567"])
    file.append(ref, "hunter2-hunter2", ["# again"])

    text = ref.read_text()
    assert text.count("## ") == 1
    assert not any(word in text for word in ("bob@", "pw-pw", "hunter2", "1234567"))
    assert "\\# again" in text


def test_a_ticket_that_was_moved_is_missed(tmp_path: Path) -> None:
    """Appending to nothing is RB610, not a new ticket without its head."""
    with pytest.raises(ToolError) as caught:
        file.append(tmp_path / "none.md", "Lock", [])

    assert caught.value.code == "RB610"


@pytest.mark.parametrize("run_id", ["../up", "", "a/b"])
def test_a_run_id_that_is_no_file_name_is_refused(run_id: str, tmp_path: Path) -> None:
    """A ticket stays in its folder."""
    with pytest.raises(ToolError):
        file.open_ticket(tmp_path, run_id, "t", {})


def test_all_channels_get_the_redacted_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Log, file and command each take the same text."""
    log, said = tmp_path / "log", tmp_path / "said"
    channels = [
        Notify(kind="log"),
        Notify(kind="file", path=log),
        Notify(kind="command", argv=("sh", "-c", f"cat > {said}")),
    ]

    with caplog.at_level(logging.WARNING, logger=notify.LOGGER):
        delivered = notify.escalate(channels, "maintenance is on\nask bob@example.com")

    assert delivered == ("log", "file", "command")
    assert "maintenance is on" in caplog.text
    assert next(line.split(" ", 1)[1] for line in log.read_text().splitlines()) == "maintenance is on"
    assert said.read_text().startswith("maintenance is on\n")
    assert "bob@" not in caplog.text + log.read_text() + said.read_text()


def test_a_failing_channel_is_reported_after_all_were_tried(tmp_path: Path) -> None:
    """The first channel's failure does not silence the last."""
    last = tmp_path / "last"
    channels = [
        Notify(kind="command", argv=("false",)),
        Notify(kind="file", path=tmp_path / "no" / "folder"),
        Notify(kind="file"),
        Notify(kind="file", path=last),
    ]

    with pytest.raises(ToolError) as caught:
        notify.escalate(channels, "help")

    assert caught.value.code == "RB610"
    assert "3 of 4" in caught.value.fact
    assert "help" in last.read_text()
