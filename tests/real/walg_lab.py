"""
The lab of the provider `walg`: real base backups and segments of a real server, behind a simulator of WAL-G.

No WAL-G is installed where this project is made, so its commands are simulated (fixtures/drill/walg_simulator.sh,
from its documented contract); everything they hand out is real.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

from fixtures.command import run
from fixtures.drill.archiving.walg import install_simulator
from fixtures.providers.base import Site
from fixtures.providers.walg.backend import WalG
from fixtures.settings import WalGProvider
from tests.real.lab import Lab, flip


@dataclass(frozen=True, kw_only=True)
class WalGLab(Lab):
    """A storage in a folder, in WAL-G's layout."""

    @property
    def config(self) -> Path:
        return self.place.with_name(f"{self.place.name}.walg.json")

    @property
    def program(self) -> Path:
        """The simulator, where the server's user can run it."""
        return self.home / "wal-g"

    @property
    def archive_command(self) -> str:
        return f"{self.program} wal-push %p --config={self.config}"

    @property
    def backups(self) -> Path:
        return self.place / "basebackups_005"

    @property
    def log(self) -> Path:
        return self.place / "wal_005"

    def make(self) -> None:
        install_simulator(self.program, self.server.binaries)
        for folder in (self.place, self.backups, self.log):
            folder.mkdir()
            self.server.binaries.own(folder)
        self._write_config()

    def back_up(self) -> None:
        """Take a real base backup."""
        server = self.server
        run(
            [self.program, "backup-push", server.data, "--full", f"--config={self.config}"], timeout_s=60,
            user=server.binaries.user,
            env={"PGHOST": str(server.sockets), "PGPORT": str(server.port), "PGUSER": server.superuser},
        )  # fmt: skip

    def segment(self, name: str) -> Path:
        return self.log / f"{name}.gz"

    def add_history(self, name: str, text: str) -> None:
        (self.log / f"{name}.gz").write_bytes(gzip.compress(text.encode()))

    def damage_backup(self) -> None:
        (archive,) = self.backups.glob("base_*/tar_partitions/part_001.tar.gz")
        flip(archive)

    def provider(self, site: Site) -> WalG:
        return WalG(WalGProvider(program=str(self.program), config=self.config), site)

    def clone(self, name: str) -> "WalGLab":
        made = super().clone(name)
        assert isinstance(made, WalGLab)
        made._write_config()
        return made

    def record(self, **changes: object) -> str:
        """Change the backup's own record; return the backup's name."""
        (path,) = self.backups.glob("*_backup_stop_sentinel.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return path.name.removesuffix("_backup_stop_sentinel.json")

    def _write_config(self) -> None:
        self.config.write_text(json.dumps({"WALG_FILE_PREFIX": str(self.place)}))
        self.config.chmod(0o644)
