"""A bucket that Barman's cloud programs fill for a small production."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fixtures.command import JobRef, end_job, find_tool, run
from fixtures.drill.record import remove_outside
from fixtures.drill.s3 import BUCKET, S3, Identity, begin_s3, load_s3
from fixtures.providers.barman.backend import BarmanCloud
from fixtures.providers.base import Site
from fixtures.settings import BarmanCloudProvider, ObjectUrl, S3Access
from tests.real.lab import Lab
from tests.real.session_tokens import SessionTokens

SERVER = "demo"
WRITER = Identity(key="lab-writer", secret="lab-writer-secret-0123")
READER = Identity(key="lab-reader", secret="lab-reader-secret-0123")


@dataclass(frozen=True, kw_only=True)
class BarmanCloudLab(Lab):
    """
    Packed archives and segments on a real S3 server, which the provider may only read.

    Attributes:
        jobs: the server's.
        patch: what this lab puts into the environment.
        address: what the provider reaches the server by, "" for the server's own.
    """

    jobs: list[JobRef] = field(default_factory=list)
    patch: pytest.MonkeyPatch = field(default_factory=pytest.MonkeyPatch)
    address: str = ""

    @property
    def s3(self) -> S3:
        return load_s3(self.home / "s3")

    @property
    def url(self) -> ObjectUrl:
        return ObjectUrl(BUCKET, self.place.name)

    @property
    def access(self) -> S3Access:
        return S3Access(endpoint_url=self.address or self.s3.endpoint_url, ca_file=self.s3.authority)

    @property
    def options(self) -> str:
        return f"--endpoint-url {self.s3.endpoint_url} --addressing-style path"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_SHARED_CREDENTIALS_FILE": str(self.home / "writer.ini"),
            "AWS_CA_BUNDLE": str(self.s3.authority),
            "AWS_DEFAULT_REGION": "auto",
        }

    @property
    def archive_command(self) -> str:
        words = " ".join(f"{name}={value}" for name, value in self.environment.items())
        program = find_tool("barman-cloud-wal-archive")
        return f"env {words} {program} {self.options} --gzip {self.url} {SERVER} %p"

    @property
    def places(self) -> tuple[Path, ...]:
        return (self.server.data,)

    def make(self) -> None:
        def start(begin: Callable[[], JobRef]) -> JobRef:
            self.jobs.append(begin())
            return self.jobs[-1]

        begin_s3(self.home / "s3", start=start, writer=WRITER, reader=READER)
        for name, who in (("writer", WRITER), ("reader", READER)):
            file = self.home / f"{name}.ini"
            file.touch(mode=0o600)
            file.write_text(
                f"[default]\naws_access_key_id = {who.key}\naws_secret_access_key = {who.secret}\n"
            )
        self.server.binaries.own(self.home / "writer.ini")
        self.patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(self.home / "reader.ini"))

    def end(self) -> None:
        self.patch.undo()
        for job in self.jobs:
            end_job(job)
        remove_outside(self.home / "s3")

    def back_up(self) -> None:
        server = self.server
        run(
            [
                find_tool("barman-cloud-backup"), *self.options.split(), "--gzip", "--immediate-checkpoint",
                "-h", server.sockets, "-p", str(server.port), "-U", "postgres", str(self.url), SERVER,
            ],
            timeout_s=180, user=server.binaries.user, env=self.environment,
        )  # fmt: skip

    def lent(self, tokens: SessionTokens) -> "BarmanCloudLab":
        return replace(self, address=tokens.endpoint_url)

    def object(self, segment: str) -> str:
        return f"{self.place.name}/{SERVER}/wals/{segment[:16]}/{segment}.gz"

    def provider(self, site: Site) -> BarmanCloud:
        return BarmanCloud(BarmanCloudProvider(url=self.url, server=SERVER, s3=self.access), site)

    def clone(self, name: str) -> "BarmanCloudLab":
        for path in self.s3.walk(self.place.name):
            below = path.removeprefix(f"{self.place.name}/")
            assert self.s3.change("PUT", f"{name}/{below}", self.s3.read(path))
        return BarmanCloudLab(home=self.home, server=self.server, place=self.home / name)

    def lose(self, segment: str) -> None:
        assert self.s3.change("DELETE", self.object(segment))

    def cut(self, segment: str) -> None:
        content = self.s3.read(self.object(segment))
        assert self.s3.change("PUT", self.object(segment), content[: len(content) // 2])

    def hide(self) -> None:
        self._move(self.place.name, f"{self.place.name}-hidden")

    def show(self) -> None:
        self._move(f"{self.place.name}-hidden", self.place.name)

    def add_history(self, name: str, text: str) -> None:
        assert self.s3.change("PUT", f"{self.place.name}/{SERVER}/wals/{name}", text.encode())

    def damage_backup(self) -> None:
        (path,) = [path for path in self.s3.walk(f"{self.place.name}/{SERVER}/base") if ".tar" in path]
        content = bytearray(self.s3.read(path))
        content[len(content) // 2] ^= 0xFF
        assert self.s3.change("PUT", path, bytes(content))

    def _move(self, old: str, new: str) -> None:
        assert self.s3.change("POST", f"{new}?mv.from=/buckets/{BUCKET}/{old}")
