"""A folder of dump sets."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fixtures.command import CommandResult, run
from fixtures.postgres.server import Server
from fixtures.providers.base import Site, Target, TargetKind
from fixtures.providers.dump.backend import DumpSets
from fixtures.settings import DumpProvider
from tests.real.lab import Lab, flip

SCRIPT = Path(__file__).parents[2] / "fixtures" / "providers" / "dump" / "dump-set.sh"


def take_set(server: Server, folder: Path, *databases: str, check: bool = True, **env: str) -> CommandResult:
    """Take a set with the script that teams use."""
    return run(
        ["sh", SCRIPT, folder, *databases],
        timeout_s=120,
        env={
            "PGHOST": str(server.sockets), "PGPORT": str(server.port), "PGUSER": server.superuser,
            "DUMP_PROGRAMS": str(server.binaries.bin_dir), **env,
        },
        check=check,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DumpLab(Lab):
    """Sets of dumps; production archives nothing."""

    physical: ClassVar[bool] = False

    @property
    def archive_command(self) -> str:
        return f"test -d {self.place}"

    def make(self) -> None:
        self.place.mkdir()

    def back_up(self) -> None:
        take_set(self.server, self.place, "postgres")

    def approach(self) -> None:
        take_set(self.server, self.place, "postgres")

    @property
    def newest(self) -> Path:
        """The newest set's folder."""
        return max(path for path in self.place.iterdir() if (path / "set.json").is_file())

    def last_good(self, damage_xid: int) -> Target:  # noqa: ARG002 - a set is named by its folder
        return Target(kind=TargetKind.SNAPSHOT, value=self.newest.name)

    def provider(self, site: Site) -> DumpSets:
        return DumpSets(DumpProvider(location=self.place, jobs=2), site)

    def damage_backup(self) -> None:
        flip(max(self.newest.rglob("*.dat.gz"), key=lambda path: path.stat().st_size))

    def cut(self, segment: str) -> None:
        """Cut a file of the newest set off in the middle."""
        path = self.newest / segment
        os.truncate(path, path.stat().st_size // 2)
