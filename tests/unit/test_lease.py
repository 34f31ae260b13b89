"""The lease: one run per production, kept across suspension."""

import pytest

from fixtures.errors import LeaseError
from fixtures.lease import leave_behind, left_behind, take


def test_a_second_run_is_told_who_holds_it(tmp_path):
    """The refusal names run, holder and the ways out."""
    take(tmp_path, "shop", run_id="R1", holder="olga")

    with pytest.raises(LeaseError) as caught:
        take(tmp_path, "shop", run_id="R2", holder="otto")
    assert "R1" in caught.value.fact
    assert "olga" in caught.value.fact
    assert any("--resume=R1" in hint for hint in caught.value.hints)


def test_the_same_run_finds_its_lease_again(tmp_path):
    """A new process of the same run goes on with the same token."""
    first = take(tmp_path, "shop", run_id="R1", holder="olga")

    assert first.token == take(tmp_path, "shop", run_id="R1", holder="olga").token


def test_another_production_is_another_lease(tmp_path):
    """Leases are per production."""
    take(tmp_path, "shop", run_id="R1", holder="olga")

    assert take(tmp_path, "billing", run_id="R2", holder="otto").run_id == "R2"


def test_a_lost_lease_is_noticed(tmp_path):
    """Somebody else's token, or none, fails the check."""
    lease = take(tmp_path, "shop", run_id="R1", holder="olga")
    lease.check()
    lease.path.unlink()

    with pytest.raises(LeaseError):
        lease.check()


def test_a_released_lease_is_free(tmp_path):
    """After the release another run takes it, and the old one does not remove the new."""
    old = take(tmp_path, "shop", run_id="R1", holder="olga")
    old.release()
    new = take(tmp_path, "shop", run_id="R2", holder="otto")
    old.release()

    new.check()
    assert new.path.exists()


def test_what_stands_is_left_to_the_next_run(tmp_path):
    """Entries of an ended run are found until they are taken."""
    entries = [{"name": "maintenance_off", "args": {}, "when": "release"}]
    leave_behind(tmp_path, "shop", run_id="R1", entries=entries)

    assert left_behind(tmp_path, "shop") == ("R1", entries)
    leave_behind(tmp_path, "shop", run_id="R2", entries=[])
    assert left_behind(tmp_path, "shop") == ("", [])
