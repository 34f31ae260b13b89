"""`make init` against a real production: what it finds, writes, refuses, and leaves untouched."""

import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures import terminal
from fixtures.adoption import inspection, invariants
from fixtures.adoption.__main__ import main
from fixtures.adoption.facts import Findings
from fixtures.checks import Subject, sanity
from fixtures.config import UNSET, load_config
from fixtures.errors import ConfigError
from fixtures.evidence import Verdict
from fixtures.postgres.server import Server
from fixtures.postgres.session import connect
from tests.real.adoption_world import PASSWORD, dsn, production
from tests.real.checks_lab import examined, place, running, script
from tests.runbook.incident_parts import ROOT
from tests.runbook.incident_sessions import Sessions

VARIABLE = "ADOPTION_PASSWORD"


@pytest.fixture(scope="module")
def server(public_dir, binaries) -> Iterator[Server]:
    """The production."""
    server = place(public_dir, binaries, "adopt")
    server.initdb()
    rules = server.data / "pg_hba.conf"
    rules.write_text(f"host all all 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    with production(server):
        yield server
    shutil.rmtree(server.data.parent)


@pytest.fixture(autouse=True)
def nobody_there(monkeypatch):
    """No terminal, wherever the tests run."""
    monkeypatch.setattr(terminal, "has_terminal", lambda: False)
    monkeypatch.setenv(VARIABLE, PASSWORD)


def by_password(server: Server, *, user: str = "dba") -> str:
    """Return a connection string that needs the password."""
    return f"host=127.0.0.1 port={server.port} user={user} dbname=shop"


def init(server: Server, out: Path, *flags: str) -> int:
    """Write a configuration for the production."""
    return main([f"--dsn={by_password(server)}", f"--password-env={VARIABLE}", f"--out={out}", *flags])


@pytest.fixture
def written(server, tmp_path) -> Path:
    """The file as it is written when nothing but the connection is known."""
    out = tmp_path / "production.toml"
    assert init(server, out) == 0
    return out


def filled(out: Path) -> Path:
    """Set every key that is not set, and nothing else."""
    numbers = iter(range(1000))
    text = re.sub(rf'"{UNSET}[^"]*"', lambda _: f'"given-{next(numbers)}"', out.read_text())
    full = out.with_name("full.toml")
    full.write_text(text)
    return full


# -- the file ----------------------------------------------------------------------------------------


def test_the_file_loads_once_its_gaps_are_filled(written):
    """Everything but the keys marked as unknown is what the loader takes."""
    settings = load_config(filled(written)).settings

    assert [database.name for database in settings.databases] == ["shop", "Billing 2"]
    assert settings.production.password_env == VARIABLE
    assert settings.drill is None


def test_every_gap_is_refused_with_its_line(written):
    """A key that nobody could know is named with file and line, and none has a plausible default."""
    marked = [
        number for number, line in enumerate(written.read_text().splitlines(), 1) if f"# {UNSET}" in line
    ]

    with pytest.raises(ConfigError) as caught:
        load_config(written)

    assert caught.value.code == "RB105"
    named = [
        int(number) for number in re.findall(r"production\.toml:(\d+): \S+ is not set yet", caught.value.fact)
    ]
    assert named == marked
    assert len(marked) > 15
    for key in (
        "production.app_role",
        "restore.directory",
        "roles.owner",
        "app.maintenance.on",
        "canary.routes.0.path",
    ):
        assert f"{key} is not set yet" in caught.value.fact


def test_critical_tables_are_what_others_point_at_and_what_is_large(written):
    """Partitions count as one table; ledgers, passing and unlogged tables are none of them."""
    shop, billing = load_config(filled(written)).settings.databases

    assert shop.critical_tables[0] == "Sales.Customer"
    assert set(shop.critical_tables) == {
        "Sales.Customer", "Sales.Order", "Sales.shipments", "public.events", "public.evil\n[roles]",
    }  # fmt: skip
    assert billing.critical_tables == ("public.invoices",)
    assert "about 50 rows, 1 foreign key(s) point at it" in written.read_text()


def test_append_only_tables_are_only_proposed(written):
    """What was never updated so far is not what never will be: a person takes the mark away."""
    shop = load_config(filled(written)).settings.databases[0]
    proposal = re.search(r"^# append_only_tables = \[(.*)\]$", written.read_text(), re.MULTILINE)

    assert shop.append_only_tables == ()
    assert '"public.events"' in proposal[1]
    assert '"Sales.Order"' not in proposal[1]


def test_personal_columns_are_found_by_name(written):
    """Camel case and snake case mean the same; a flag about an address is not the address."""
    shop, billing = load_config(filled(written)).settings.databases

    assert set(shop.personal_columns) >= {
        "Sales.Customer.firstName",
        "Sales.Customer.email",
        "Sales.Customer.name",
    }
    assert "Sales.Customer.emailVerified" not in shop.personal_columns
    assert billing.personal_columns == ("public.invoices.iban",)


def test_ledgers_are_recognised(written):
    """Prisma's becomes configuration, with its folder to name; Alembic's, which is no folder of SQL, a remark."""
    shop, billing = load_config(filled(written)).settings.databases

    assert shop.migrations.table == "public._prisma_migrations"
    assert shop.migrations.finished_column == "finished_at"
    assert billing.migrations is None
    assert "# Alembic: 1 entries, the newest is 8f3c1d" in written.read_text()
    assert (
        "WARNING: Prisma's ledger public._prisma_migrations: a migration is unfinished or failed"
        in written.read_text()
    )


BEATS = "INSERT INTO public.heartbeat SELECT clock_timestamp() + (n - {past}) * interval '1 second' FROM generate_series(1, 60) n"


def test_a_heartbeat_that_beats_is_configured(server, tmp_path):
    """Its rhythm is measured."""
    # the newest lies an hour ahead: however slow the machine is, it has not stopped
    script(server.endpoint.on("shop"), "TRUNCATE public.heartbeat", BEATS.format(past=-3600))
    init(server, tmp_path / "p.toml")

    heartbeat = load_config(filled(tmp_path / "p.toml")).settings.databases[0].heartbeat

    assert (heartbeat.table, heartbeat.column) == ("public.heartbeat", "at")
    assert heartbeat.interval.total_seconds() == 4


def test_a_heartbeat_of_one_row_is_proposed_with_what_is_to_be_confirmed(server, tmp_path):
    """A row that is written over has no distances: whether it beats, and how fast, is the team's to say."""
    # it lies an hour ahead: however slow the machine is, it is fresh
    row = "INSERT INTO public.heartbeat SELECT clock_timestamp() + interval '1 hour'"
    script(server.endpoint.on("shop"), "TRUNCATE public.heartbeat", row)
    init(server, tmp_path / "p.toml")
    text = (tmp_path / "p.toml").read_text()

    assert "CONFIRM: one fresh row" in text
    assert '# interval = "10s"' in text
    assert "does not beat" not in text


def test_a_heartbeat_that_stopped_is_only_proposed(server, tmp_path):
    """A check that would be red in every restore is a person's to take."""
    script(server.endpoint.on("shop"), "TRUNCATE public.heartbeat", BEATS.format(past=3600))
    init(server, tmp_path / "p.toml")

    assert load_config(filled(tmp_path / "p.toml")).settings.databases[0].heartbeat is None
    assert '# table = "public.heartbeat"' in (tmp_path / "p.toml").read_text()


def test_a_name_cannot_leave_its_comment_or_its_string(written):
    """A table whose name looks like TOML changes nothing."""
    tree = tomllib.loads(written.read_text())

    assert tree["roles"] == {
        "owner": f"{UNSET} owner", "scribe": f"{UNSET} scribe", "reviewer": f"{UNSET} reviewer",
    }  # fmt: skip
    assert "its name holds a dot: public.a.dotted" in written.read_text()


def test_the_sanity_queries_written_hold(server, written):
    """Each of them, asked by the check that will ask it after a restore, is green."""
    databases = load_config(filled(written)).settings.databases
    subject: Subject = replace(examined(server, *databases), restored=server.endpoint)

    checks = sanity.check(subject)

    names = [one.name for database in databases for one in database.sanity]
    assert {check.verdict for check in checks} == {Verdict.PASS}
    assert len(checks) == len(names)
    for name in (
        "every Sales.shipments.order_id is in Sales.Order",
        "no Sales.Order.updated_at lies before created_at",
        "no Sales.Customer.createdAt lies in the future",
        "Sales.Order holds recent events",
    ):
        assert name in names


def test_what_does_not_hold_is_told_and_not_proposed(written):
    """A broken reference is no sanity query, and no secret either."""
    databases = load_config(filled(written)).settings.databases

    assert "not proposed: every Sales.shipments.customer_id is in Sales.Customer" in written.read_text()
    assert not any("shipments.customer_id" in one.name for one in databases[0].sanity)
    assert not any("below zero" in one.name for database in databases for one in database.sanity)
    assert '# name = "no Sales.Order.cents is below zero"' in written.read_text()


def test_a_large_table_is_not_read_for_a_proposal(server, tmp_path, monkeypatch):
    """Only what an index answers is asked; the other questions stand as comments, with the reason."""
    monkeypatch.setattr(invariants, "READ_WHOLE_BYTES", 0)
    init(server, tmp_path / "p.toml")

    databases = load_config(filled(tmp_path / "p.toml")).settings.databases
    text = (tmp_path / "p.toml").read_text()

    assert [one.name for database in databases for one in database.sanity] == [
        "Sales.Order holds recent events"
    ]
    assert (
        "too large to be read whole for a proposal): every Sales.shipments.order_id is in Sales.Order" in text
    )


def test_a_question_that_takes_too_long_is_given_up(server, tmp_path, monkeypatch):
    """Once the time for one database is over, nothing more is asked of it."""
    monkeypatch.setattr(invariants, "DATABASE_S", -1.0)
    init(server, tmp_path / "p.toml")

    assert (
        "# not asked (the questions to this database took -1 s already)" in (tmp_path / "p.toml").read_text()
    )


def test_what_was_said_is_written(server, tmp_path):
    """Flags leave fewer gaps, folders become absolute."""
    out = tmp_path / "p.toml"

    code = init(
        server, out, "--name=shop-production", "--app-role=shop_app", "--owner=A", "--scribe=B", "--reviewer=C",
        "--archive=~/archive", "--base-backups=backups", f"--restore={tmp_path}/r", f"--safety-copy={tmp_path}/s",
        f"--tickets={tmp_path}/t",
    )  # fmt: skip

    settings = load_config(filled(out)).settings
    assert code == 0
    assert (settings.production.name, settings.production.app_role) == ("shop-production", "shop_app")
    assert settings.provider.basebackup.archive == Path("~/archive").expanduser()
    assert settings.provider.basebackup.base_backups == Path("backups").absolute()
    assert (settings.roles.owner, settings.roles.reviewer) == ("A", "C")
    assert settings.ticket.directory == tmp_path / "t"


def test_the_terminal_is_asked_for_what_no_flag_says(server, tmp_path, monkeypatch):
    """A plain plus takes what was seen; nothing typed leaves the gap."""
    asked = []
    typed = {
        "connection string": by_password(server),
        "environment variable": VARIABLE,
        "role the application": "+",
    }

    def answer(question):
        asked.append(question)
        return next((words for part, words in typed.items() if part in question), "")

    monkeypatch.setattr(terminal, "has_terminal", lambda: True)
    monkeypatch.setattr(terminal, "ask_terminal", answer)
    monkeypatch.delenv("CI", raising=False)
    out = tmp_path / "p.toml"

    assert main([f"--out={out}", "--owner=A. Keller"]) == 0

    assert not any("who leads" in question for question in asked)
    assert len(asked) == 13
    raw = tomllib.loads(out.read_text())
    assert raw["production"]["app_role"] == "nobody_much"
    assert raw["production"]["name"] == UNSET


# -- production --------------------------------------------------------------------------------------


def test_nothing_is_written_to_production(server, tmp_path):
    """No transaction id is used and no session stays behind."""
    query = (
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text,"
        " (SELECT count(*) FROM pg_stat_activity WHERE application_name = %s)"
    )
    with connect(server.endpoint) as session:
        before = session.row(query, (inspection.APPLICATION,))

        assert init(server, tmp_path / "p.toml") == 0

        assert session.row(query, (inspection.APPLICATION,)) == before
        assert before[1] == 0


def test_an_inspection_cannot_write(server):
    """Its sessions refuse every write, whoever asks."""
    with inspection.gentle(server.endpoint) as session, pytest.raises(Exception, match="25006"):
        session.do("CREATE TABLE public.no (id int)")


def test_no_secret_is_written_or_said(written, capsys):
    """The password stands nowhere; its variable's name does."""
    assert PASSWORD not in written.read_text()
    assert PASSWORD not in "".join(capsys.readouterr())


def test_what_is_left_is_listed_with_its_line(server, tmp_path, capsys):
    """By its whole key, and what it means."""
    init(server, tmp_path / "p.toml")

    said = capsys.readouterr().out
    line = next(
        n
        for n, text in enumerate((tmp_path / "p.toml").read_text().splitlines(), 1)
        if text.startswith("served_url")
    )
    assert f"p.toml:{line}: app.served_url: 2xx while users are served" in said
    assert f"{said.count('  p.toml:')} key(s) are left for you" in said
    assert f"pytest --config={tmp_path}/p.toml --plan" in said


def test_warnings_say_what_to_do(server, tmp_path, capsys):
    """Each fact that hurts comes with its remedy, on the screen and in the file."""
    out = tmp_path / "p.toml"

    init(server, out)

    said = capsys.readouterr().out
    for fact, remedy in (
        ("archiving is off", "ALTER SYSTEM SET archive_mode = on"),
        ("commit times are not kept", "ALTER SYSTEM SET track_commit_timestamp = on"),
        ("unlogged tables come back empty: public.scratchpad", "SET LOGGED"),
        ("database Billing 2 has no heartbeat", "CREATE TABLE public.heartbeat"),
    ):
        assert re.search(rf"WARNING {re.escape(fact)}.*\n +do: .*{re.escape(remedy)}", said)
        assert f"# WARNING: {fact}" in out.read_text()


def test_the_plan_of_the_file_works(written):
    """`--plan` shows every step, and what is not configured yet, with its line."""
    planned = Sessions(ROOT, written).run(f"--config={written}", "--plan", env={VARIABLE: PASSWORD})

    assert planned.code == 4, planned.output
    assert "target: latest" in planned.output
    assert all(f"step {number}: " in planned.output for number in range(12))
    gaps = re.search(r"NOT CONFIGURED YET: (\d+) key", planned.output)
    assert int(gaps[1]) == written.read_text().count(f"# {UNSET}")
    line = next(
        n for n, text in enumerate(written.read_text().splitlines(), 1) if text.startswith("served_url")
    )
    assert f"production.toml:{line}: app.served_url is not set yet" in planned.output
    assert "[databases.heartbeat] of Billing 2" in planned.output
    assert "Traceback" not in planned.output
    assert PASSWORD not in planned.output


# -- refusals ----------------------------------------------------------------------------------------


def refusal(capsys, code: str, *words: str) -> str:
    """Return the one block that was printed; it has a code, a place and a next command."""
    said = capsys.readouterr().err
    assert said.startswith(f"{code} "), said
    assert "  at: " in said
    assert "  HINT: " in said
    for word in words:
        assert word in said
    return said


def test_an_existing_file_is_never_overwritten(server, tmp_path, capsys):
    """Neither it nor what a link points at."""
    out = tmp_path / "production.toml"
    out.write_text("mine")
    (tmp_path / "link.toml").symlink_to(tmp_path / "elsewhere.toml")

    assert init(server, out) == 4
    refusal(capsys, "RB110", str(out), "--out=FILE")
    assert init(server, tmp_path / "link.toml") == 4
    refusal(capsys, "RB110")

    assert out.read_text() == "mine"
    assert not (tmp_path / "elsewhere.toml").exists()


def test_a_missing_folder_is_refused_before_production_is_asked(tmp_path, capsys):
    """Nobody waits for an inspection whose result has no place."""
    assert main(["--dsn=host=/nonexistent", f"--out={tmp_path}/no/p.toml"]) == 4
    refusal(capsys, "RB110", "folder")


def test_a_variable_that_is_not_set_is_refused(server, tmp_path, capsys):
    """The name is told, and how to set it."""
    assert (
        main([f"--dsn={by_password(server)}", "--password-env=NO_SUCH_ONE", f"--out={tmp_path}/p.toml"]) == 4
    )
    refusal(capsys, "RB106", "export NO_SUCH_ONE=")


def test_a_wrong_password_is_refused(server, tmp_path, capsys, monkeypatch):
    """The refusal names user and variable, and repeats no secret."""
    monkeypatch.setenv(VARIABLE, "wrong-one-for-sure")

    assert init(server, tmp_path / "p.toml") == 4
    said = refusal(capsys, "RB503", "dba", VARIABLE)

    assert "wrong-one-for-sure" not in said
    assert not (tmp_path / "p.toml").exists()


def test_a_host_that_does_not_answer_is_refused(tmp_path, capsys):
    """With the command that asks whether it is there."""
    assert main(["--dsn=host=127.0.0.1 port=1 user=dba dbname=shop", f"--out={tmp_path}/p.toml"]) == 4
    refusal(capsys, "RB503", "pg_isready -h 127.0.0.1 -p 1")


@pytest.mark.parametrize("text", ["host=db password=x", "postgresql://dba:x@db/shop"])
def test_a_password_in_the_connection_string_is_refused(tmp_path, capsys, text):
    """It would be in the shell's history, and in the file."""
    assert main([f"--dsn={text}", f"--out={tmp_path}/p.toml"]) == 4
    refusal(capsys, "RB105", "password_env")


def test_a_flag_that_does_not_exist_is_refused(tmp_path, capsys):
    """Nor is a shortened one taken for another."""
    assert main(["--dns=host=db"]) == 4
    refusal(capsys, "RB101", "--dns=host=db", "make init ARGS=--help")
    assert main([f"--ou={tmp_path}/p.toml"]) == 4
    refusal(capsys, "RB101")


def test_without_a_terminal_the_connection_must_be_given(tmp_path, capsys):
    """Nothing is guessed."""
    assert main([f"--out={tmp_path}/p.toml"]) == 4
    refusal(capsys, "RB101", "--dsn=")


def test_the_reviewer_is_not_the_owner(server, tmp_path, capsys):
    """Two people, from the first file on."""
    assert init(server, tmp_path / "p.toml", "--owner=A", "--reviewer=A") == 4
    refusal(capsys, "RB101", "another person")


def test_nobody_waits_behind_a_lock(server, tmp_path, capsys):
    """A table that is locked ends the inspection in seconds; it neither waits nor makes others wait."""
    with connect(server.endpoint.on("shop")) as session:
        session.do("BEGIN")
        session.do('LOCK TABLE "Sales"."Order" IN ACCESS EXCLUSIVE MODE')

        assert init(server, tmp_path / "p.toml") == 4

        session.do("ROLLBACK")
    refusal(capsys, "RB502", "55P03", "try again later")
    assert not (tmp_path / "p.toml").exists()


def test_a_role_without_privileges_is_refused(server, tmp_path, capsys):
    """It is told what to grant, instead of proposing from half of what is there."""
    assert main([f"--dsn={dsn(server, user='nobody_much')}", f"--out={tmp_path}/p.toml"]) == 4
    refusal(
        capsys,
        "RB410",
        "pg_monitor and pg_read_all_data",
        'GRANT pg_monitor, pg_read_all_data TO "nobody_much"',
    )


def test_a_role_that_may_read_is_enough(server, tmp_path, capsys):
    """An inspection needs no superuser, and says that the runbook does."""
    script(server.endpoint, "CREATE ROLE reader LOGIN IN ROLE pg_monitor, pg_read_all_data")

    assert main([f"--dsn={dsn(server, user='reader')}", f"--out={tmp_path}/p.toml"]) == 0

    assert "WARNING reader is no superuser" in capsys.readouterr().out
    assert "Sales.Customer" in load_config(filled(tmp_path / "p.toml")).settings.databases[0].critical_tables


def test_a_database_nobody_can_look_into_is_listed(server, tmp_path):
    """A restore brings it back, so the file names it and the warning says what to do."""
    script(server.endpoint, 'ALTER DATABASE "Billing 2" ALLOW_CONNECTIONS false')
    try:
        assert init(server, tmp_path / "p.toml") == 0
    finally:
        script(server.endpoint, 'ALTER DATABASE "Billing 2" ALLOW_CONNECTIONS true')

    assert [d.name for d in load_config(filled(tmp_path / "p.toml")).settings.databases] == [
        "shop",
        "Billing 2",
    ]
    assert "# not looked into: it accepts no connections" in (tmp_path / "p.toml").read_text()


def test_a_server_without_tables_is_no_production(new_server, tmp_path, capsys):
    """A wrong port is noticed before a file is written."""
    with running(new_server("empty"), {"listen_addresses": ""}) as empty:
        assert (
            main([f"--dsn={dsn(empty, user='postgres', database='postgres')}", f"--out={tmp_path}/p.toml"])
            == 4
        )
    refusal(capsys, "RB410", "nothing to restore")


def test_a_standby_is_refused(new_server, tmp_path, capsys):
    """What it would say of archiving and writes is not production's."""
    standby = new_server("standby")
    (standby.data / "standby.signal").touch()
    with running(standby, {"listen_addresses": ""}):
        assert (
            main([f"--dsn={dsn(standby, user='postgres', database='postgres')}", f"--out={tmp_path}/p.toml"])
            == 4
        )
    refusal(capsys, "RB410", "in recovery", "pg_stat_wal_receiver")


def test_findings_hold_no_rows(server):
    """What an inspection keeps are names and figures."""
    found: Findings = inspection.look(server.endpoint.on("shop"))

    assert "@example.com" not in repr(found)
    assert [database.name for database in found.databases] == ["shop", "Billing 2"]
    assert set(found.empty) == {"empty", "postgres", "template1"}
