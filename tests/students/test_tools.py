"""What a saved student says to other tools: one output, no activation, the length that it was taught with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from distilrank.students import TrainSettings
from distilrank.students.folder import open_student, save_student
from distilrank.students.tools import IDENTITY

SETTINGS = TrainSettings(max_length=48, precision="float32", device="cpu")


@pytest.fixture(scope="module", params=["bert", "xlmr"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("student") / "model"
    save_student(open_student(request.getfixturevalue(request.param), SETTINGS, "cpu"), where, {}, "# A card\n")
    return where


def read(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / name).read_text(encoding="utf-8")))


def test_every_tool_is_told_that_the_output_is_a_raw_logit(folder: Path) -> None:
    config = read(folder, "config.json")
    assert config["sentence_transformers"]["activation_fn"] == IDENTITY
    assert config["sbert_ce_default_activation_function"] == IDENTITY
    assert config["problem_type"] == "regression"
    assert config["id2label"] == {"0": "LABEL_0"}
    assert isinstance(config["pad_token_id"], int)


def test_every_tool_cuts_at_the_length_of_the_training(folder: Path) -> None:
    assert read(folder, "tokenizer_config.json")["model_max_length"] == 48
    assert read(folder, "sentence_bert_config.json")["max_seq_length"] == 48


def test_nothing_says_where_the_model_was_opened(folder: Path, bert: Path) -> None:
    assert not {"is_local", "local_files_only", "name_or_path"} & set(read(folder, "tokenizer_config.json"))
    for name in ("config.json", "tokenizer_config.json", "config_sentence_transformers.json", "modules.json"):
        assert str(bert.parent.parent) not in (folder / name).read_text(encoding="utf-8")


def test_the_tokenizer_is_known_to_transformers_4(folder: Path) -> None:
    assert read(folder, "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"
    pad = read(folder, "special_tokens_map.json")["pad_token"]
    assert (
        Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(pad) == read(folder, "config.json")["pad_token_id"]
    )


def test_the_library_that_saved_it_opens_it_again(folder: Path) -> None:
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    model = CrossEncoder(str(folder), device="cpu")
    assert isinstance(model.activation_fn, Identity)
    assert model.max_length == 48
    assert model.predict([("river stone", "market window")]).shape == (1,)
