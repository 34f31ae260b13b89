"""What a session refuses before it begins a run."""

import os
from pathlib import Path

import pytest

from fixtures.errors import RefusedError
from fixtures.session import must_be_writable


def test_a_checkout_that_cannot_be_written_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Not by the stack of the first plug-in that tries, with the code of a bug."""
    must_be_writable(tmp_path / "reports" / "runs" / "20260301T120000Z-abcd")

    monkeypatch.setattr(os, "access", lambda place, _mode: Path(place) != tmp_path)
    with pytest.raises(RefusedError, match="RB308 the run's folder cannot be written") as told:
        must_be_writable(tmp_path / "reports" / "runs" / "20260301T120000Z-abcd")

    assert told.value.where == str(tmp_path)
