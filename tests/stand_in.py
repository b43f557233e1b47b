"""A stand-in for a server that is asked in JSON, on this machine; it may first do something else than answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep
from typing import Any, TypeVar

Planned = tuple[int, dict[str, str], str] | float | None
"""Status, headers and body; or seconds of silence; or none to hang up."""


class StandIn(ThreadingHTTPServer):
    """`first` is answered before anything else; `asked` holds (path, body, headers) of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reset()

    def reset(self) -> None:
        self.first: list[Planned] = []
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []

    def answer(self, body: dict[str, Any]) -> Planned:
        raise NotImplementedError

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that no longer listens is part of the tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, dict(self.headers)))
        planned = self.server.first.pop(0) if self.server.first else self.server.answer(body)
        if planned is None or isinstance(planned, float):
            sleep(planned or 0)
            self.close_connection = True
            return
        status, headers, text = planned
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(text.encode()))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


S = TypeVar("S", bound=StandIn)


@contextmanager
def served(server: S) -> Iterator[S]:
    """The server while it runs."""
    with server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def answering(handler: type[BaseHTTPRequestHandler], hub: Any) -> Iterator[None]:
    """A server of such handlers, each of which has the hub; its address becomes the hub's `url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"hub": hub}))
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
