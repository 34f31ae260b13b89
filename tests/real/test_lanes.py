"""Questions over several connections: one moment, no answer lost, none spoilt by another."""

import time

import pytest
from psycopg import sql

from fixtures.checks.asking import READING
from fixtures.postgres.lanes import LIGHT_BYTES, Task, team
from fixtures.postgres.server import Server
from fixtures.postgres.session import Endpoint, connect
from fixtures.progress import Tick
from tests.real import checks_lab
from tests.real.checks_lab import NewSubject, home_of, script

template, lab, subject_of = checks_lab.template, checks_lab.lab, checks_lab.subject_of


def ask(text: str, *, key: str = "", weight: int = 1, **fields: object) -> Task:
    """Return a question for one array."""
    return Task(key=key or text, select=sql.SQL(text), weight=weight, **fields)  # type: ignore[arg-type]


@pytest.fixture
def home(subject_of: NewSubject) -> Endpoint:
    """A fresh database."""
    return home_of(subject_of())


def test_every_connection_sees_the_same_moment(home: Endpoint) -> None:
    """A row committed after the snapshot is in nobody's answer, nor in a connection opened later."""
    count = "SELECT ARRAY[count(*)::text] FROM public.notes"
    with team(home, jobs=2, settings=READING) as readers:
        first = readers.ask([ask(count, key="first", weight=LIGHT_BYTES)])
        script(home, "INSERT INTO notes VALUES (0, 'late')")
        later = readers.ask([ask(count, key=str(number), weight=LIGHT_BYTES) for number in range(6)])
    assert {each.values for each in (*first.values(), *later.values())} == {("300",)}


def test_a_question_that_fails_spoils_no_other(home: Endpoint) -> None:
    """Light questions share a statement; one that fails is told apart, and the connection goes on."""
    tasks = [ask(f"SELECT ARRAY['{number}']", key=str(number)) for number in range(10)]
    broken = ask("SELECT ARRAY[(1 / (SELECT count(*) FROM public.notes WHERE id < 0))::text]", key="broken")
    with team(home, jobs=1, settings=READING) as readers:
        answers = readers.ask([*tasks[:5], broken, *tasks[5:]])
        again = readers.ask([ask("SELECT ARRAY['still here', NULL]", key="again")])
    assert [answers[str(number)].values for number in range(10)] == [(str(number),) for number in range(10)]
    assert answers["broken"].error is not None
    assert "22012" in answers["broken"].error.fact
    assert again["again"].values == ("still here", None)


def test_what_the_deadline_cuts_off_is_told(home: Endpoint) -> None:
    """What runs is cancelled, what waits is not begun, and both are answered; the connections still work."""
    slow = "SELECT ARRAY[pg_sleep(60)::text]"
    tasks = [ask(slow, key=str(number), weight=LIGHT_BYTES) for number in range(5)]
    with team(home, jobs=2, settings=READING) as readers:
        answers = readers.ask(tasks, deadline=time.monotonic() + 0.3)
        after = readers.ask([ask("SELECT ARRAY['1']")])
    codes = [each.error.code if each.error else "" for each in answers.values()]
    assert codes == ["RB505"] * 5
    assert [each.values for each in after.values()] == [("1",)]


def test_progress_ends_at_all_that_was_asked(home: Endpoint) -> None:
    """Bytes only grow, and reach their total."""
    seen: list[Tick] = []
    with team(home, jobs=2, settings=READING) as readers:
        readers.ask(
            [ask("SELECT ARRAY['1']", key=str(number), weight=number) for number in range(1, 5)],
            progress=seen.append, phase="reading",
        )  # fmt: skip
    assert [tick.done for tick in seen] == sorted(tick.done for tick in seen)
    assert (seen[-1].done, seen[-1].total, seen[-1].phase) == (10, 10, "reading")


def test_the_use_of_an_index_is_counted(home: Endpoint) -> None:
    """A question that was to read an index and read the table instead is told apart by its counter."""
    with connect(home) as session:
        oid = session.value("SELECT 'public.users_email_key'::regclass::oid::int8")
    # ids are not in that index: only the table has them
    read = ask("SELECT ARRAY[count(email)::text] FROM public.users", key="i", mode="index", index=oid)
    missed = ask("SELECT ARRAY[max(balance)::text] FROM public.users", key="t", mode="heap", index=oid)
    with team(home, jobs=1, settings=READING) as readers:
        answers = {**readers.ask([read]), **readers.ask([missed])}
    assert (answers["i"].values, answers["i"].scanned) == (("500",), 500)
    assert answers["t"].scanned == 0


def test_restored_settings_of_a_role_bend_no_answer(home: Endpoint, lab: Server) -> None:
    """What ALTER ROLE and ALTER DATABASE left behind is overridden on every connection."""
    bent = {
        "statement_timeout": "100ms", "search_path": "nowhere", "timezone": "Asia/Tokyo", "row_security": "on",
        "standard_conforming_strings": "off", "transform_null_equals": "on", "zero_damaged_pages": "on",
        "extra_float_digits": "-5", "default_transaction_isolation": "serializable",
    }  # fmt: skip
    shown = ", ".join(f"current_setting('{name}')" for name in bent)
    ask_all = f"SELECT ARRAY[{shown}] FROM pg_sleep(0.2)"  # noqa: S608 - names are written above
    script(lab.endpoint, "CREATE ROLE bent SUPERUSER LOGIN")
    try:
        for name, value in bent.items():
            script(lab.endpoint, f"ALTER ROLE bent SET {name} = '{value}'")
        with team(Endpoint(home.host, home.port, "bent", home.database), jobs=1, settings=READING) as readers:
            values = readers.ask([ask(ask_all)])[ask_all].values
    finally:
        script(lab.endpoint, "DROP ROLE bent")
    # inside a question's own transaction, which is REPEATABLE READ
    assert dict(zip(bent, values, strict=True)) == {
        "statement_timeout": "0", "search_path": "pg_catalog", "timezone": "UTC", "row_security": "off",
        "standard_conforming_strings": "on", "transform_null_equals": "off", "zero_damaged_pages": "off",
        "extra_float_digits": "1", "default_transaction_isolation": "read committed",
    }  # fmt: skip
