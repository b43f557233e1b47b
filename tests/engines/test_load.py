"""Which weights a folder holds is known by content, and no code in a weight file is ever run."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from distilrank.engines import load
from distilrank.engines.load import dtype_of, load_model, load_tokenizer, weights_digest
from distilrank.errors import UserError


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bert, tmp_path / "copy")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("BOOM: code in a weight file was run",))


@pytest.fixture
def pickled(copy: Path) -> Path:
    """A model folder with pickled weights only, and code in them."""
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    return copy


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_one_changed_byte_changes_the_digest(copy: Path, name: str) -> None:
    before = weights_digest(copy)
    content = bytearray((copy / name).read_bytes())
    content[-2] ^= 1
    (copy / name).write_bytes(content)
    assert weights_digest(copy) != before


def test_a_renamed_file_changes_the_digest(copy: Path) -> None:
    before = weights_digest(copy)
    (copy / "config.json").rename(copy / "config2.json")
    assert weights_digest(copy) != before


def test_a_copy_with_another_readme_has_the_same_digest(bert: Path, copy: Path) -> None:
    (copy / "README.md").write_text("words")
    assert weights_digest(copy) == weights_digest(bert)


def test_a_folder_with_only_pickled_weights_has_no_digest(pickled: Path) -> None:
    with pytest.raises(UserError, match="pickled weights are not read"):
        weights_digest(pickled)


def test_pickled_weights_are_refused_and_not_run(pickled: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="not a model that transformers opens"):
        load_model("AutoModelForSequenceClassification", pickled, "float32", "cpu")
    assert "BOOM" not in capfd.readouterr().out


def test_a_broken_safetensors_file_is_the_users_to_mend(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match="copy"):
        load_model("AutoModelForSequenceClassification", copy, "float32", "cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_has_the_dtype_asked_for_and_no_dropout(bert: Path, dtype: str) -> None:
    model = load_model("AutoModelForSequenceClassification", bert, dtype, "cpu")
    assert next(model.parameters()).dtype == getattr(torch, dtype)
    assert not model.training


def test_auto_is_bfloat16_only_where_the_hardware_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(load, "has_bfloat16", lambda device, has=has: has)
        assert dtype_of("auto", "cpu") == name
        assert dtype_of("float32", "cpu") == "float32"


def test_an_unknown_dtype_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"float16.*bfloat16"):
        dtype_of("float16", "cpu")


def test_a_missing_folder_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such model folder"):
        load_tokenizer(tmp_path / "none")


def test_two_gguf_files_are_ambiguous(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(UserError, match="2 GGUF files"):
        load_tokenizer(tmp_path)


def test_apples_gpu_is_taken_where_it_is_asked_for_and_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="no Metal GPU"):
        load.device_of("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert load.device_of("mps") == "mps"
    assert dtype_of("auto", "mps") == "float32"
    assert load.device_of("auto") != "mps"
    with pytest.raises(UserError, match="no device 'mps:1'"):
        load.device_of("mps:1")
