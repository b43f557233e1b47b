"""A stand-in for two hubs on this machine: the paths, ranges, checksums and refusals of Hugging Face and of ModelScope."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from stand_in import answering

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the hub holds and how it misbehaves; `asked` is what it was asked, in order."""

    files: dict[str, bytes]
    drops: int = 0
    """So many times a connection ends in the middle of a large file."""
    refusals: int = 0
    """So many answers are 429 with Retry-After."""
    damaged: bool = False
    """A byte of each file is another one than its checksum says."""
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    url: str = ""

    def downloads(self) -> Counter[str]:
        """How often the content of each file was sent from its first byte."""
        return Counter(line.removeprefix("SENT ") for line in self.asked if line.startswith("SENT "))


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    with answering(_Handler, hub):
        yield hub


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        hub, url = self.hub, urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        hub.asked.append(f"{self.command} {path}")
        if hub.refusals:
            hub.refusals -= 1
            self._send(429, b"slow down", {"Retry-After": "1"})
        elif match := re.fullmatch(r"(?:/datasets)?/org/name/resolve/([^/]+)/(.+)", path):
            self._file(match[2], {"X-Repo-Commit": COMMIT})
        elif re.fullmatch(r"/api/(models|datasets)/org/name/revision/[^/]+", path):
            names = [{"rfilename": name} for name in hub.files]
            self._json({"id": "org/name", "sha": COMMIT, "siblings": names, "private": False, "disabled": False})
        elif re.fullmatch(r"/api/(models|datasets)/org/name/tree/[^/]+", path):
            self._json([{"type": "file", "path": n, "size": len(c), "oid": _git(c)} for n, c in hub.files.items()])
        elif re.fullmatch(r"/api/v1/(models/org/name/repo/files|datasets/org/name/repo/tree)", path):
            self._json({"Code": 200, "Success": True, "Data": {"Files": [_entry(*item) for item in hub.files.items()]}})
        elif re.fullmatch(r"/api/v1/(models|datasets)/org/name/repo", path):
            self._file(query["FilePath"][0], {})
        else:
            self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    def _file(self, name: str, headers: dict[str, str]) -> None:
        hub = self.hub
        if name not in hub.files:
            self._send(404, b"no such entry", headers | {"X-Error-Code": "EntryNotFound"})
            return
        whole = hub.files[name]
        digest = hashlib.sha256(whole).hexdigest()
        headers |= {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if hub.damaged:
            whole = bytes([whole[0] ^ 1]) + whole[1:]
        start, end = 0, len(whole) - 1
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            hub.ranges.append(match[0])
            start, end = int(match[1]), min(int(match[2] or end), end)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(whole)}"
        elif self.command == "GET":
            hub.asked.append(f"SENT {name}")
        self._send(206 if match else 200, whole[start : end + 1], headers)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if "ETag" in headers and self.hub.drops and len(body) > 1_000_000:
            self.hub.drops -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(body)


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"Path": name, "Name": name.rpartition("/")[2], "Type": "blob", "Size": len(content), "Sha256": digest}
