"""
The shop: a small HTTP application of its own, its settlement worker, and its migration command.

    incident_app.py serve PORT ENV_FILE       takes DATABASE_URL and MAINTENANCE from the env file
    incident_app.py canary PORT               a dry run on DATABASE_URL of its environment
    incident_app.py settle ENV_FILE           settles open payments until it is ended
    incident_app.py migrate FOLDER            runs pending migrations on DATABASE_URL, Prisma's way
    incident_app.py order URL                 places one order as a customer would; 0 when it was taken

Nothing of this project is imported: production is somebody else's.
"""

import hashlib
import json
import os
import signal
import sys
import threading
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg

BUCKETS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 2.0, 5.0, 10.0)
SETTLE_EVERY_S = 0.1


class Metrics:
    """Requests and their durations, in Prometheus' text format."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.codes: dict[int, int] = {}
        self.slots = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0

    def observe(self, code: int, seconds: float) -> None:
        """Count one answer."""
        with self.guard:
            self.codes[code] = self.codes.get(code, 0) + 1
            self.slots[next((i for i, top in enumerate(BUCKETS_S) if seconds <= top), len(BUCKETS_S))] += 1
            self.seconds += seconds

    def render(self) -> str:
        """Return everything counted so far."""
        lines = ["# TYPE http_requests_total counter"]
        with self.guard:
            lines += [f'http_requests_total{{status="{code}"}} {n}' for code, n in sorted(self.codes.items())]
            lines.append("# TYPE http_request_duration_seconds histogram")
            total = 0
            for top, count in zip((*BUCKETS_S, "+Inf"), self.slots, strict=True):
                total += count
                lines.append(f'http_request_duration_seconds_bucket{{le="{top}"}} {total}')
            lines.append(f"http_request_duration_seconds_sum {self.seconds}")
            lines.append(f"http_request_duration_seconds_count {total}")
        return "\n".join(lines) + "\n"


def settings(env_file: Path) -> dict[str, str]:
    """Read the env file again: whoever changes it need not restart the shop."""
    lines = env_file.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


class Handler(BaseHTTPRequestHandler):
    """One request; a database session each, so that a new string acts at once."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    env_file: Path | None = None
    metrics = Metrics()

    def do_GET(self) -> None:
        """Answer probes, metrics and a customer's page."""
        if self.path == "/metrics":
            self._send(200, self.metrics.render(), "text/plain; version=0.0.4")
        elif self.path == "/up":
            self._timed(self._up)
        elif self.path.startswith("/customers/"):
            self._timed(lambda session: self._customer(session, int(self.path.rpartition("/")[2])))
        else:
            self._send(404, "{}")

    def do_POST(self) -> None:
        """Take an order."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self.path == "/orders":
            self._timed(lambda session: self._order(session, body), counted=True)
        else:
            self._send(404, "{}")

    def log_message(self, *_: object) -> None:
        """Keep no access log."""

    def _up(self, session: "psycopg.Connection[tuple[object, ...]]") -> dict[str, object]:
        session.execute("SELECT 1")
        return {"up": True}

    def _customer(self, session: "psycopg.Connection[tuple[object, ...]]", number: int) -> dict[str, object]:
        known = session.execute("SELECT count(*) FROM shop.customers WHERE id = %s", (number,)).fetchone()
        return {"known": bool(known and known[0])}

    def _order(
        self, session: "psycopg.Connection[tuple[object, ...]]", body: dict[str, object]
    ) -> dict[str, object]:
        with session.transaction(force_rollback=self.env_file is None):
            row = session.execute(
                "INSERT INTO shop.orders (customer_id, cents, key) VALUES (%s, %s, %s)"
                " ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING id",
                (body["customer"], body["cents"], body["key"]),
            ).fetchone()
            session.execute(
                "INSERT INTO shop.payments (order_id, cents) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (row and row[0], body["cents"]),
            )
        return {"accepted": True, "dry_run": self.env_file is None}

    def _timed(self, act, *, counted: bool = False) -> None:
        began = time.monotonic()
        code, answer = 200, {}
        if self.env_file is not None and settings(self.env_file).get("MAINTENANCE") == "on":
            code = 503
        else:
            dsn = (
                os.environ["DATABASE_URL"]
                if self.env_file is None
                else settings(self.env_file)["DATABASE_URL"]
            )
            try:
                with psycopg.connect(dsn, connect_timeout=3, autocommit=True) as session:
                    answer = act(session)
            except (psycopg.Error, OSError):
                code = 500
        if counted:
            self.metrics.observe(code, time.monotonic() - began)
        self._send(code, json.dumps(answer))

    def _send(self, code: int, text: str, kind: str = "application/json") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


class Server(ThreadingHTTPServer):
    """One thread per client."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


def settle(env_file: Path) -> None:
    """Settle one open payment after another; a database that refuses is asked again."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    while not ended.wait(SETTLE_EVERY_S):
        try:
            with psycopg.connect(settings(env_file)["DATABASE_URL"], connect_timeout=3) as session:
                session.execute(
                    "UPDATE shop.payments SET settled = true WHERE order_id = (SELECT order_id FROM shop.payments"
                    " WHERE NOT settled ORDER BY order_id LIMIT 1 FOR UPDATE SKIP LOCKED)"
                )
        except (psycopg.Error, OSError):
            ended.wait(SETTLE_EVERY_S)


def migrate(folder: Path) -> None:
    """Run what the ledger lacks, recorded as Prisma does."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        done = {
            row[0]
            for row in session.execute(
                "SELECT migration_name FROM shop._prisma_migrations WHERE finished_at IS NOT NULL"
            )
        }
        for file in sorted(folder.glob("*/migration.sql")):
            if file.parent.name in done:
                continue
            with session.transaction():
                session.execute(file.read_bytes())
                session.execute(
                    "INSERT INTO shop._prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count)"
                    " VALUES (%s, %s, %s, clock_timestamp(), 1)",
                    (str(uuid.uuid4()), hashlib.sha256(file.read_bytes()).hexdigest(), file.parent.name),
                )


def order(url: str) -> None:
    """Place an order of no worth; end with 1 when the shop refuses it."""
    body = json.dumps({"customer": 1, "cents": 0, "key": f"probe-{uuid.uuid4()}"}).encode()
    try:
        with urllib.request.urlopen(f"{url}/orders", data=body, timeout=5):  # noqa: S310 - its own address
            pass
    except OSError:
        sys.exit(1)


def main(arguments: list[str]) -> None:
    """Do what the first argument says."""
    match arguments:
        case ["serve", port, env_file]:
            Handler.env_file = Path(env_file)
            Server(("127.0.0.1", int(port)), Handler).serve_forever()
        case ["canary", port]:
            Server(("127.0.0.1", int(port)), Handler).serve_forever()
        case ["settle", env_file]:
            settle(Path(env_file))
        case ["migrate", folder]:
            migrate(Path(folder))
        case ["order", url]:
            order(url)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
