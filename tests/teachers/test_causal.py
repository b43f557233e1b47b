"""The exact yes-minus-no logit of one prompt, whichever engine reads it and whatever it is read together with."""

from __future__ import annotations

import json
import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from distilrank.engines import decoder
from distilrank.errors import UserError
from distilrank.records import Group
from distilrank.teachers.causal import CausalTeacher
from distilrank.teachers.prompts import packaged_templates

INSTRUCTION = "Find the answer"
GROUPS = tiny.groups(5, 6, most_words=40)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
BEFORE, BODY, AFTER = packaged_templates()["qwen3-reranker"].pieces
engines = pytest.mark.parametrize("engine", ["packed", "plain"])


def teacher(folder: Path, **changes: Any) -> CausalTeacher:
    return CausalTeacher(folder, **{"instruction": INSTRUCTION, "dtype": "float32", "device": "cpu"} | changes)


@cache
def opened(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def full_head(folder: Path, prompt: list[int], positive: str = "yes", negative: str | None = "no") -> float:
    """logits[yes] - logits[no] at the last place, by the whole model on the one prompt."""
    model, tokenizer = opened(folder)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt])).logits[0, -1]
    yes = logits[tokenizer.convert_tokens_to_ids(positive)]
    return float(yes - (logits[tokenizer.convert_tokens_to_ids(negative)] if negative else 0))


def ids(asked: CausalTeacher, groups: list[Group]) -> list[list[int]]:
    return [sequence.tolist() for sequence in asked.prompts(groups).sequences]


def the_prompt(asked: CausalTeacher, query: str, passage: str) -> list[int]:
    (prompt,) = ids(asked, [tiny.group(query, passage)])
    return prompt


@engines
@pytest.mark.parametrize("name", ["qwen", "llama"])
def test_scores_equal_the_full_models_logit_difference_one_by_one(
    name: str, engine: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(decoder.TOKENS_A_BATCH, "cpu", 1_000)
    folder = request.getfixturevalue(name)
    asked = teacher(folder, engine=engine)
    asked.decoder.budget = 500
    found = asked.score(GROUPS)
    assert [values.shape for values in found] == [(6,)] * 5
    assert all(values.dtype == np.float32 for values in found)
    expected = [full_head(folder, prompt) for prompt in ids(asked, GROUPS)]
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-4)
    assert np.std(expected) > 0.1


def test_a_score_does_not_depend_on_the_other_pairs(qwen: Path) -> None:
    asked = teacher(qwen)
    together = np.concatenate(asked.score(GROUPS))
    apart = [asked.score([tiny.group(group.query, p.text)])[0][0] for group in GROUPS for p in group.passages]
    np.testing.assert_allclose(together, apart, atol=1e-4)


def test_no_groups_have_no_scores(qwen: Path) -> None:
    assert teacher(qwen).score([]) == []


@engines
def test_progress_counts_every_pair(qwen: Path, engine: str) -> None:
    told: list[int] = []
    asked = teacher(qwen, engine=engine)
    asked.decoder.budget = 300
    asked.score(GROUPS, told.append)
    assert sum(told) == 30


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("Granite", {"logits_scaling": 4.0}),
        ("Cohere", {"logit_scale": 0.5}),
        ("Gemma", {"head_dim": 8}),
        ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 0.5, "attn_logit_softcapping": 1.0}),
        ("Mistral", {"sliding_window": 600}),
        ("Qwen2", {"tie_word_embeddings": True}),
        ("Olmo2", {}),
    ],
)
@engines
def test_a_model_that_does_more_than_a_plain_decoder_is_exact(
    tmp_path: Path, name: str, config: dict[str, Any], engine: str
) -> None:
    folder = tiny.causal_folder(tmp_path, name, **config)
    asked = teacher(folder, max_length=500, engine=engine)
    expected = [full_head(folder, prompt) for prompt in ids(asked, GROUPS[:1])]
    np.testing.assert_allclose(asked.score(GROUPS[:1])[0], expected, atol=1e-4)


def test_a_window_shorter_than_a_prompt_cannot_be_packed_but_read_plainly(tmp_path: Path) -> None:
    folder = tiny.causal_folder(tmp_path, "Mistral", sliding_window=60)
    with pytest.raises(UserError, match=r"see 60 tokens at a time.*or the engine to plain"):
        teacher(folder, max_length=500).score(GROUPS[:1])
    asked = teacher(folder, max_length=500, engine="plain")
    expected = [full_head(folder, prompt) for prompt in ids(asked, GROUPS[:1])]
    np.testing.assert_allclose(asked.score(GROUPS[:1])[0], expected, atol=1e-4)


# ---- packed, plain and one by one


QUERIES = ["how", "how to open", "how to open a window", "castle"]
LENGTHS = st.lists(st.tuples(st.sampled_from(QUERIES), st.lists(st.integers(0, 50), min_size=1, max_size=5)), max_size=4)
SHORT = {"name": "short", "source": "test", "positive": "yes", "negative": "no"}
SHORT["pieces"] = ["Query: {query}\n", "{passage}", "\nAnswer: "]  # type: ignore[assignment]


def of_length(words: int) -> str:
    """So many words, such that longer texts begin as the shorter ones do until the last word."""
    return " ".join([*random.Random(0).choices(tiny.WORDS, k=60)[:words], "stone"])


@pytest.fixture(scope="module", params=["qwen", "llama"])
def three_ways(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A packed and a plain teacher under a short prompt, and the score of a pair by the whole model on its own."""
    folder = request.getfixturevalue(request.param)
    template = tmp_path_factory.mktemp("template") / "short.yaml"
    template.write_text(yaml.safe_dump(SHORT))
    packed, plain = (
        teacher(folder, template=str(template), max_length=100, engine=engine) for engine in ("packed", "plain")
    )

    @cache
    def alone(query: str, passage: str) -> float:
        return full_head(folder, the_prompt(packed, query, passage))

    return packed, plain, alone


@settings(max_examples=30)
@given(LENGTHS, st.integers(1, 600))
def test_packed_equals_plain_equals_one_by_one(three_ways: Any, asked: list[tuple[str, list[int]]], budget: int) -> None:
    packed, plain, alone = three_ways
    packed.decoder.budget = budget
    groups = [tiny.group(query, *map(of_length, lengths)) for query, lengths in asked]
    for group, of_packed, of_plain in zip(groups, packed.score(groups), plain.score(groups), strict=True):
        expected = [alone(group.query, passage.text) for passage in group.passages]
        np.testing.assert_allclose(of_packed, expected, atol=1e-4)
        np.testing.assert_allclose(of_plain, expected, atol=1e-4)


@settings(max_examples=10)
@given(st.permutations(range(6)), st.permutations(range(5)))
def test_the_order_of_passages_and_of_queries_does_not_matter(
    three_ways: Any, passages: list[int], queries: list[int]
) -> None:
    packed, plain, _ = three_ways
    packed.decoder.budget = 300
    shuffled = [Group("", GROUPS[q].query, tuple(GROUPS[q].passages[p] for p in passages)) for q in queries]
    expected = packed.score(GROUPS)
    for q, of_packed, of_plain in zip(queries, packed.score(shuffled), plain.score(shuffled), strict=True):
        np.testing.assert_array_equal(of_packed, expected[q][passages])  # the rows are the same to the last token
        np.testing.assert_allclose(of_plain, expected[q][passages], atol=1e-4)


# ---- one answer


@engines
@pytest.mark.parametrize("name", ["Qwen3", "Gemma"])
def test_without_a_negative_answer_the_score_is_the_full_models_logit(tmp_path: Path, name: str, engine: str) -> None:
    folder = tiny.causal_folder(tmp_path, name, answers="Yes\n", **({"head_dim": 8} if name == "Gemma" else {}))
    asked = teacher(folder, template="bge-reranker-v2-gemma", engine=engine)
    expected = [full_head(folder, prompt, "Yes", None) for prompt in ids(asked, GROUPS)]
    np.testing.assert_allclose(np.concatenate(asked.score(GROUPS)), expected, atol=1e-4)
    assert asked.identity.score == "logit"
    assert not asked.identity.bounded


def test_an_answer_may_be_another_token_than_yes(tmp_path: Path) -> None:
    folder = tiny.causal_folder(tmp_path)
    asked = teacher(folder, template="mxbai-rerank-v2")
    expected = [full_head(folder, prompt, "1", "0") for prompt in ids(asked, GROUPS[:2])]
    np.testing.assert_allclose(np.concatenate(asked.score(GROUPS[:2])), expected, atol=1e-4)


def test_an_answer_of_two_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'yes' is \d tokens here; template qwen3-reranker needs 1"):
        teacher(tiny.causal_folder(tmp_path, answers="no\n")).score(GROUPS)


# ---- the prompt


def test_the_qwen3_reranker_prompt_is_the_model_cards_to_the_letter(qwen: Path) -> None:
    asked = teacher(qwen)
    assert asked.decoder.tokenizer.decode(the_prompt(asked, "how to open a window", "gather the stone")) == (
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
    tokenizer = opened(qwen)[1]
    head, tail = tokenizer(BEFORE)["input_ids"], tokenizer(AFTER)["input_ids"]
    before = f"<Instruct>: {INSTRUCTION}\n<Query>: {query}\n<Document>:"
    whole = [*head, *tokenizer(f"{before} {passage}")["input_ids"], *tail]
    needed = len(head) + len(tokenizer(f"{before} ")["input_ids"]) + len(tail)
    if needed >= most:
        with pytest.raises(UserError, match="max_length"):
            the_prompt(asked, query, passage)
        return
    found = asked.prompts([tiny.group(query, passage)])
    (prompt,) = (sequence.tolist() for sequence in found.sequences)
    assert prompt == (whole if len(whole) <= most else whole[: most - len(tail)] + tail)
    assert found.cut.tolist() == [len(whole) > most]
    assert tokenizer.decode(prompt).startswith(BEFORE + before)


def test_the_passage_is_cut_on_the_right_whatever_side_the_tokenizer_cuts(qwen: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(qwen, tmp_path / "left")
    described = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(described | {"truncation_side": "left"}))
    prompt = the_prompt(teacher(folder, max_length=300), "how", "window " * 400)
    assert prompt == the_prompt(teacher(qwen, max_length=300), "how", "window " * 400)
    assert len(prompt) == 300


@pytest.mark.parametrize("query", ["what is {passage}", "what is {instruction}", "what is {query}", "{0} {} %s"])
def test_braces_in_a_query_or_passage_are_plain_text(qwen: Path, query: str) -> None:
    asked = teacher(qwen, instruction="Judge {query} and {passage}")
    prompt = the_prompt(asked, query, "open {query} {instruction}")
    body = f"Judge {{query}} and {{passage}}\n<Query>: {query}\n<Document>: open {{query}} {{instruction}}<|im_end|>"
    assert body in asked.decoder.tokenizer.decode(prompt)


def test_a_query_that_leaves_no_room_is_refused_not_cut(qwen: Path) -> None:
    with pytest.raises(UserError, match=r"'window window.*max_length 300"):
        teacher(qwen, max_length=300).score([tiny.group("window " * 200, "passage")])


# ---- float8


def test_float8_on_a_cpu_orders_as_float32_does_and_is_not_the_same(tmp_path: Path) -> None:
    folder = tiny.causal_folder(tmp_path, hidden_size=128, head_dim=32, num_hidden_layers=3, initializer_range=0.1)
    exact, coarse, rough = (
        np.concatenate(teacher(folder, **changes).score(GROUPS))
        for changes in ({}, {"dtype": "bfloat16"}, {"dtype": "float8", "keep_layers": 0})
    )
    assert np.corrcoef(exact, rough)[0, 1] > 0.9
    assert np.abs(rough - exact).mean() > np.abs(coarse - exact).mean() > 0


# ---- identity


CHANGES: list[dict[str, Any]] = [
    {"instruction": "Find something else"},
    {"max_length": 99},
    {"dtype": "bfloat16"},
    {"dtype": "float8"},
    {"dtype": "float8", "keep_layers": 3},
    {"template": "qwen3-reranker-seed"},
    {"template": "yes-no"},
]


def test_the_identity_changes_with_each_setting(qwen: Path) -> None:
    digests = {teacher(qwen, **changes).identity.digest for changes in [{}, *CHANGES]}
    assert len(digests) == 1 + len(CHANGES)


@pytest.mark.parametrize("change", [{"engine": "plain"}, {"keep_layers": 5}, {"device": "auto"}])
def test_what_is_no_part_of_what_a_score_means_is_no_part_of_the_identity(qwen: Path, change: dict[str, Any]) -> None:
    assert teacher(qwen, **change).identity == teacher(qwen).identity


def test_a_named_instruction_is_the_same_identity_as_its_text(qwen: Path) -> None:
    named = teacher(qwen, instruction="web-search").identity
    written = "Given a web search query, retrieve relevant passages that answer the query"
    assert named == teacher(qwen, instruction=written).identity
    assert named.instruction == written


def test_the_instruction_is_no_part_of_what_a_template_without_one_means(qwen: Path) -> None:
    one, other = (teacher(qwen, template="mxbai-rerank-v2", instruction=text).identity for text in ("one", "other"))
    assert one == other
    assert one.instruction == ""


def test_the_identity_says_which_template_and_what_the_score_is(qwen: Path) -> None:
    identity = teacher(qwen).identity
    assert (identity.kind, identity.score, identity.bounded) == ("causal", "logit difference", False)
    assert identity.template.startswith("qwen3-reranker-")


def test_the_identity_changes_with_the_weights_and_not_with_the_place(qwen: Path, llama: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(qwen, tmp_path / "copy")
    assert teacher(copy).identity == teacher(qwen).identity
    assert teacher(llama).identity != teacher(qwen).identity


def test_the_identity_and_the_prompts_need_no_weights_in_memory(qwen: Path) -> None:
    asked = teacher(qwen)
    _ = asked.identity, asked.engine, asked.portion, asked.prepare(GROUPS)
    assert "model" not in vars(asked.decoder)


@engines
def test_the_engine_is_told_for_the_provenance(qwen: Path, engine: str) -> None:
    assert teacher(qwen, engine=engine).engine == engine


def test_released_weights_are_loaded_again_when_the_teacher_is_asked_again(qwen: Path) -> None:
    asked = teacher(qwen)
    before = asked.score(GROUPS[:1])[0]
    asked.release()
    assert "model" not in vars(asked.decoder)
    np.testing.assert_array_equal(asked.score(GROUPS[:1])[0], before)


def test_an_unknown_template_is_refused_with_the_near_one(qwen: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'qwen3-reranker'"):
        teacher(qwen, template="qwen-reranker")


@pytest.mark.parametrize("setting", ["dtype", "max_model_len", "trust_remote_code"])
def test_vllm_settings_that_are_said_elsewhere_are_refused(qwen: Path, setting: str) -> None:
    with pytest.raises(UserError, match=f"vllm: {setting} is said elsewhere"):
        teacher(qwen, engine="vllm", vllm={setting: 1})


def test_vllm_settings_are_part_of_the_identity_where_they_change_scores(qwen: Path) -> None:
    plain = teacher(qwen).identity
    assert teacher(qwen, engine="vllm", vllm={"tensor_parallel_size": 2}).identity == plain
    assert teacher(qwen, engine="vllm", vllm={"quantization": "fp8"}).identity != plain


def test_vllm_settings_without_vllm_are_refused(qwen: Path) -> None:
    with pytest.raises(UserError, match="for engine vllm, not packed"):
        teacher(qwen, vllm={"quantization": "fp8"})


def test_a_mistyped_instruction_name_is_no_instruction(qwen: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'web-search'"):
        teacher(qwen, instruction="web-serach")


def test_float8_is_not_for_vllm(qwen: Path) -> None:
    with pytest.raises(UserError, match="vLLM has its own"):
        teacher(qwen, engine="vllm", dtype="float8")
