"""The outside probe, and the write that must be refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from fixtures.app.probe import served, write_refused
from fixtures.errors import StepError, ToolError
from fixtures.postgres.server import free_port


@contextmanager
def site(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve every GET with `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


@pytest.mark.parametrize(
    ("code", "is_served", "maintenance"),
    [(200, True, False), (204, True, False), (503, False, True), (500, False, False), (404, False, False)],
)
def test_the_status_tells_who_is_served(code: int, is_served: bool, maintenance: bool) -> None:
    """2xx serves, 503 is maintenance, everything else is neither."""
    with site(status(code)) as url:
        result = served(url)

    assert (result.status, result.served, result.maintenance) == (code, is_served, maintenance)
    assert result.at.utcoffset() is not None


def test_a_redirect_is_not_followed() -> None:
    """A redirect to a status page must not look like service."""
    with site(status(200)) as good, site(status(302, Location=good)) as url:
        result = served(url)

    assert (result.status, result.served) == (302, False)


def test_nothing_there_is_an_answer_too() -> None:
    """A refused connection is told, not raised."""
    result = served(f"http://127.0.0.1:{free_port()}/")

    assert (result.status, result.served, result.maintenance) == (None, False, False)
    assert result.reason.startswith("ConnectError")


def test_a_write_probe_that_fails_was_refused_and_one_that_works_was_not() -> None:
    """Non-zero means refused."""
    assert write_refused(["false"]) is True
    assert write_refused(["true"]) is False


@pytest.mark.parametrize(
    "argv", [["sh", "-c", "no-such-tool"], ["sh", "-c", "kill -9 $$"]], ids=["127", "killed"]
)
def test_a_probe_that_did_not_run_refuses_nothing(argv: list[str]) -> None:
    """A broken probe is never a proof."""
    with pytest.raises(StepError) as caught:
        write_refused(argv)

    assert caught.value.code == "RB403"


def test_a_probe_that_cannot_be_started_raises() -> None:
    """A missing program is RB109."""
    with pytest.raises(ToolError) as caught:
        write_refused(["/no/such/program"])

    assert caught.value.code == "RB109"
