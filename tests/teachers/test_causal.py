"""The exact yes-minus-no logit, of the prompt that the model card builds; only the passage is ever cut."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from distilrank.errors import UserError
from distilrank.teachers import causal
from distilrank.teachers.causal import CausalTeacher
from distilrank.teachers.prompts import QWEN3_RERANKER

INSTRUCTION = "Find the answer"
GROUPS = tiny.groups(5, 6, most_words=40)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)


def teacher(folder: Path, **changes: Any) -> CausalTeacher:
    return CausalTeacher(folder, **{"instruction": INSTRUCTION, "dtype": "float32", "device": "cpu"} | changes)


def full_head(folder: Path, prompt: list[int]) -> float:
    """logits[yes] - logits[no] at the last place, by the whole model on the one prompt."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt])).logits[0, -1]
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    return float(logits[yes] - logits[no])


@pytest.mark.parametrize("name", ["qwen", "llama"])
def test_scores_equal_the_full_models_logit_difference_one_by_one(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(causal.TOKENS_A_BATCH, "cpu", 1_000)
    folder = request.getfixturevalue(name)
    asked = teacher(folder)
    found = asked.score(GROUPS)
    for group, values in zip(GROUPS, found, strict=True):
        expected = [full_head(folder, prompt) for prompt in asked.prompts(group)]
        np.testing.assert_allclose(values, expected, atol=1e-4)
        assert values.dtype == np.float32
    assert np.std(np.concatenate(found)) > 0.1


def test_a_score_does_not_depend_on_the_other_pairs(qwen: Path) -> None:
    asked = teacher(qwen)
    together = np.concatenate(asked.score(GROUPS))
    apart = [asked.score([tiny.group(group.query, p.text)])[0][0] for group in GROUPS for p in group.passages]
    np.testing.assert_allclose(together, apart, atol=1e-4)


def test_no_groups_have_no_scores(qwen: Path) -> None:
    assert teacher(qwen).score([]) == []


@pytest.mark.parametrize(("name", "config"), [("Granite", {"logits_scaling": 4.0}), ("Gemma2", {"head_dim": 8})])
def test_a_model_that_scales_or_caps_its_logits_is_exact_or_refused(
    tmp_path: Path, name: str, config: dict[str, Any]
) -> None:
    folder = tiny.causal_folder(tmp_path, name, **config)
    asked = teacher(folder)
    with contextlib.suppress(UserError):
        found = asked.score(GROUPS[:1])[0]
        expected = [full_head(folder, prompt) for prompt in asked.prompts(GROUPS[0])]
        np.testing.assert_allclose(found, expected, atol=1e-4)


# ---- the prompt


def test_the_qwen3_reranker_prompt_is_the_model_cards_to_the_letter(qwen: Path) -> None:
    asked = teacher(qwen)
    (prompt,) = asked.prompts(tiny.group("how to open a window", "gather the stone"))
    assert asked.tokenizer.decode(prompt) == (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        "<Instruct>: Find the answer\n"
        "<Query>: how to open a window\n<Document>: gather the stone<|im_end|>\n<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n"
    )


@settings(max_examples=40, deadline=None)
@given(TEXTS, st.builds(str.__mul__, TEXTS, st.integers(1, 200)), st.integers(280, 420))
def test_only_the_passage_is_cut(qwen: Path, query: str, passage: str, most: int) -> None:
    asked = teacher(qwen, max_length=most)
    ids = asked.tokenizer
    head = ids(QWEN3_RERANKER.prefix)["input_ids"]
    tail = ids(QWEN3_RERANKER.suffix)["input_ids"]
    before = f"<Instruct>: {INSTRUCTION}\n<Query>: {query}\n<Document>:"
    whole = [*head, *ids(f"{before} {passage}")["input_ids"], *tail]
    needed = len(head) + len(ids(f"{before} ")["input_ids"]) + len(tail)
    if needed >= most:
        with pytest.raises(UserError, match="max_length"):
            asked.prompts(tiny.group(query, passage))
        return
    (prompt,) = asked.prompts(tiny.group(query, passage))
    assert prompt == (whole if len(whole) <= most else whole[: most - len(tail)] + tail)
    assert ids.decode(prompt).startswith(QWEN3_RERANKER.prefix + before)


def test_the_passage_is_cut_on_the_right_whatever_side_the_tokenizer_cuts(qwen: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(qwen, tmp_path / "left")
    described = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(described | {"truncation_side": "left"}))
    long = tiny.group("how", "window " * 400)
    (prompt,) = teacher(folder, max_length=300).prompts(long)
    assert [prompt] == teacher(qwen, max_length=300).prompts(long)
    assert len(prompt) == 300


@pytest.mark.parametrize("query", ["what is {passage}", "what is {instruction}", "what is {query}", "{0} {} %s"])
def test_braces_in_a_query_or_passage_are_plain_text(qwen: Path, query: str) -> None:
    asked = teacher(qwen, instruction="Judge {query} and {passage}")
    (prompt,) = asked.prompts(tiny.group(query, "open {query} {instruction}"))
    body = f"Judge {{query}} and {{passage}}\n<Query>: {query}\n<Document>: open {{query}} {{instruction}}<|im_end|>"
    assert body in asked.tokenizer.decode(prompt)


def test_a_query_that_leaves_no_room_is_refused_not_cut(qwen: Path) -> None:
    with pytest.raises(UserError, match=r"'window window.*max_length 300"):
        teacher(qwen, max_length=300).score([tiny.group("window " * 200, "passage")])


def test_an_answer_of_two_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'yes' is \d tokens here"):
        teacher(tiny.causal_folder(tmp_path, answers="no\n")).score(GROUPS)


# ---- identity


@pytest.mark.parametrize("change", [{"instruction": "Other"}, {"max_length": 99}, {"dtype": "bfloat16"}])
def test_the_identity_changes_with_each_setting(qwen: Path, change: dict[str, Any]) -> None:
    assert teacher(qwen).identity.digest != teacher(qwen, **change).identity.digest


def test_the_identity_changes_with_the_words_of_the_template(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = teacher(qwen).identity
    other = causal.yes_no_template("qwen3-reranker").__class__(**vars(QWEN3_RERANKER) | {"suffix": "\n"})
    monkeypatch.setattr(causal, "yes_no_template", lambda name: other)
    after = teacher(qwen).identity
    assert before.digest != after.digest
    assert after.template.startswith("qwen3-reranker-")


def test_the_identity_changes_with_the_weights_and_not_with_the_place(qwen: Path, llama: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(qwen, tmp_path / "copy")
    assert teacher(copy).identity == teacher(qwen).identity
    assert teacher(llama).identity != teacher(qwen).identity


def test_an_unknown_template_is_refused_with_the_near_one(qwen: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'qwen3-reranker'"):
        teacher(qwen, template="qwen-reranker")
