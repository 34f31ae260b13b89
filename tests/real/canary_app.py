"""A stamp-card application in miniature, with the faults a canary must find."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg

FAULT = os.environ.get("FAULT", "")


class Handler(BaseHTTPRequestHandler):
    """Serve /healthz, /users and /claim; a dry run rolls its write back."""

    def do_GET(self) -> None:
        """Answer a read."""
        if self.path == "/healthz":
            self._answer(503 if FAULT == "unhealthy" else 200, {})
            return
        with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
            count = connection.execute("SELECT count(*) FROM public.users").fetchone()
        self._answer(200, {"users": count[0], "mail": "bob@example.com"})

    def do_POST(self) -> None:
        """Claim a stamp."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if FAULT == "dies":
            os._exit(3)
        with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
            connection.execute("INSERT INTO public.stamps (user_id) VALUES (%s)", (body["user"],))
            if self.headers.get("X-Dry-Run") == "1" and FAULT != "commits":
                connection.rollback()
            if FAULT == "elsewhere":
                connection.execute("INSERT INTO public.audit VALUES (1)")
        self._answer(500 if FAULT == "breaks" else 200, {"claimed": True})

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def _answer(self, status: int, body: dict[str, object]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


if __name__ == "__main__":
    if FAULT == "will not start":
        sys.exit("cannot reach postgresql://app:some-password@db/shop")
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
