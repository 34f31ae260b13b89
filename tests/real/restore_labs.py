"""
One lab per restore provider: a store of its own kind that a small production fills, and ways to harm it.

The contract suite asks the registry for providers and this module for their labs; a provider without a
lab fails the suite.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.command import find_tool, run
from fixtures.postgres.binaries import Binaries, embedded_binaries, open_binaries
from fixtures.providers.base import Site
from fixtures.providers.basebackup.backend import BaseBackupDirectory
from fixtures.providers.pgbackrest.backend import PgBackRest
from fixtures.settings import BaseBackupProvider, PgBackRestProvider
from tests.missing import missing
from tests.real.barman_cloud_lab import BarmanCloudLab
from tests.real.barman_lab import BarmanLab, with_barman
from tests.real.basebackup_s3_lab import BaseBackupS3Lab
from tests.real.dump_lab import DumpLab
from tests.real.lab import Lab, flip
from tests.real.s3_server import BUCKET, KEY, S3, SECRET, s3_server
from tests.real.session_tokens import Issued, SessionTokens
from tests.real.walg_lab import WalGLab

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
PASSPHRASE = "correct horse battery"


class BaseBackupLab(Lab):
    """Folders of base backups and archive."""

    @property
    def archive(self) -> Path:
        return self.place / "archive"

    @property
    def base_backups(self) -> Path:
        return self.place / "base"

    @property
    def archive_command(self) -> str:
        return f"test ! -f {self.archive}/%f && cp %p {self.archive}/%f"

    @property
    def places(self) -> tuple[Path, ...]:
        return self.archive, self.base_backups

    def make(self) -> None:
        for folder in (self.place, self.archive, self.base_backups):
            folder.mkdir()
        self.server.binaries.own(self.place)

    def add_history(self, name: str, text: str) -> None:
        (self.archive / name).write_text(text)

    def back_up(self) -> None:
        run(
            [
                self.server.binaries.tool("pg_basebackup"), "-h", self.server.sockets, "-p", str(self.server.port),
                "-U", "postgres", "-D", self.base_backups / "full", "-c", "fast", "-X", "none",
            ],
            timeout_s=60, user=self.server.binaries.user,
        )  # fmt: skip

    def segment(self, name: str) -> Path:
        return self.archive / name

    def provider(self, site: Site) -> BaseBackupDirectory:
        settings = BaseBackupProvider(base_backups=self.base_backups, archive=self.archive)
        return BaseBackupDirectory(settings, site)

    def damage_backup(self) -> None:
        victim = max(
            (self.base_backups / "full" / "base").rglob("[0-9]*"), key=lambda path: path.stat().st_size
        )
        flip(victim)


@dataclass(frozen=True, kw_only=True)
class PgBackRestLab(Lab):
    """An encrypted, compressed pgBackRest repository in a folder."""

    stanza: str = "demo"

    @property
    def config(self) -> Path:
        return self.place.with_name(f"{self.place.name}.conf")

    @property
    def archive_command(self) -> str:
        return f"{find_tool('pgbackrest')} --config={self.config} --stanza={self.stanza} archive-push %p"

    def make(self) -> None:
        self.place.mkdir()
        for name in ("pgbackrest-log", "pgbackrest-lock", "pgbackrest-spool"):
            (self.home / name).mkdir()
        self._write_config()
        self.server.binaries.own(self.home)

    def add_history(self, name: str, text: str) -> None:
        history = self.server.data / "pg_wal" / name
        history.write_text(text)
        self.server.binaries.own(history)
        self.run("archive-push", str(history))
        history.unlink()

    def prepare(self) -> None:
        self.run("stanza-create")

    def back_up(self) -> None:
        self.run("backup", "--type=full")

    def run(self, command: str, *words: str) -> str:
        """Run pgBackRest as production's user."""
        argv = [
            find_tool("pgbackrest"),
            f"--config={self.config}",
            f"--stanza={self.stanza}",
            command,
            *words,
        ]
        return run(argv, timeout_s=120, user=self.server.binaries.user).stdout

    def segment(self, name: str) -> Path:
        (found,) = self.place.glob(f"archive/*/*/{name[:16]}/{name}-*")
        return found

    def provider(self, site: Site) -> PgBackRest:
        return PgBackRest(PgBackRestProvider(config=self.config, stanza=self.stanza), site)

    def clone(self, name: str) -> "PgBackRestLab":
        made = super().clone(name)
        assert isinstance(made, PgBackRestLab)
        made._write_config()
        return made

    def damage_backup(self) -> None:
        files = [path for path in self.place.glob("backup/*/*F/pg_data/**/*") if path.is_file()]
        flip(max(files, key=lambda path: path.stat().st_size))

    def repository(self) -> str:
        """Return the lines that say where the repository is."""
        return f"repo1-path={self.place}\n"

    def _write_config(self) -> None:
        home = self.home
        self.config.write_text(
            f"[global]\n{self.repository()}repo1-retention-full=9\nrepo1-cipher-type=aes-256-cbc\n"
            f"repo1-cipher-pass={PASSPHRASE}\ncompress-type=zst\ncompress-level=1\nstart-fast=y\n"
            "job-retry=0\n"
            f"log-path={home}/pgbackrest-log\nlock-path={home}/pgbackrest-lock\n"
            f"spool-path={home}/pgbackrest-spool\nlog-level-console=off\nlog-level-file=warn\n"
            f"[{self.stanza}]\npg1-path={self.server.data}\npg1-port={self.server.port}\n"
            f"pg1-socket-path={self.server.sockets}\npg1-user=postgres\n"
        )
        self.config.chmod(0o600)
        self.server.binaries.own(self.config)


@dataclass(frozen=True, kw_only=True)
class PgBackRestS3Lab(PgBackRestLab):
    """
    An encrypted, compressed pgBackRest repository on a real S3 server; the store's folder is only a name.

    Attributes:
        s3: the server.
        port: what it is reached by, 0 for the server's own.
        keys: the configuration file's lines with credentials.
    """

    s3: S3
    port: int = 0
    keys: str = f"repo1-s3-key={KEY}\nrepo1-s3-key-secret={SECRET}\n"

    @classmethod
    @contextmanager
    def surroundings(cls, public_dir: Path) -> Iterator[Mapping[str, Any]]:
        with s3_server(public_dir / "s3-pgbackrest") as made:
            yield {"s3": made}

    @property
    def config(self) -> Path:
        return self.place.with_name(f"{self.place.name}{'-lent' if self.port else ''}.conf")

    @property
    def places(self) -> tuple[Path, ...]:
        return ()

    def make(self) -> None:
        super().make()
        self.place.rmdir()

    def clone(self, name: str) -> "PgBackRestS3Lab":
        for path in self.s3.walk(self.place.name):
            target = name + path.removeprefix(self.place.name)
            assert self.s3.change("POST", f"{target}?cp.from=/buckets/{BUCKET}/{path}")
        made = replace(self, place=self.home / name)
        made._write_config()
        return made

    def lent(self, tokens: SessionTokens) -> "PgBackRestS3Lab":
        return replace(self, port=tokens.port)

    def use(self, issued: Issued, patch: pytest.MonkeyPatch) -> None:  # noqa: ARG002 - its own file has them
        keys = (
            f"repo1-s3-key={issued.key}\nrepo1-s3-key-secret={issued.secret}\nrepo1-s3-token={issued.token}\n"
        )
        replace(self, keys=keys)._write_config()

    def object(self, segment: str) -> str:
        (found,) = (path for path in self.s3.walk(f"{self.place.name}/archive") if f"/{segment}-" in path)
        return found

    def lose(self, segment: str) -> None:
        assert self.s3.change("DELETE", self.object(segment))

    def cut(self, segment: str) -> None:
        path = self.object(segment)
        content = self.s3.read(path)
        assert self.s3.change("PUT", path, content[: len(content) // 2])

    def hide(self) -> None:
        """Nothing answers at its address any more."""
        text = self.config.read_text().replace(f"storage-port={self.s3.port}\n", "storage-port=9\n")
        self.config.write_text(text.replace("io-timeout=10\n", "io-timeout=0.5\n"))

    def show(self) -> None:
        self._write_config()

    def damage_backup(self) -> None:
        paths = [
            path
            for path in self.s3.walk(f"{self.place.name}/backup")
            if "F/pg_data/" in path or "F/bundle/" in path
        ]
        contents = {path: self.s3.read(path) for path in paths}
        path = max(contents, key=lambda each: len(contents[each]))
        middle = len(contents[path]) // 2
        flipped = bytes([contents[path][middle] ^ 0xFF])
        assert self.s3.change("PUT", path, contents[path][:middle] + flipped + contents[path][middle + 1 :])

    def repository(self) -> str:
        return (
            f"repo1-type=s3\nrepo1-path=/{self.place.name}\nrepo1-s3-bucket={BUCKET}\nrepo1-s3-endpoint=localhost\n"
            f"repo1-s3-region=auto\nrepo1-s3-uri-style=path\n{self.keys}"
            f"repo1-storage-host=localhost\nrepo1-storage-port={self.port or self.s3.port}\n"
            f"repo1-storage-ca-file={self.s3.authority}\nrepo1-bundle=y\nio-timeout=10\n"
        )


def embedded(public_dir: Path) -> Binaries:
    """PostgreSQL 18 from the wheel."""
    return embedded_binaries(public_dir)


def debian_15(_: Path) -> Binaries:
    """PostgreSQL 15 from Debian, beside the pgBackRest that knows no later one."""
    if shutil.which("pgbackrest") is None or not DEBIAN_15.is_dir():
        missing("pgbackrest and postgresql-15 of Debian 12")
    return open_binaries(DEBIAN_15)


#: lab -> its class, and the server programs it needs
LABS: dict[str, tuple[type[Lab], Callable[[Path], Binaries]]] = {
    "basebackup": (BaseBackupLab, embedded),
    "basebackup-s3": (BaseBackupS3Lab, embedded),
    "barman": (BarmanLab, with_barman),
    "barman_cloud": (BarmanCloudLab, with_barman),
    "pgbackrest": (PgBackRestLab, debian_15),
    "pgbackrest-s3": (PgBackRestS3Lab, debian_15),
    "dump": (DumpLab, embedded),
    "walg": (WalGLab, embedded),
}
#: lab of another kind of store -> the provider that reads it; any other lab's name is its provider's.
#: What is about the restored copy alone is not asked of these again.
VARIANTS = {
    "basebackup-s3": "basebackup",
    "pgbackrest-s3": "pgbackrest",
}
#: provider -> why the suite leaves it out
WITHOUT_LAB = {
    "command": "restores whatever a team's scripts do: tests/real/test_provider_command_example.py",
    "neon": "its copies are servers elsewhere, and its store is the vendor's: tests/real/test_provider_neon.py",
    "rds": "AWS restores: tests/real/test_provider_rds.py",
    "aurora": "AWS restores: tests/real/test_provider_rds.py",
}
