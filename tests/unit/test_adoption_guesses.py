"""What names mean to a first configuration, and what a production like this is advised to do."""

import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fixtures.adoption.advice import advise, backup_tool
from fixtures.adoption.answers import Answers
from fixtures.adoption.facts import Archiver, Cluster, Database, Findings
from fixtures.adoption.render import text_of
from fixtures.adoption.words import is_passing, is_personal, singular, snake, words
from fixtures.config import UNSET

HEALTHY = Cluster(
    version="18.1", major=18, system_identifier="7", timeline=1, role="dba", superuser=True,
    settings={
        "archive_mode": "on", "archive_command": "cp %p /archive/%f", "archive_timeout": "60", "wal_level": "replica",
        "fsync": "on", "full_page_writes": "on", "data_checksums": "on", "track_commit_timestamp": "on",
    },
    archiver=Archiver(last_segment="000000010000000000000001", last_at=datetime.now(UTC), failing=False),
    login_roles=(), tablespaces=(), standbys=0, slots=(),
)  # fmt: skip


def facts(cluster):
    """Return what is said of a cluster, as one text."""
    findings = Findings(cluster=cluster, databases=(), empty=())
    return "\n".join(f"{one.fact} -> {one.do}" for one in advise(findings, archive=None))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("createdAt", ["created", "at"]),
        ("created_at", ["created", "at"]),
        ("HTTPStatus2", ["http", "status", "2"]),
        ("User-Name", ["user", "name"]),
        ("", []),
    ],
)
def test_names_are_taken_apart(name, expected):
    """In whatever case they are written."""
    assert words(name) == expected
    assert snake(name) == "_".join(expected)


@pytest.mark.parametrize(
    ("many", "one"),
    [
        ("orders", "order"),
        ("categories", "category"),
        ("boxes", "box"),
        ("address", "address"),
        ("status", "status"),
        ("order", "order"),
    ],
)
def test_tables_name_their_rows(many, one):
    """A plural becomes the word a foreign key's column begins with."""
    assert singular(many) == one


@pytest.mark.parametrize(
    ("table", "column"),
    [("x", "email"), ("x", "workEmail"), ("x", "first_name"), ("x", "tax_id"), ("x", "nationalId"), ("x", "date_of_birth"),
     ("customers", "name"), ("User", "name"), ("x", "ip_address"), ("x", "iban")],
)  # fmt: skip
def test_personal_columns(table, column):
    """Names that sound like a person."""
    assert is_personal(table, column)


@pytest.mark.parametrize(
    ("table", "column"),
    [("products", "name"), ("x", "email_verified"), ("x", "email_count"), ("x", "address_id"), ("x", "user_id"), ("x", "description"),
     ("x", "shipping_status"), ("x", "email_template")],
)  # fmt: skip
def test_technical_columns(table, column):
    """Names that only touch on one."""
    assert not is_personal(table, column)


def test_an_audits_log_is_not_passing():
    """Sessions, caches and logs are; what proves who did what is not."""
    assert [name for name in ("sessions", "django_session", "jobQueue", "audit_log", "orders") if is_passing(name)] == [
        "sessions", "django_session", "jobQueue",
    ]  # fmt: skip


def test_a_healthy_cluster_is_left_in_peace():
    """No warning without a reason."""
    assert facts(HEALTHY) == ""


@pytest.mark.parametrize(
    ("change", "fact", "remedy"),
    [
        ({"settings": {"archive_mode": "off"}}, "archiving is off", "archive_mode = on"),
        ({"settings": {"wal_level": "minimal"}}, "wal_level is minimal", "wal_level = replica"),
        ({"settings": {"fsync": "off"}}, "fsync or full_page_writes is off", "RESET fsync"),
        ({"settings": {"data_checksums": "off"}}, "data checksums are off", "pg_checksums --enable"),
        ({"settings": {"archive_timeout": "0"}}, "archive_timeout is 0", "archive_timeout = '60s'"),
        ({"archiver": {"failing": True}}, "last attempt failed", "pg_stat_archiver"),
        ({"archiver": {"last_segment": "", "last_at": None}}, "nothing was archived yet", "pg_switch_wal()"),
        ({"superuser": False}, "dba is no superuser", "[production] dsn"),
        ({"tablespaces": ("fast",)}, "tablespaces are in use (fast)", "data directory"),
        ({"standbys": 2}, "2 standby(s)", "built again"),
        ({"slots": ("cdc",)}, "replication slots: cdc", "starts anew"),
    ],
)  # fmt: skip
def test_what_hurts_is_told_with_its_remedy(change, fact, remedy):
    """One change, one warning."""
    nested = {
        key: {**HEALTHY.settings, **value}
        if key == "settings"
        else replace(HEALTHY.archiver, **value)
        if key == "archiver"
        else value
        for key, value in change.items()
    }

    told = facts(replace(HEALTHY, **nested))

    assert len(told.splitlines()) == 1
    assert fact in told
    assert remedy in told.partition(" -> ")[2]


def test_an_archive_that_lacks_the_newest_segment_is_told(tmp_path):
    """The folder a person named is looked into; compressed segments and folders by timeline count."""
    findings = Findings(cluster=HEALTHY, databases=(), empty=())
    (tmp_path / "0000000100000000").mkdir()

    assert "is not in" in advise(findings, archive=tmp_path)[0].fact

    (tmp_path / "0000000100000000" / "000000010000000000000001-abc.zst").touch()
    assert advise(findings, archive=tmp_path) == []


def test_a_quiet_archive_says_since_when():
    """Old and nothing to make it newer."""
    old = replace(HEALTHY.archiver, last_at=datetime.now(UTC) - timedelta(days=2))

    told = facts(replace(HEALTHY, archiver=old, settings={**HEALTHY.settings, "archive_timeout": "0"}))

    assert "nothing makes a quiet production archive" in told


def provider_of(command):
    """Return the provider's table that is written for a production that archives so."""
    cluster = replace(HEALTHY, settings={**HEALTHY.settings, "archive_command": command})
    shop = Database(name="shop", size_bytes=1, closed="a test", extensions={})
    text = text_of(
        Findings(cluster=cluster, databases=(shop,), empty=()), Answers(), invariants={}, advice=[],
        data_directory=None, at=datetime.now(UTC),
    )  # fmt: skip
    return tomllib.loads(text)["provider"]


def test_the_provider_is_the_tool_that_archives():
    """Its required keys are taken from production's own command, or left to a person."""
    assert provider_of("pgbackrest --stanza=shop-1 archive-push %p") == {
        "name": "pgbackrest", "pgbackrest": {"stanza": "shop-1"},
    }  # fmt: skip
    assert provider_of("pgbackrest archive-push %p")["pgbackrest"] == {"stanza": UNSET}
    assert provider_of("pg_probackup archive-push") == {"name": UNSET}
    assert provider_of("cp %p /archive/%f") == {
        "name": "basebackup", "basebackup": {"base_backups": UNSET, "archive": UNSET},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("command", "tool"),
    [
        ("pgbackrest --stanza=x archive-push %p", "pgBackRest"),
        ("wal-g wal-push %p", "WAL-G"),
        ("cp %p /a/%f", ""),
    ],
)
def test_backup_tools_are_recognised(command, tool):
    """By what archive_command calls."""
    assert backup_tool(replace(HEALTHY, settings={"archive_command": command})) == tool
