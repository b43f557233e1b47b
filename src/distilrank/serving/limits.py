"""What stands before the application: who may ask, how much may be sent, how long it may take to send it, and the counting.

uvicorn bounds none of these. Everything here is plain ASGI, so that a route still hears when its client has gone.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from distilrank.progress import say
from distilrank.serving.metrics import Metrics
from distilrank.serving.refusal import GONE, Refused, refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/health", "/", "/page.css", "/page.js", "/docs", "/openapi.json")
"""Asked without a key: what a load balancer and a browser need, nothing of which tells anything of the model."""
OUTSIZE = 16
"""Bodies over this many times the limit are not even read away before the answer."""

BODIES = 64
"""So many bodies of the largest size are held at once, whatever the number of connections."""


@dataclass
class State:
    """What a running server is doing."""

    draining: bool = False
    in_flight: int = 0


class Counted:
    """The outermost layer: counts and times requests, and turns a fault of ours into one line and a 500."""

    def __init__(self, app: App, metrics: Metrics, state: State, paths: frozenset[str]) -> None:
        self.app, self.metrics, self.state, self.paths = app, metrics, state, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.perf_counter(), 0

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        self.state.in_flight += 1
        try:
            await self.app(scope, receive, noting)
        except asyncio.CancelledError:  # uvicorn's, when the time to drain is over
            if not status:
                await refusal(scope["path"], _going(), close=True)(scope, receive, noting)
        except Exception as error:
            say(f"error: {where(error)}")  # the kind and the place, never the message: it could quote a text
            if not status:
                await refusal(scope["path"], Refused(500, "our fault: see the server's log", "Backend"))(
                    scope, receive, noting
                )
        finally:
            self.state.in_flight -= 1
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.answered(path, status or GONE, time.perf_counter() - start)


class Guarded:
    """Refuses what must not reach the application, and hands it whole bodies."""

    def __init__(self, app: App, state: State, *, key: str | None, max_body: int, read_timeout: float) -> None:
        self.app, self.state, self.max_body, self.read_timeout = app, state, max_body, read_timeout
        self.key = key.encode() if key else None
        self.held = 0
        """Bytes of all bodies in memory."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, body = dict(scope["headers"]), bytearray()
        try:
            try:
                if self.state.draining:
                    raise _going()
                self._let_in(scope["path"], headers.get(b"authorization", b""))
                whole = await self._fill(body, headers, receive)
            except Refused as error:
                if error.status in (401, 503):
                    await self._read_away(receive)
                return await refusal(scope["path"], error, close=True)(scope, receive, send)
            if whole:
                await self.app(scope, _replayed(bytes(body), receive), send)
        finally:
            self.held -= len(body)

    async def _read_away(self, receive: Receive) -> None:
        """Take in a body and forget it: a client that is still sending when the server hangs up does not see its answer."""
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(self.read_timeout):
                while size <= self.max_body:
                    message = await receive()
                    size += len(message.get("body", b""))
                    if not message.get("more_body"):
                        return

    def _let_in(self, path: str, given: bytes) -> None:
        if self.key is None or path in OPEN or path.startswith("/docs/"):
            return
        scheme, _, token = given.partition(b" ")
        # Compared even where the scheme is wrong: the time taken says nothing.
        if not hmac.compare_digest(token.strip(), self.key) or scheme.lower() != b"bearer":
            raise Refused(401, "a key is needed: Authorization: Bearer ...", "Unauthorized")

    async def _fill(self, body: bytearray, headers: dict[bytes, bytes], receive: Receive) -> bool:
        """Take in the whole body; false when the client has gone. Too large a one is read away for a while, and then
        refused: a client that is still sending would not see an answer.
        """
        size, most = 0, self.max_body
        too_large = Refused(413, f"the body is over {most:,} bytes", "Validation")
        if int(headers.get(b"content-length", b"0")) > OUTSIZE * most:
            raise too_large
        try:
            async with asyncio.timeout(self.read_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return False
                    part = message.get("body", b"")
                    size += len(part)
                    if size <= most:
                        if self.held + len(part) > BODIES * most:
                            raise Refused(429, "too many large bodies at once", "Overloaded", retry_after=1)
                        body += part
                        self.held += len(part)
                    if not message.get("more_body") or size > OUTSIZE * most:
                        break
        except TimeoutError:
            if size > most:
                raise too_large from None
            raise Refused(408, f"the body did not arrive within {self.read_timeout:g} s", "Timeout") from None
        if size > most:
            raise too_large
        return True


def _going() -> Refused:
    return Refused(503, "the server is going down: ask another one", "Unhealthy", retry_after=5)


def _replayed(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def where(error: BaseException) -> str:
    """An exception's class and the last place of it in our code."""
    place, trace = "", error.__traceback__
    while trace:
        file = trace.tb_frame.f_code.co_filename
        if "distilrank" in file:
            place = f" at {file.rpartition('distilrank/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{place}"
