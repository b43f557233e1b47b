"""Servers for tests: in a thread of this process, or as the command that people run."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2 as httpx
import numpy as np

import tiny
from distilrank.engines.batches import Encoded
from distilrank.serving import ServeSettings
from distilrank.serving.app import create_app
from distilrank.serving.engine import Engine, open_engine
from distilrank.serving.limits import State
from distilrank.serving.run import IDLE, _config, _Server, _socket, _url

PATIENCE = float(os.environ.get("DISTILRANK_PATIENCE", "120"))
"""Seconds for a server to load, stop or answer: on a machine that does much else it may need more."""


def stand_in(score: Callable[[Encoded], np.ndarray] | None = None, batch_tokens: int = 256) -> Engine:
    """An engine whose logit of a row is its last token but one: what comes back can be told by the text."""

    def last(encoded: Encoded) -> np.ndarray:
        return np.array([row[-2] for row in encoded["input_ids"]], dtype=np.float32)

    return Engine("stand-in", score or last, tiny.words_tokenizer(), {"0": "LABEL_0"}, "float32", batch_tokens)


@contextmanager
def running(served: Engine | Path, /, **settings: Any) -> Iterator[httpx.Client]:
    """A client of a server in a thread of this process; `client.base_url` is where it is."""
    with running_server(served, **settings) as (client, _):
        yield client


@contextmanager
def running_server(
    served: Engine | Path, /, key: str | None = None, writing: float | None = None, idle: float = IDLE, **settings: Any
) -> Iterator[tuple[httpx.Client, _Server]]:
    """The same with the server; `writing` is how long an answer may wait to be taken, `idle` how long nobody may speak."""
    asked = ServeSettings(**{"dtype": "float32", "device": "cpu", "max_length": 64, **settings})
    engine = open_engine(served, asked) if isinstance(served, Path) else served
    listening, state = _socket("127.0.0.1", 0), State()
    app = create_app(engine, asked, key=key, state=state)
    server = _Server(_config(app, asked.read_timeout, writing or asked.timeout, idle), state, asked.drain)
    thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    with httpx.Client(base_url=_url(listening), timeout=PATIENCE) as client:
        for _ in range(1_200):
            if server.started:
                break
            assert thread.is_alive()
            time.sleep(0.05)
        client.get("/health")
        yield client, server
    server.should_exit = True
    thread.join(PATIENCE)
    assert not thread.is_alive()


class Process:
    """`distilrank serve` as a process of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        more = {"OMP_NUM_THREADS": "1", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "distilrank", "serve", *arguments],
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env={**os.environ, **more},
        )  # fmt: skip
        self.told = ""

    def url(self) -> str:
        """Where it serves, once it does."""
        assert self.process.stderr is not None
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if select.select([self.process.stderr], [], [], 1.0)[0]:
                line = self.process.stderr.readline().decode()
                self.told += line
                if found := re.search(r"serving .* at (http://\S+)", line):
                    return found[1]
                if not line:
                    break
        raise AssertionError(f"it does not serve: {self.told}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        out, err = self.process.communicate(timeout=PATIENCE)
        self.told += out.decode() + err.decode()
        return self.process.returncode

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def raw(client: httpx.Client) -> socket.socket:
    """A bare connection to a client's server."""
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=PATIENCE)


def post(path: str, body: bytes | dict[str, Any], length: int | None = None) -> bytes:
    """The bytes of a request; `length` is claimed in place of the body's own."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = (f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {length or len(data)}")
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode() + data


def metric(client: httpx.Client, line: str) -> float:
    """The value of one line of /metrics; 0 where it is not there."""
    found = re.search(rf"^{re.escape(line)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(2_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to be so")
