"""A stand-in for an OpenAI-compatible endpoint on this machine, which answers by a rule and may first do something else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep
from typing import Any

Planned = tuple[int, dict[str, str], str] | float | None
"""Status, headers and body; or seconds of silence; or none to hang up."""


def first_words(body: dict[str, Any], most: int = 6) -> str:
    """A query out of the passage's own words: the last message, without its frame."""
    asked = body["messages"][-1]["content"].removeprefix("Passage: ").removesuffix("\n\nSearch query:")
    return " ".join(asked.split()[-most:])


class ChatServer(ThreadingHTTPServer):
    """`first` is answered before anything else; `asked` holds (path, body, headers) of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.first: list[Planned] = []
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.rule: Callable[[dict[str, Any]], str | None] = first_words

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that no longer listens is part of the tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, dict(self.headers)))
        planned: Planned = self.server.first.pop(0) if self.server.first else self._answer(body)
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

    def _answer(self, body: dict[str, Any]) -> Planned:
        message = {"role": "assistant", "content": self.server.rule(body)}
        answer = {"id": "1", "object": "chat.completion", "model": body["model"]}
        return 200, {}, json.dumps(answer | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """A running server."""
    with ChatServer() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
