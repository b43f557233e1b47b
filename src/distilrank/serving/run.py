"""Running the server: its socket, its patience with slow clients, and its end on SIGTERM."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from pathlib import Path
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from distilrank.errors import UserError
from distilrank.progress import say
from distilrank.serving.app import create_app
from distilrank.serving.engine import open_engine
from distilrank.serving.limits import State
from distilrank.serving.settings import ServeSettings

MOST_CONNECTIONS = 2_048
"""Beyond them uvicorn answers 503."""
IDLE = 75.0
"""Seconds that a connection is kept on which nothing is sent, before the first request and between two. Longer than clients
keep theirs (httpx 5, load balancers 60): whoever hangs up may do so just as the other one sends, and that request is lost.
"""


def serve(folder: Path, settings: ServeSettings, *, key_variable: str | None = None) -> None:
    """Serve a model folder until SIGTERM or control-C: then what is being answered is answered, and the rest gets 503.

    `key_variable` names the environment variable that holds the bearer token. Raises `UserError` when the model does not
    load, the address cannot be had or there is no key.
    """
    key = _key(key_variable)
    listening = _socket(settings.host, settings.port)  # before the model is loaded: a port in use is told at once
    say(f"loading {folder.resolve().name} ({settings.engine})")
    engine, state = open_engine(folder, settings), State()
    config = _config(create_app(engine, settings, key=key, state=state), settings.read_timeout, settings.timeout)
    server = _Server(config, state, settings.drain)
    server.told = f"serving {engine.name} ({settings.engine}, {engine.dtype}) at {_url(listening)}"
    server.run(sockets=[listening])
    if not server.started:
        raise UserError("the model does not answer: see above")
    say("stopped")


class _Server(uvicorn.Server):
    """On the first signal new requests get 503 while the others are answered; on the second it stops at once."""

    told = ""

    def __init__(self, config: uvicorn.Config, state: State, drain: float) -> None:
        super().__init__(config)
        self.state, self.drain, self.until = state, drain, 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            say(self.told)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.state.draining:
            self.should_exit = self.force_exit = True
        self.state.draining, self.until = True, time.monotonic() + self.drain

    async def on_tick(self, counter: int) -> bool:
        over = self.state.draining and (not self.state.in_flight or time.monotonic() > self.until)
        return bool(await super().on_tick(counter) or over)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # What is left of the time to drain is for answers on their way; uvicorn would begin to wait anew.
        self.config.timeout_graceful_shutdown = max(1, round(self.until - time.monotonic()))
        await super().shutdown(sockets)


def _config(app: Any, reading: float, writing: float, idle: float = IDLE) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_patient(reading, writing, idle),
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="error",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=round(idle),
    )


def _patient(reading: float, writing: float, idle: float) -> type[H11Protocol]:
    """uvicorn's protocol with an end to waiting for a first byte, for the rest of a request's headers, and for a client
    that does not take its answer.

    uvicorn has none of these: a connection that stands still would hold its memory for ever.
    """

    class Patient(H11Protocol):
        _silence: Any = None
        _headers: Any = None
        _answer: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._silence = self.loop.call_later(idle, self.transport.abort)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._silence = _stopped(self._silence)
            if self.conn.their_state is not h11.IDLE:
                self._headers = _stopped(self._headers)
            elif self._headers is None:
                self._headers = self.loop.call_later(reading, self.transport.abort)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._answer = self.loop.call_later(writing, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._answer = _stopped(self._answer)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            for timer in (self._silence, self._headers, self._answer):
                _stopped(timer)

    return Patient


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not (key and key.isascii() and key.isprintable()):
        # A key given in place of a variable's name must not be shown; names are upper case.
        name = variable if variable.isupper() else "that --api-key-env names"
        raise UserError(f"the environment variable {name} holds no key: set it")
    return key


def _socket(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1_024)
    except OSError as error:
        # A name that is not known, or an address of another machine: no port of it will do.
        elsewhere = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        choose = f"choose another {'--host' if elsewhere else '--port'}"
        raise UserError(f"{host}:{port}: cannot listen there: {error.strerror or error}: {choose}") from None
    return listening


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
