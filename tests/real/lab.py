"""What every lab of a restore provider has: a store that production archives into, and ways to harm it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fixtures.command import run
from fixtures.postgres.server import Server
from fixtures.providers.base import Provider, Site, Target, TargetKind
from tests.real.session_tokens import Issued, SessionTokens


@dataclass(frozen=True, kw_only=True)
class Lab:
    """
    A store that production archives into.

    Attributes:
        home: folder of everything.
        server: production.
        place: the store's own folder.
    """

    home: Path
    server: Server
    place: Path

    @classmethod
    @contextmanager
    def surroundings(cls, public_dir: Path) -> Iterator[Mapping[str, Any]]:  # noqa: ARG003 - for those that need some
        """Provide what the store stands on, as fields of the lab; ended behind it."""
        yield {}

    @property
    def archive_command(self) -> str:
        """Production's archive_command."""
        raise NotImplementedError

    @property
    def places(self) -> tuple[Path, ...]:
        """Folders of the store that no copy may be restored into, and no new archive may be in."""
        return (self.place,)

    def make(self) -> None:
        """Make the store's folders, before production starts."""
        raise NotImplementedError

    def end(self) -> None:
        """End what `make` started besides production."""

    def prepare(self) -> None:
        """Make the store ready for a running production."""

    def back_up(self) -> None:
        """Take a base backup."""
        raise NotImplementedError

    #: whether its copies are production's own files and log; claims about a log are not asked of others
    physical: ClassVar[bool] = True

    def approach(self) -> None:
        """Do what such a store does right before the damage."""

    def last_good(self, damage_xid: int) -> Target:
        """Return the target right before the damaging transaction."""
        return Target(kind=TargetKind.XID, value=str(damage_xid), exclusive=True)

    def segment(self, name: str) -> Path:
        """Return the file that holds a segment."""
        raise NotImplementedError

    def provider(self, site: Site) -> Provider:
        """Return the provider over this store."""
        raise NotImplementedError

    def clone(self, name: str) -> "Lab":
        """Copy the store, for a test that harms it."""
        place = self.home / name
        run(["cp", "-a", self.place, place], timeout_s=60)
        return replace(self, place=place)

    def lose(self, segment: str) -> None:
        """Remove a segment."""
        self.segment(segment).unlink()

    def cut(self, segment: str) -> None:
        """Cut a segment off in the middle."""
        path = self.segment(segment)
        os.truncate(path, path.stat().st_size // 2)

    def hide(self) -> None:
        """Make the store unreachable, as an unmounted file system is: an empty folder stays."""
        self.place.rename(self.place.with_name(f"{self.place.name}.hidden"))
        self.place.mkdir()

    def show(self) -> None:
        """Make it reachable again."""
        self.place.rmdir()
        self.place.with_name(f"{self.place.name}.hidden").rename(self.place)

    def lent(self, tokens: SessionTokens) -> "Lab":
        """Return the same store, reached through a double that knows temporary credentials."""
        raise NotImplementedError

    def use(self, issued: Issued, patch: pytest.MonkeyPatch) -> None:
        """Have what restores find these credentials, where its own are."""
        for name, value in issued.variables.items():
            patch.setenv(name, value)

    def object(self, segment: str) -> str:
        """Return the object that holds a segment, in a bucket."""
        raise NotImplementedError

    def add_history(self, name: str, text: str) -> None:
        """Put a timeline's history file into the archive."""
        raise NotImplementedError

    def damage_backup(self) -> None:
        """Flip bytes inside the backup."""
        raise NotImplementedError


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0xFF]))
