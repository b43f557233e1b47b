"""Models go up to a stand-in of each hub: all of the model and nothing else, private, and no token is ever shown."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distilrank.errors import UserError
from distilrank.push import files_of, push
from upload_hub import UploadHub, uploads

HUBS = ("hf", "modelscope")
TOKEN = "hf_secret-token-of-somebody"
MODEL = {
    "README.md": b"---\ntags: [reranker]\n---\n# A card\n",
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 8_000,
    "tokenizer.json": b"{}",
    "distilrank.json": b"{}",
}
NEVER = {"pytorch_model.bin": b"x", "optimizer.pt": b"x", ".secret.json": b"x", "checkpoint-5/model.safetensors": b"x"}


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    with uploads(UploadHub()) as served:
        yield served


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name, content in (MODEL | NEVER).items():
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_bytes(content)
    return tmp_path / "model"


class Push:
    """`distilrank push` in a process of its own, since the clients read their settings when they are imported."""

    def __init__(self, model: Path, hub: UploadHub) -> None:
        self.model = model
        home = str(model.parent / "home")
        self.environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()} | {
            "HF_ENDPOINT": hub.url, "HF_HOME": home, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": TOKEN, "MODELSCOPE_ENDPOINT": hub.url, "MODELSCOPE_CACHE": home,
            "MODELSCOPE_HOME": home, "MODELSCOPE_API_TOKEN": TOKEN,
        }  # fmt: skip

    def __call__(self, destination: str, *options: str, **environment: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "distilrank", "push", str(self.model), destination, *options]
        environment = self.environment | environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert TOKEN not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr


@pytest.fixture
def pushed(model: Path, hub: UploadHub) -> Any:
    pytest.importorskip("modelscope_hub")
    return Push(model, hub)


@pytest.mark.parametrize("scheme", HUBS)
def test_a_model_goes_up_whole_and_private(scheme: str, pushed: Push, hub: UploadHub) -> None:
    code, err = pushed(f"{scheme}:org/name")
    assert code == 0, err
    assert hub.files == MODEL
    assert hub.public is False
    assert hub.commits == 1
    assert TOKEN in hub.tokens


@pytest.mark.parametrize("scheme", HUBS)
def test_public_is_asked_for(scheme: str, pushed: Push, hub: UploadHub) -> None:
    hub.public = True
    code, err = pushed(f"{scheme}:org/name")
    assert code == 2
    assert "--public" in err
    assert hub.files == {}
    assert pushed(f"{scheme}:org/name", "--public")[0] == 0
    assert hub.files == MODEL


@pytest.mark.parametrize("scheme", HUBS)
def test_a_refusal_is_a_line_without_the_token(scheme: str, pushed: Push, hub: UploadHub) -> None:
    hub.refuses = True
    code, err = pushed(f"{scheme}:org/name", MODELSCOPE_UPLOAD_COMMIT_MAX_ATTEMPTS="1", MODELSCOPE_UPLOAD_RECOVERY="0")
    assert code == 2, err
    assert err.strip().splitlines()[-1].startswith(f"error: {scheme}:org/name: ")
    assert hub.files == {}


def test_without_a_token_it_says_so(pushed: Push) -> None:
    code, err = pushed("hf:org/name", HF_TOKEN="")
    assert code == 2
    assert "HF_TOKEN" in err


@pytest.mark.parametrize("destination", ["org/name", "hf:name", "s3:org/name", "hf:org/name/file"])
def test_a_destination_is_a_hub_and_a_name(destination: str, model: Path) -> None:
    with pytest.raises(UserError, match=r"write it as hf:org/name"):
        push(model, destination)


@pytest.mark.parametrize("missing", ["README.md", "config.json", "model.safetensors"])
def test_a_folder_that_is_no_model_with_a_card_stays_here(missing: str, model: Path) -> None:
    (model / missing).unlink()
    with pytest.raises(UserError, match=r"README.md|config.json"):
        push(model, "hf:org/name")


def test_only_what_a_model_is_made_of(model: Path) -> None:
    assert files_of(model) == sorted(MODEL)
