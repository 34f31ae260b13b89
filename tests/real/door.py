"""A door before a server of this machine: what goes through is passed on, until it is shut."""

import contextlib
import selectors
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fixtures.postgres.server import free_port

#: bytes passed on at a time
CHUNK = 65_536


class Door:
    """
    A TCP relay.

    Args:
        behind: port of the server.

    Attributes:
        port: its own.
    """

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self.port = free_port()
        self.passing: set[socket.socket] = set()
        self._relay: _Relay | None = None

    def open(self) -> None:
        """Let through; quiet when it does already."""
        if self._relay is None:
            self._relay = _Relay(self)
            self._relay.thread.start()

    def shut(self) -> None:
        """Refuse what comes, and cut off what is passing."""
        if self._relay is not None:
            self._relay.shutdown()
            self._relay.server_close()
            for passing in list(self.passing):
                with contextlib.suppress(OSError):
                    passing.shutdown(socket.SHUT_RDWR)
            self._relay.thread.join()
            self._relay = None


class _Relay(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, door: Door) -> None:
        self.door = door
        super().__init__(("127.0.0.1", door.port), _Handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        door = self.server.door  # type: ignore[attr-defined]
        try:
            inside = socket.create_connection(("127.0.0.1", door.behind))
        except OSError:
            return
        other = {self.request: inside, inside: self.request}
        door.passing |= set(other)
        try:
            with inside, selectors.DefaultSelector() as ready:
                for each in other:
                    ready.register(each, selectors.EVENT_READ)
                while True:
                    for key, _ in ready.select():
                        content = key.fileobj.recv(CHUNK)
                        if not content:
                            return
                        other[key.fileobj].sendall(content)
        except OSError:
            return  # one side is gone
        finally:
            door.passing -= set(other)


@contextmanager
def door_to(port: int) -> Iterator[Door]:
    """Open one; shut behind it."""
    door = Door(port)
    door.open()
    try:
        yield door
    finally:
        door.shut()
