"""Asking a server over HTTP: a bearer token that is never shown, pauses that grow, Retry-After (RFC 9110, 10.2.3)."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from threading import Event
from typing import Any

from distilrank.errors import UserError

PASSING = (429, 500, 502, 503, 504)
LONGEST_PAUSE = 120.0
CONNECT_SECONDS = 5.0
FIRST_RETRIES = 2
"""Retries of a connection to a server that has never answered: a mistyped url is told soon, a restart is waited for."""
_URL = re.compile(r"(https?://)([^/?#]*@)?([^/?#@]+)([^?#]*)(\?[^#]*)?(#.*)?", re.IGNORECASE)

pause: Callable[[Event, float], object] = Event.wait
"""Waits so many seconds, or until another request has failed; tests replace it."""


class Endpoint:
    """One URL that is posted to; `shown` is the same without user, password and query, for people and identities.

    `path` is added where the URL does not end in `known`, one of its last parts. `timeout` is in seconds a request;
    `key_variable` names the environment variable that holds a bearer token.
    """

    def __init__(
        self,
        url: str,
        path: str,
        known: tuple[str, ...],
        *,
        concurrency: int,
        timeout: float,
        retries: int,
        key_variable: str | None,
    ) -> None:
        self.url, self.shown = _joined(url, path, known)
        self.concurrency, self.timeout, self.retries, self.key_variable = concurrency, timeout, retries, key_variable
        self._answered = False

    def client(self) -> Any:
        """A client with the token in its headers, to be used as a context. Raises `UserError` when there is no token."""
        httpx, token = _httpx(), self._token()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        timeout = httpx.Timeout(self.timeout, connect=min(self.timeout, CONNECT_SECONDS))
        return httpx.Client(headers=headers, timeout=timeout, limits=limits)

    def post(self, client: Any, stop: Event, body: bytes) -> Any:
        """The response, after as many tries as allowed. Raises `UserError` when there is none or `stop` is set."""
        httpx = _httpx()
        for attempt in count(1):
            seconds = min(2.0 ** (attempt - 1), LONGEST_PAUSE) * random.uniform(0.5, 1.0)
            retries, hint = self.retries, "is it up? is concurrency too high?"
            try:
                response = client.post(self.url, content=body)
            except httpx.TransportError as error:
                problem, said = f"no answer ({type(error).__name__})", str(error)
                if not self._answered and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    retries, hint = min(retries, FIRST_RETRIES), "is it up? check url"
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise self.error("cannot be asked, check url", str(error)) from None
            else:
                self._answered = True
                if response.status_code not in PASSING:
                    return response
                problem, said = f"answered {response.status_code}", response.text
                seconds = _retry_after(response.headers.get("Retry-After", ""), seconds)
            if attempt > retries or pause(stop, seconds):
                raise self.error(f"{problem} to {attempt} requests in a row ({hint})", said)

    def error(self, problem: str, said: str = "") -> UserError:
        """What went wrong, with the beginning of what the server said."""
        if token := self._token():
            said = said.replace(token, "***")  # some servers repeat it
        return UserError(f"{self.shown}: {problem}" + (f": {' '.join(said.split())[:200]}" if said else ""))

    def _token(self) -> str:
        token = os.environ.get(self.key_variable or "", "").strip()
        if self.key_variable and not (token.isascii() and token.isprintable() and token):
            # A token given in place of a variable's name must not be shown; names are upper case.
            name = self.key_variable if self.key_variable.isupper() else "that key_variable names"
            raise UserError(f"{self.shown}: the environment variable {name} holds no token: set it")
        return token


def _httpx() -> Any:
    # huggingface_hub brings one or the other: httpx until its version 1, httpx2 from version 2; both are one interface.
    return import_module("httpx2" if find_spec("httpx2") else "httpx")


def _joined(url: str, path: str, known: tuple[str, ...]) -> tuple[str, str]:
    if not (match := _URL.fullmatch(url.strip())):
        raise UserError(f"the url must look like http://localhost:8080 or https://host/{path}")
    scheme, user, host, where, query, _ = match.groups("")
    where = where.rstrip("/")
    if not where.endswith(known):
        where += "/" + (path.removeprefix("v1/") if re.search(r"/v\d+$", where) else path)
    return f"{scheme}{user}{host}{where}{query}", f"{scheme}{host}".lower() + where


def _retry_after(text: str, otherwise: float) -> float:
    """Seconds to wait by a Retry-After header, which gives seconds or a date."""
    try:
        seconds = float(text) if re.fullmatch(r"[0-9.]+", text) else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return otherwise
    return min(max(seconds, 0.0), LONGEST_PAUSE)
