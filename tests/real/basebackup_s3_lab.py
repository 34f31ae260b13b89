"""The lab of the provider `basebackup` on S3: base backups and segments as objects of a real S3 server."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.command import run
from fixtures.drill.archiving.basebackup_s3 import archive_script
from fixtures.drill.archiving.objects import upload_tree
from fixtures.providers.base import Site
from fixtures.providers.basebackup.backend import BaseBackupDirectory
from fixtures.settings import BaseBackupProvider, NewS3, ObjectPlace, ObjectUrl, S3Access
from tests.real.door import Door, door_to
from tests.real.lab import Lab
from tests.real.s3_double import Double
from tests.real.s3_server import BUCKET, KEY, READER, READER_SECRET, S3, SECRET, s3_server
from tests.real.session_tokens import SessionTokens


@dataclass(frozen=True, kw_only=True)
class BaseBackupS3Lab(Lab):
    """
    A place on S3; the store's folder is only a name.

    Attributes:
        s3: the server.
        door: what the provider reaches it through.
        form: of its backup: "tar" is two objects, "plain" is one per file.
    """

    s3: S3
    door: Door
    form: str = "tar"

    @classmethod
    @contextmanager
    def surroundings(cls, public_dir: Path) -> Iterator[Mapping[str, Any]]:
        """Run the server; what restores has credentials that can only read, and little patience."""
        with (
            s3_server(public_dir / "s3-basebackup") as made,
            door_to(made.port) as door,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setenv("AWS_ACCESS_KEY_ID", READER)
            patch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
            patch.setattr("fixtures.providers.local.feed.PATIENCE_S", 1.0)
            patch.setattr("fixtures.providers.basebackup.bucket.PATIENCE_S", 1.0)
            yield {"s3": made, "door": door}

    @property
    def script(self) -> Path:
        return self.home / f"archive-{self.place.name}.sh"

    @property
    def archive_command(self) -> str:
        return f"/bin/sh {self.script} %p %f"

    @property
    def places(self) -> tuple[Path, ...]:
        return ()

    @property
    def archive(self) -> str:
        return f"{self.place.name}/archive"

    @property
    def base_backups(self) -> str:
        return f"{self.place.name}/base"

    def make(self) -> None:
        self.script.write_text(archive_script(self.s3, self.archive))
        secret = self.script.with_name(f"{self.script.name}.env")
        secret.touch(mode=0o600)
        secret.write_text(f"AWS_ACCESS_KEY_ID={KEY}\nAWS_SECRET_ACCESS_KEY={SECRET}\n")
        self.server.binaries.own(secret)

    def back_up(self) -> None:
        self.take("full", "-F", self.form)

    def take(self, name: str, *options: str | Path) -> Path:
        """Take a base backup and upload it; return a copy of its manifest."""
        taken = self.home / f"taken-{name}"
        run(
            [
                self.server.binaries.tool("pg_basebackup"), "-h", self.server.sockets, "-p", str(self.server.port),
                "-U", "postgres", "-D", taken, "-c", "fast", "-X", "none", *options,
            ],
            timeout_s=60, user=self.server.binaries.user,
        )  # fmt: skip
        upload_tree(self.s3, taken, f"{self.base_backups}/{name}")
        kept = self.home / f"manifest-{name}"
        shutil.copy(taken / "backup_manifest", kept)
        self.server.binaries.own(kept)
        shutil.rmtree(taken)
        return kept

    def add_history(self, name: str, text: str) -> None:
        assert self.s3.change("PUT", f"{self.archive}/{name}", text.encode())

    def settings(self, **access: object) -> BaseBackupProvider:
        """Return the provider's settings; `access` replaces how the store is reached."""
        known: dict[str, object] = {"endpoint_url": self.address, "ca_file": self.s3.authority}
        return BaseBackupProvider(
            base_backups=ObjectUrl(BUCKET, self.base_backups),
            archive=ObjectUrl(BUCKET, self.archive),
            s3=S3Access.model_validate({**known, **access}),
        )

    @property
    def address(self) -> str:
        """The store's address, through the door."""
        return f"https://127.0.0.1:{self.door.port}"

    def new_place(self, folder: str, *, key: str = KEY, secret: str = SECRET) -> ObjectPlace:
        """Return a place for a commissioned server, with a credentials file that its user can read."""
        credentials = self.home / f"{key}.ini"
        if not credentials.exists():
            credentials.touch(mode=0o600)
            credentials.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key={secret}\n")
            self.server.binaries.own(credentials)
        access = NewS3(endpoint_url=self.address, ca_file=self.s3.authority, credentials=credentials)
        return ObjectPlace(ObjectUrl(BUCKET, folder), access)

    def provider(self, site: Site) -> BaseBackupDirectory:
        return BaseBackupDirectory(self.settings(), site)

    def clone(self, name: str) -> "BaseBackupS3Lab":
        for path in self.s3.walk(self.place.name):
            target = name + path.removeprefix(self.place.name)
            assert self.s3.change("POST", f"{target}?cp.from=/buckets/{BUCKET}/{path}")
        return replace(self, place=self.home / name)

    def lent(self, tokens: SessionTokens) -> "BaseBackupS3Lab":
        return replace(self, door=Entrance(tokens))

    def object(self, segment: str) -> str:
        return f"{self.archive}/{segment}"

    def lose(self, segment: str) -> None:
        assert self.s3.change("DELETE", self.object(segment))

    def cut(self, segment: str) -> None:
        self.rewrite(self.object(segment), lambda content: content[: len(content) // 2])

    def damage_backup(self) -> None:
        self.rewrite(f"{self.base_backups}/full/base.tar", flipped)

    def rewrite(self, path: str, change: Any) -> None:
        """Replace an object behind the store's back."""
        assert self.s3.change("PUT", path, change(self.s3.read(path)))

    def hide(self) -> None:
        self.door.shut()

    def show(self) -> None:
        self.door.open()


class Entrance(Door):
    """A double as what the provider reaches the store through."""

    def __init__(self, double: Double) -> None:
        super().__init__(double.s3.port)
        self.port = double.port


def flipped(content: bytes) -> bytes:
    """Change one byte in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
