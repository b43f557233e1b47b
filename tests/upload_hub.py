"""A stand-in for two hubs that are uploaded to, on this machine: Hugging Face's LFS way and ModelScope's."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from stand_in import answering

OWNER = "org"


@dataclass
class UploadHub:
    """`public` says whether a repository that is there already is public (none: it is not there); `files` what arrived."""

    public: bool | None = None
    refuses: bool = False
    """Every commit is refused, with the token in what the hub says."""
    files: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    url: str = ""


@contextmanager
def uploads(hub: UploadHub) -> Iterator[UploadHub]:
    with answering(_Handler, hub):
        yield hub


class _Handler(BaseHTTPRequestHandler):
    hub: UploadHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_GET

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.asked.append(f"{self.command} {path}")
        hub.tokens.add(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if path.startswith("/blobs/"):
            hub.blobs[path.removeprefix("/blobs/")] = body
            self._json({})
        elif "/info/lfs/objects/batch" in path:
            self._json({"transfer": "basic", "objects": [self._upload(item) for item in json.loads(body)["objects"]]})
        elif "/commit/" in path and hub.refuses:
            self._json(
                {"error": f"bad token {self.headers['Authorization']}", "Message": "bad token", "Success": False}, 403
            )
        elif path.startswith("/api/v1/") or path.startswith("/openapi/"):
            self._modelscope(path, body)
        else:
            self._hugging_face(path, body)

    def _hugging_face(self, path: str, body: bytes) -> None:
        hub = self.hub
        if path == "/api/repos/create":
            if hub.public is None:
                hub.public = not json.loads(body).get("private", json.loads(body).get("visibility") == "private")
                self._json({"url": f"{hub.url}/org/name", "id": "org/name"})
            else:
                self._json({"error": "You already created this model repo", "url": f"{hub.url}/org/name"}, 409)
        elif path == "/api/models/org/name":
            self._json({"id": "org/name", "private": not hub.public, "siblings": [], "disabled": False})
        elif path.startswith("/api/models/org/name/preupload/"):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif path.startswith("/api/models/org/name/commit/"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    hub.files[line["value"]["path"]] = hub.blobs[line["value"]["oid"]]
            hub.commits += 1
            self._json({"commitUrl": f"{hub.url}/org/name/commit/1", "commitOid": "1", "success": True})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        else:
            self._json({"error": f"no {path}"}, 404)

    def _modelscope(self, path: str, body: bytes) -> None:
        hub = self.hub
        if path == "/api/v1/models" and self.command == "POST" and hub.public is not None:
            self._json({"Code": 10020101001, "Success": False, "Message": "the repository already exists"}, 409)
        elif path == "/api/v1/models" and self.command == "POST":
            hub.public = json.loads(body)["Visibility"] == 5
            self._json({"Code": 200, "Success": True, "Data": {"Path": OWNER, "Name": "name"}})
        elif re.fullmatch(r"/(openapi|api)/v1/models/org/name", path):
            if hub.public is None:
                self._json({"Code": 404, "Success": False, "Message": "not found"}, 404)
            else:
                data = {"Path": OWNER, "Name": "name", "Visibility": 5 if hub.public else 1, "private": not hub.public}
                self._json({"Code": 200, "Success": True, "Data": data, "data": data, "success": True})
        elif path.startswith("/api/v1/repos/models/org/name/commit/"):
            for action in json.loads(body)["actions"]:
                content = hub.blobs[action["sha256"]] if action["type"] == "lfs" else base64.b64decode(action["content"])
                hub.files[action["path"]] = content
            hub.commits += 1
            self._json({"Code": 200, "Success": True, "Data": {}})
        else:
            self._json({"Code": 404, "Success": False, "Message": f"no {path}"}, 404)

    def _upload(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "actions": {"upload": {"href": f"{self.hub.url}/blobs/{item['oid']}"}}}

    def _json(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
