"""Connection strings: read, rebuilt, switched, undone; never shown."""

import os
from pathlib import Path

import pytest

from fixtures.app import connections
from fixtures.errors import StepError
from fixtures.evidence import Secret, redact
from fixtures.settings import Connection

OLD = "postgresql://app:s3cret%2Fword@old.example:6432/shop?sslmode=require"


def in_file(path: Path, **changes: object) -> Connection:
    return Connection.model_validate({"kind": "file", "path": path, "database": "shop", **changes})


def by_command(store: Path, **changes: object) -> Connection:
    parts = {
        "kind": "command",
        "write": ["sh", "-c", f'printf %s "$DATABASE_URL" > {store}'],
        "read": ["cat", str(store)],
        "database": "shop",
    }
    return Connection.model_validate({**parts, **changes})


def no_secret(name: str) -> Secret:
    raise AssertionError(name)


def rebuilt(connection: Connection, **changes: object) -> str:
    known = {"host": "10.0.0.7", "port": 5433, "user": "app", "secret": no_secret}
    given = {**known, "present": connections.present(connection), **changes}
    return connections.build(connection, **given).reveal()


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "url"
    path.write_text(OLD + "\n")
    path.chmod(0o640)
    return path


def test_the_password_is_taken_over_and_quoted(stored: Path) -> None:
    """An encoded password survives; the rest comes from the template and the new place."""
    assert rebuilt(in_file(stored)) == "postgresql://app:s3cret%2Fword@10.0.0.7:5433/shop"


def test_a_named_password_replaces_the_old_one(stored: Path) -> None:
    """Rotation: password_env wins over the present string."""
    new = rebuilt(in_file(stored, password_env="APP_PASSWORD"), secret=lambda name: Secret(f"{name}@new:1"))

    assert new == "postgresql://app:APP_PASSWORD%40new%3A1@10.0.0.7:5433/shop"


def test_socket_folders_and_ipv6_are_valid_hosts(stored: Path) -> None:
    """An encoded path and a bracketed address are what libpq reads."""
    assert "@%2Frun%2Fpg:5433/" in rebuilt(in_file(stored), host="/run/pg")
    assert "@[::1]:5433/" in rebuilt(in_file(stored), host="::1")


def test_a_keyword_template_is_quoted_the_libpq_way(tmp_path: Path) -> None:
    """Quotes and backslashes in a password stay one value."""
    path = tmp_path / "dsn"
    path.write_text(r"host=old user=app dbname=shop password='it\'s'")

    new = rebuilt(in_file(path, template="host={host} port={port} user={user} password={password}"))

    assert new == r"host='10.0.0.7' port='5433' user='app' password='it\'s'"


def test_without_a_password_none_is_written(tmp_path: Path) -> None:
    """A pass file's user keeps using it: an empty password would be sent instead."""
    path = tmp_path / "url"
    path.write_text("postgresql://app@old/shop")

    assert rebuilt(in_file(path)) == "postgresql://app@10.0.0.7:5433/shop"


def test_an_unknown_placeholder_is_refused(stored: Path) -> None:
    """A typo in the template never reaches the application."""
    with pytest.raises(StepError, match="unknown placeholder"):
        rebuilt(in_file(stored, template="postgresql://{usr}@{host}/{database}"))


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (OLD, "old.example", 6432),
        ("postgresql+asyncpg://app:old-word-1@db/shop", "db", 5432),
        ("postgresql://app:old-word-1@[::1]:7/shop?schema=public&pgbouncer=true", "::1", 7),
        ("postgresql://app@/shop?host=/run/Pg&port=5544", "/run/Pg", 5544),
        ("host=/run port=5 dbname=shop user=app", "/run", 5),
    ],
    ids=["plain", "driver", "prisma", "query", "keywords"],
)
def test_strings_of_drivers_and_tools_are_understood(text: str, host: str, port: int, tmp_path: Path) -> None:
    """Where a string leads is told for the forms that applications use."""
    path = tmp_path / "url"
    path.write_text(text)

    found = connections.points_at(in_file(path))

    assert (found.host, found.port, found.database, found.user) == (host, port, "shop", "app")


@pytest.mark.parametrize("text", ["postgresql://app@a,b/shop", "nonsense", "", "postgresql://app@h:x/shop"])
def test_what_cannot_be_understood_is_refused_without_being_shown(text: str, tmp_path: Path) -> None:
    """Several hosts, garbage and emptiness are RB603."""
    path = tmp_path / "url"
    path.write_text(text)

    with pytest.raises(StepError) as caught:
        connections.points_at(in_file(path))

    assert caught.value.code == "RB603"
    assert "nonsense" not in str(caught.value)


def test_writing_keeps_mode_and_newline_and_leaves_nothing_beside(stored: Path) -> None:
    """The application goes on reading the file it knows."""
    connections.write(in_file(stored), Secret("postgresql://app:new-word-1@new/shop"))

    assert stored.read_text() == "postgresql://app:new-word-1@new/shop\n"
    assert stored.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in stored.parent.iterdir()] == ["url"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_writing_keeps_the_owner(stored: Path) -> None:
    """Root must not lock the application out of its own file."""
    os.chown(stored, 65534, 65534)

    connections.write(in_file(stored), Secret("postgresql://app:new-word-1@new/shop"))

    assert (stored.stat().st_uid, stored.stat().st_gid) == (65534, 65534)


def test_writing_follows_a_symbolic_link(stored: Path, tmp_path: Path) -> None:
    """The link stays a link; its file is replaced."""
    link = tmp_path / "link"
    link.symlink_to(stored)

    connections.write(in_file(link), Secret("postgresql://app:new-word-1@new/shop"))

    assert link.is_symlink()
    assert stored.read_text().startswith("postgresql://app:new-word-1@new")


def test_the_application_is_told_to_reload(stored: Path, tmp_path: Path) -> None:
    """The reload command runs after the string is there, and again when it already was."""
    seen = tmp_path / "seen"
    connection = in_file(stored, reload=["sh", "-c", f"cat {stored} >> {seen}"])
    new = Secret("postgresql://app:new-word-1@new/shop")

    connections.write(connection, new)
    connections.write(connection, new)

    assert seen.read_text().splitlines() == [new.reveal()] * 2


def test_a_command_gets_the_string_by_environment_only(tmp_path: Path) -> None:
    """The string is stored and read back through the team's commands."""
    connection = by_command(tmp_path / "store")

    connections.write(connection, Secret("postgresql://app:new-word-1@new/shop"))

    assert connections.points_at(connection).host == "new"


def test_a_command_that_stores_nothing_is_found_out(tmp_path: Path) -> None:
    """Exit 0 is not proof: the string is read back."""
    store = tmp_path / "store"
    store.write_text(OLD)

    with pytest.raises(StepError, match="another one is read back") as caught:
        connections.write(by_command(store, write=["true"]), Secret("postgresql://app:new-word-1@new/shop"))

    assert caught.value.code == "RB603"


def test_a_backup_is_private_kept_and_put_back(stored: Path, tmp_path: Path) -> None:
    """A repeated backup after the switch never replaces the old string by the new one."""
    connection, kept = in_file(stored), tmp_path / "undo" / "connection"

    connections.backup(connection, kept)
    connections.write(connection, Secret("postgresql://app:new-word-1@new/shop"))
    connections.backup(connection, kept)
    connections.restore(connection, kept)

    assert kept.stat().st_mode & 0o777 == 0o600
    assert stored.read_text() == OLD + "\n"


def test_a_missing_backup_is_refused(stored: Path, tmp_path: Path) -> None:
    """Undo does not guess."""
    with pytest.raises(StepError, match="cannot be read"):
        connections.restore(in_file(stored), tmp_path / "none")


def test_a_string_that_was_read_is_redacted_everywhere(stored: Path) -> None:
    """The password, encoded and plain, is masked from then on."""
    connections.present(in_file(stored))

    assert "s3cret" not in redact("tried s3cret/word and s3cret%2Fword")
