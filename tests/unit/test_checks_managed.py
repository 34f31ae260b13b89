"""What a managed service keeps to itself does not stop a run, and nothing else is let through."""

import pytest

from fixtures.checks.managed import REASON, left_to_service
from fixtures.evidence import Check, Verdict

DENIED = "RB502 PostgreSQL refused a statement (SQLSTATE 42501: permission denied for function pg_ls_dir)"


def check(name: str, verdict: Verdict, reason: str) -> Check:
    return Check(id=name, step="s07.x", verdict=verdict, blocking=True, source="", object="", reason=reason)


@pytest.mark.parametrize("name", ["storage.files:shop", "storage.visibility:shop", "physical.amcheck:shop"])
def test_denied_questions_about_storage_do_not_stop(name: str) -> None:
    """They stay could-not-verify, with the reason, so that the first screen shows them."""
    (answer,) = left_to_service([check(name, Verdict.COULD_NOT_VERIFY, DENIED)])

    assert (answer.verdict, answer.stops) == (Verdict.COULD_NOT_VERIFY, False)
    assert answer.reason == f"{REASON}: {DENIED}"


@pytest.mark.parametrize(
    ("name", "verdict", "reason"),
    [
        pytest.param("storage.files:shop", Verdict.FAIL, "files are missing", id="damage"),
        pytest.param("storage.files:shop", Verdict.COULD_NOT_VERIFY, "RB901 not so after 5 s", id="time-out"),
        pytest.param("content.count:shop", Verdict.COULD_NOT_VERIFY, DENIED, id="rows"),
        pytest.param("physical.index_rows:shop.t", Verdict.COULD_NOT_VERIFY, DENIED, id="index"),
        pytest.param("physical.table:shop.t", Verdict.COULD_NOT_VERIFY, DENIED, id="table"),
    ],
)
def test_everything_else_still_stops(name: str, verdict: Verdict, reason: str) -> None:
    """Damage, another reason, and what rows can tell block as on any copy."""
    given = check(name, verdict, reason)

    assert left_to_service([given]) == (given,)
    assert given.stops
