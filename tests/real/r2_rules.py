"""
A double of Cloudflare R2's rules for requests, in front of a real S3 server; it is not R2.

The server behind it judges signatures and keeps objects. The double adds what R2 documents and no server
that runs here enforces: the region, no checksums beyond S3's first ones, and parts of one size; it notes
which keys are written, since R2 takes one write per second to each. Its error texts are its own, but for
the one about parts. It is stricter than R2 says it is: any header about checksums is refused, also the one
a client asks for them with.
"""

import http.client
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from fixtures.drill.s3 import S3

REGIONS = frozenset({"auto", "us-east-1", ""})
SMALLEST_PART = 5 * 1024 * 1024
_REFUSED_HEADER = re.compile(r"x-amz-(sdk-checksum-algorithm|checksum-.*|trailer)")
_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/(?P<region>[^/]*)/s3/")


class R2Rules(ThreadingHTTPServer):
    """
    The double.

    Args:
        s3: the server behind it, whose certificate it shows.

    Attributes:
        port: its own, HTTPS.
        refused: why requests were refused.
        passed: method of every request that was passed on.
        written: path of every object that was written in one piece.
    """

    def __init__(self, s3: S3) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.s3 = s3
        self.port: int = self.server_address[1]
        self.refused: list[str] = []
        self.passed: list[str] = []
        self.parts: dict[str, dict[int, int]] = {}
        self.written: list[str] = []
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.load_cert_chain(s3.authority, s3.authority.with_name("server.key"))
        self.socket = own.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.trust = ssl.create_default_context(cafile=str(s3.authority))

    def verdict(self, method: str, path: str, headers: http.client.HTTPMessage) -> str:
        """Return the error R2 has for a request, "" for none; what it needs later is remembered."""
        named = [name for name in headers if _REFUSED_HEADER.fullmatch(name.lower())]
        if named or headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            return f"NotImplemented: {', '.join(named) or 'streaming payload'}"
        scope = _SCOPE.search(headers.get("Authorization", ""))
        if scope and scope["region"] not in REGIONS:
            return f"InvalidRegionName: {scope['region']}"
        address = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        upload = query.get("uploadId", "")
        if method == "PUT" and upload:
            size = int(headers.get("Content-Length", "0"))
            self.parts.setdefault(upload, {})[int(query["partNumber"])] = size
        elif method == "PUT":
            self.written.append(address.path)
        elif method == "POST" and upload:
            sizes = [size for _, size in sorted(self.parts.get(upload, {}).items())]
            if len(set(sizes[:-1])) > 1:
                return "InvalidPart: All non-trailing parts must have the same length."
            if any(size < SMALLEST_PART for size in sizes[:-1]):
                return "EntityTooSmall: a part is too small"
        return ""


class _Handler(BaseHTTPRequestHandler):
    server: R2Rules
    protocol_version = "HTTP/1.1"  # with an older one no client is told to go on with its body

    def _serve(self) -> None:
        body = self._body()
        error = self.server.verdict(self.command, self.path, self.headers)
        if error:
            self.server.refused.append(error)
            code, _, text = error.partition(": ")
            content = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
            self._answer(HTTPStatus.BAD_REQUEST, [("Content-Type", "application/xml")], content)
            return
        self.server.passed.append(self.command)
        inside = http.client.HTTPSConnection("127.0.0.1", self.server.s3.port, context=self.server.trust)
        try:
            inside.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
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


@contextmanager
def r2_rules(s3: S3) -> Iterator[R2Rules]:
    """Run the double in front of a server; ended behind it."""
    with R2Rules(s3) as double:
        thread = threading.Thread(target=double.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield double
        finally:
            double.shutdown()
            thread.join()
