"""
A double in front of a real S3 server: it judges each request by rules of its own, then passes it on.

The server behind it judges signatures and keeps objects. What a double adds is said where it is made.
"""

import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

from fixtures.drill.s3 import S3


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An S3 error: its code and text, and what else stands in it."""

    code: str
    text: str = ""
    status: HTTPStatus = HTTPStatus.BAD_REQUEST
    more: str = ""

    def __str__(self) -> str:
        """`code: text`."""
        return f"{self.code}: {self.text}".removesuffix(": ")


class Double(ThreadingHTTPServer):
    """
    A double.

    Args:
        s3: the server behind it, whose certificate it shows.

    Attributes:
        port: its own, HTTPS.
        refused: why requests were refused.
        passed: method of every request that was passed on.
    """

    daemon_threads = True

    def __init__(self, s3: S3) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.s3 = s3
        self.port: int = self.server_address[1]
        self.refused: list[str] = []
        self.passed: list[str] = []
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.load_cert_chain(s3.authority, s3.authority.with_name("server.key"))
        self.socket = own.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.trust = ssl.create_default_context(cafile=str(s3.authority))

    @property
    def endpoint_url(self) -> str:
        """Its address."""
        return f"https://127.0.0.1:{self.port}"

    def verdict(self, method: str, path: str, headers: http.client.HTTPMessage) -> Refusal | None:
        """Return the error there is for a request; what it needs later is remembered."""
        raise NotImplementedError

    def passed_on(
        self, method: str, path: str, headers: list[tuple[str, str]]  # noqa: ARG002 - for those that change some
    ) -> list[tuple[str, str]]:  # fmt: skip
        """Return the headers that the server behind it gets."""
        return headers


class _Handler(BaseHTTPRequestHandler):
    server: Double
    protocol_version = "HTTP/1.1"  # with an older one no client is told to go on with its body

    def _serve(self) -> None:
        body = self._body()
        refusal = self.server.verdict(self.command, self.path, self.headers)
        if refusal is not None:
            self.server.refused.append(str(refusal))
            content = (
                f"<Error><Code>{refusal.code}</Code><Message>{refusal.text}</Message>{refusal.more}</Error>"
            ).encode()
            self._answer(refusal.status, [("Content-Type", "application/xml")], content)
            return
        self.server.passed.append(self.command)
        inside = http.client.HTTPSConnection("127.0.0.1", self.server.s3.port, context=self.server.trust)
        try:
            inside.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.server.passed_on(self.command, self.path, self.headers.items()):
                if name.lower() not in {"expect", "connection"}:
                    inside.putheader(name, value)
            inside.endheaders(body)
            answer = inside.getresponse()
            self._answer(answer.status, answer.getheaders(), answer.read())
        finally:
            inside.close()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailing headers
        return content

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - the base class asks for these names

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in headers:
            if name.lower() not in {"transfer-encoding", "content-length", "connection", "date", "server"}:
                self.send_header(name, value)
        known = {name.lower(): value for name, value in headers}.get("content-length")
        self.send_header("Content-Length", known if self.command == "HEAD" and known else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


_Made = TypeVar("_Made", bound=Double)


@contextmanager
def running(double: _Made) -> Iterator[_Made]:
    """Run a double; ended behind it."""
    with double:
        thread = threading.Thread(target=double.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield double
        finally:
            double.shutdown()
            thread.join()
