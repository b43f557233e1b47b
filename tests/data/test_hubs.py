"""Both hubs by their own clients against a stand-in on this machine: whole or not at all, once, and resumed."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub import COMMIT, Hub, serving

ROW = json.dumps({"query": "q", "positive": ["a"], "negative": ["b"]}).encode()
DATA = gzip.compress(b"\n".join([ROW] * 3), mtime=0)
WEIGHTS = "sub/model.safetensors"
FILES = {"test.jsonl.gz": DATA, "config.json": b'{"a": 1}', WEIGHTS: bytes(range(256)) * 400, "old.bin": b"x"}
HUBS = ("hf", "modelscope")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub(dict(FILES))) as served:
        yield served


class Fetch:
    """`distilrank fetch` in a process of its own, since the clients read their settings when they are imported."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder = folder
        self.environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()} | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "MODELSCOPE_ENDPOINT": hub.url, "MODELSCOPE_CACHE": str(folder / "ms"),
            "MODELSCOPE_HOME": str(folder / "ms-home"), "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "false",
        }  # fmt: skip

    def __call__(self, source: str, *options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "distilrank", "fetch", source, str(self.folder / "here"), *options]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=120)
        return done.returncode, done.stderr


@pytest.fixture
def fetch(tmp_path: Path, hub: Hub) -> Any:
    pytest.importorskip("modelscope_hub")
    return Fetch(tmp_path, hub)


def here(fetch: Fetch) -> dict[str, bytes]:
    folder = fetch.folder / "here"
    if folder.is_file():
        return {"": folder.read_bytes()}
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("scheme", HUBS)
def test_a_file_of_a_data_set_comes_once_and_is_there_offline(scheme: str, fetch: Fetch, hub: Hub) -> None:
    source = f"{scheme}:datasets/org/name:test.jsonl.gz"
    code, err = fetch(source)
    assert (code, here(fetch)) == (0, {"": DATA}), err
    assert f"revision {COMMIT if scheme == 'hf' else 'master'}" in err
    assert fetch(source)[0] == 0
    assert hub.downloads() == {"test.jsonl.gz": 1}
    hub.asked.clear()
    assert fetch(source, "--offline")[0] == 0
    assert hub.asked == []
    code, err = fetch(f"{scheme}:datasets/org/name:config.json", "--offline")
    assert code == 2
    assert "not in the cache" in err


@pytest.mark.parametrize("scheme", HUBS)
def test_a_model_comes_without_its_pickles_and_goes_on_after_a_drop(scheme: str, fetch: Fetch, hub: Hub) -> None:
    hub.drops = 1
    hub.files[WEIGHTS] = bytes(range(251)) * 100_000  # huggingface_hub keeps what it has by 10 MB
    code, err = fetch(f"{scheme}:org/name")
    assert code == 0, err
    assert here(fetch) == {name: content for name, content in hub.files.items() if name != "old.bin"}
    assert hub.drops == 0
    assert hub.ranges
    assert "old.bin" not in hub.downloads()


@pytest.mark.parametrize("scheme", HUBS)
def test_a_damaged_file_is_refused_and_not_kept(scheme: str, fetch: Fetch, hub: Hub) -> None:
    hub.damaged = True
    code, err = fetch(f"{scheme}:org/name:{WEIGHTS}")
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1
    assert not (fetch.folder / "here").exists()
    hub.damaged = False
    assert fetch(f"{scheme}:org/name:{WEIGHTS}")[0] == 0
    assert here(fetch) == {"": FILES[WEIGHTS]}


@pytest.mark.parametrize("scheme", HUBS)
@pytest.mark.parametrize("what", ["org/absent:config.json", "org/name:absent.json"])
def test_what_is_not_there_is_said_in_a_line(scheme: str, what: str, fetch: Fetch) -> None:
    code, err = fetch(f"{scheme}:{what}")
    assert code == 2
    assert err.startswith(f"error: {scheme}:{what}: ")
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("scheme", HUBS)
def test_too_many_requests_are_waited_for(scheme: str, fetch: Fetch, hub: Hub) -> None:
    hub.refusals = 1
    code, err = fetch(f"{scheme}:org/name:config.json")
    assert (code, here(fetch)) == (0, {"": FILES["config.json"]}), err
