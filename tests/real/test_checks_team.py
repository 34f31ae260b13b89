"""The team's own checks: queries with a value or limits, and Python files."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from fixtures.checks import sanity
from fixtures.checks.team import functions
from fixtures.errors import ConfigError
from fixtures.evidence import Check, Verdict
from fixtures.postgres.server import Server
from fixtures.settings import Sanity, TeamCheck
from tests.real import checks_lab
from tests.real.checks_lab import NewSubject, found, home_of, script

template, lab, subject_of = checks_lab.template, checks_lab.lab, checks_lab.subject_of
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "own-checks.md"
SHOP = (
    "CREATE TABLE entries (side text, amount numeric)",
    "INSERT INTO entries VALUES ('debit', 7), ('credit', 3), ('credit', 4)",
    "CREATE TABLE prices (cents int)",
    "INSERT INTO prices VALUES (100), (250)",
    "CREATE TABLE stock (pieces int)",
    "INSERT INTO stock VALUES (5)",
)


def verdicts(checks: tuple[Check, ...]) -> dict[str, Verdict]:
    """Return each check's last name and its verdict."""
    return {check.id.rpartition(".")[2]: check.verdict for check in checks}


def test_the_documented_file_is_asked(subject_of: NewSubject, lab: Server, tmp_path: Path) -> None:
    """The page's example passes on a whole copy, and each of its checks fails on its own fault."""
    file = tmp_path / "shop.py"
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    file.write_text(blocks[0])
    subject = subject_of(checks=(TeamCheck(file=file),), production=lab.endpoint)
    script(home_of(subject), *SHOP)
    whole = sanity.check(subject)
    script(
        home_of(subject), "DELETE FROM entries WHERE amount = 3", "UPDATE stock SET pieces = -1",
    )  # fmt: skip
    damaged = sanity.check(subject)

    names = ("books_balance", "price_list_is_production_s", "stock_is_plausible")
    assert verdicts(whole) == dict.fromkeys(names, Verdict.PASS)
    assert verdicts(damaged) == {
        names[0]: Verdict.FAIL,
        names[1]: Verdict.PASS,
        names[2]: Verdict.FAIL,
    }


def test_a_check_that_did_not_run_is_no_pass(subject_of: NewSubject, tmp_path: Path) -> None:
    """Errors, other return values and a production that does not answer are could-not-verify, and quote no row."""
    file = tmp_path / "ours.py"
    file.write_text(
        "def check_raises(ask):\n    raise ValueError('u1@example.org')\n"
        "def check_says_true(ask):\n    return True\n"
        "def check_is_refused(ask):\n    return ask.equal(1, ask.value('SELECT 1 / 0'), '')\n"
        "def check_asks_production(ask):\n    return ask.equal(1, ask.production('SELECT 1'), '')\n"
        "def check_writes(ask):\n    return ask.equal(1, ask.value('DELETE FROM users RETURNING 1'), '')\n"
        "def check_shows_a_text(ask):\n    return ask.equal('x', ask.value('SELECT email FROM users LIMIT 1'), 'no')\n"
    )
    checks = sanity.check(subject_of(checks=(TeamCheck(file=file),)))

    found_verdicts = verdicts(checks)
    assert found_verdicts.pop("shows_a_text") is Verdict.FAIL
    assert set(found_verdicts.values()) == {Verdict.COULD_NOT_VERIFY}
    assert all(check.stops for check in checks)
    assert "example.org" not in repr(checks)


@pytest.mark.parametrize("text", ["x = 1\n", "import nothing_of_that_name\n", "def (\n"])
def test_a_file_without_checks_is_refused(subject_of: NewSubject, tmp_path: Path, text: str) -> None:
    """A file that cannot be loaded, or holds nothing, says so in step 0, and proves nothing in step 7."""
    file = tmp_path / "empty.py"
    file.write_text(text)

    with pytest.raises(ConfigError):
        functions(file)
    assert verdicts(sanity.check(subject_of(checks=(TeamCheck(file=file),)))) == {
        "empty": Verdict.COULD_NOT_VERIFY
    }


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [
        ({"at_least": 500}, Verdict.PASS),
        ({"at_most": 500}, Verdict.PASS),
        ({"at_least": 100, "at_most": 499.5}, Verdict.FAIL),
        ({"at_least": 501, "blocking": False}, Verdict.COULD_NOT_VERIFY),
    ],
)
def test_a_query_may_have_limits(
    subject_of: NewSubject, limits: dict[str, float | bool], verdict: Verdict
) -> None:
    """Limits belong to what is right; NULL and texts are outside of every limit."""
    users = Sanity(name="users", sql="SELECT count(*) FROM users", **limits)
    nothing = Sanity(name="nothing", sql="SELECT NULL::int", **limits)
    checks = sanity.check(subject_of(sanity=(users, nothing)))

    assert found(checks, f"sanity:{checks[0].object}.users").verdict is verdict
    assert found(checks, f"sanity:{checks[0].object}.nothing").verdict is not Verdict.PASS


@pytest.mark.parametrize("fields", [{}, {"expect": 1, "at_least": 1}])
def test_a_query_has_one_expectation(fields: dict[str, int]) -> None:
    """A value or limits, not neither and not both."""
    with pytest.raises(ValidationError):
        Sanity(name="x", sql="SELECT 1", **fields)
