"""Which access rules the restored copy is opened with."""

from dataclasses import replace

from fixtures.production.fences import prefer_open
from fixtures.production.lock import DatabaseOriginal, LockOriginal

OPEN = DatabaseOriginal(name="shop", connection_limit=57, allows_connections=True, read_only=None)
CLOSED = replace(OPEN, connection_limit=0, read_only="on")


def _rules(*databases: DatabaseOriginal, login: bool = True) -> LockOriginal:
    return LockOriginal(databases=databases, app_role="app", app_role_login=login)


def test_productions_rules_come_first():
    """A limit changed since the target is production's to say."""
    assert prefer_open(_rules(OPEN), _rules(replace(OPEN, connection_limit=5))) == _rules(OPEN)


def test_what_somebody_closed_by_hand_does_not_shut_users_out_of_the_copy():
    """The rule users had at the target is taken, for a database and for the log-in."""
    assert prefer_open(_rules(CLOSED, login=False), _rules(OPEN)) == _rules(OPEN)


def test_a_database_that_was_closed_all_along_stays_closed():
    """Beside one that was closed by hand, each is judged for itself."""
    history = replace(CLOSED, name="history")

    assert prefer_open(_rules(CLOSED, history), _rules(OPEN, history)) == _rules(OPEN, history)


def test_a_copy_that_holds_an_earlier_runs_lock_is_opened_with_productions_rules():
    """A copy of the latest moment may have been locked by the run before."""
    assert prefer_open(_rules(OPEN), _rules(CLOSED, login=False)) == _rules(OPEN)
