"""
The lab of the provider `walg`: real base backups and segments of a real server, behind a simulator of WAL-G.

No WAL-G is installed where this project is made, so its commands are simulated (tests/real/walg_simulator.sh,
from its documented contract); everything they hand out is real.
"""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fixtures.command import run
from fixtures.postgres.lsn import Lsn, segment_name
from fixtures.postgres.session import connect
from fixtures.providers.base import Site
from fixtures.providers.walg.backend import WalG
from fixtures.settings import WalGProvider
from tests.real.lab import Lab, flip

SIMULATOR = Path(__file__).with_name("walg_simulator.sh")


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
        shutil.copy(SIMULATOR, self.program)
        self.program.chmod(0o755)
        for folder in (self.place, self.backups, self.log):
            folder.mkdir()
            self.server.binaries.own(folder)
        self._write_config()

    def back_up(self) -> None:
        """Take a real base backup, and keep it as WAL-G would: a tar archive, its record, its details."""
        taken = self.home / "taken"
        run(
            [
                self.server.binaries.tool("pg_basebackup"), "-h", self.server.sockets, "-p", str(self.server.port),
                "-U", "postgres", "-D", taken, "-c", "fast", "-X", "none", "--no-manifest",
            ],
            timeout_s=60, user=self.server.binaries.user,
        )  # fmt: skip
        with connect(self.server.endpoint) as session:
            stop = Lsn.parse(session.value("SELECT pg_current_wal_insert_lsn()"))
            identifier = int(session.value("SELECT system_identifier FROM pg_control_system()"))
            version = int(session.value("SELECT current_setting('server_version_num')"))
        label = dict(line.partition(": ")[::2] for line in (taken / "backup_label").read_text().splitlines())
        start = Lsn.parse(label["START WAL LOCATION"].partition(" ")[0])
        begins = segment_name(1, start.segment())
        name = f"base_{begins}"
        parts = self.backups / name / "tar_partitions"
        parts.mkdir(parents=True)
        run(["tar", "-czf", parts / "part_001.tar.gz", "-C", taken, "."], timeout_s=60)
        size = sum(path.stat().st_size for path in taken.rglob("*") if path.is_file())
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        common: dict[str, Any] = {"pg_version": version, "system_identifier": identifier}
        self._write(
            f"{name}_backup_stop_sentinel.json",
            {
                "LSN": start.value, "FinishLSN": stop.value, "PgVersion": version,
                "SystemIdentifier": identifier, "UncompressedSize": size,
                "Spec": {"base_prefix": str(self.server.data), "tablespaces": []},
            },
        )  # fmt: skip
        self._write(
            f"{name}.detail.json",
            {
                "backup_name": name, "time": now, "wal_file_name": begins, "storage_name": "default",
                "start_time": now, "finish_time": now, "date_fmt": "%Y-%m-%dT%H:%M:%S.%fZ",
                "hostname": "production", "data_dir": str(self.server.data), "is_permanent": False,
                "start_lsn": start.value, "finish_lsn": stop.value, "uncompressed_size": size,
                "compressed_size": (parts / "part_001.tar.gz").stat().st_size, **common,
            },
        )  # fmt: skip
        shutil.rmtree(taken)

    def segment(self, name: str) -> Path:
        return self.log / f"{name}.gz"

    def add_history(self, name: str, text: str) -> None:
        (self.log / name).write_text(text)

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

    def _write(self, name: str, content: dict[str, Any]) -> None:
        (self.backups / name).write_text(json.dumps(content))

    def _write_config(self) -> None:
        self.config.write_text(json.dumps({"WALG_FILE_PREFIX": str(self.place)}))
        self.config.chmod(0o644)
