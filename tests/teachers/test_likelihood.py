"""The mean log-likelihood of a query after a passage: a pair's own, whoever else asks of the passage."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from distilrank.engines import decoder
from distilrank.errors import UserError
from distilrank.teachers import likelihood
from distilrank.teachers.likelihood import LikelihoodTeacher
from distilrank.teachers.prompts import packaged_templates

BEFORE, _, AFTER, _ = packaged_templates()["chatml-question"].pieces
PASSAGES = [tiny.text(random.Random(n), 1, 80) for n in range(8)]
QUERIES = [tiny.text(random.Random(n), 1, 12 * (1 + n % 3)) for n in range(20, 28)]
ASKED = st.lists(st.tuples(st.sampled_from(QUERIES), st.lists(st.sampled_from(PASSAGES), min_size=1)), max_size=6)
MOST = 160
engines = pytest.mark.parametrize("engine", ["packed", "plain"])


def made(folder: Path, **changes: Any) -> LikelihoodTeacher:
    return LikelihoodTeacher(folder, **{"max_length": MOST, "dtype": "float32", "device": "cpu"} | changes)


@pytest.fixture(scope="module", params=["qwen", "llama"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def teachers(folder: Path) -> dict[str, LikelihoodTeacher]:
    return {engine: made(folder, engine=engine) for engine in ("packed", "plain")}


@pytest.fixture(scope="module")
def alone(folder: Path) -> Any:
    """The score of one pair from a plain forward of its one sequence."""
    return one_by_one(folder)


def one_by_one(folder: Path) -> Any:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    @cache
    def score(query: str, passage: str) -> float:
        before, after, asked, said = tokenizer([BEFORE, AFTER, query, passage])["input_ids"]
        prefix = before + said[: MOST - len(before) - len(after) - len(asked)] + after
        with torch.inference_mode():
            log_p = model(torch.tensor([prefix + asked])).logits[0].log_softmax(-1)
        return float(np.mean([log_p[len(prefix) - 1 + i, token] for i, token in enumerate(asked)]))

    return score


@engines
def test_scores_equal_one_by_one_means_and_are_cut_to_each_querys_room(
    teachers: dict[str, LikelihoodTeacher], alone: Any, engine: str
) -> None:
    groups = [tiny.group(query, *PASSAGES) for query in QUERIES]
    assert teachers[engine].prompts(groups).cut.any()
    for group, values in zip(groups, teachers[engine].score(groups), strict=True):
        np.testing.assert_allclose(values, [alone(group.query, passage) for passage in PASSAGES], atol=1e-4)
        assert values.dtype == np.float32
        assert (values < 0).all()


@settings(max_examples=20)
@given(ASKED, st.integers(1, 1_000))
def test_a_score_depends_on_its_pair_alone(
    teachers: dict[str, LikelihoodTeacher], alone: Any, asked: list[Any], budget: int
) -> None:
    teachers["packed"].decoder.budget = budget
    groups = [tiny.group(query, *passages) for query, passages in asked]
    for teacher in teachers.values():
        for group, values in zip(groups, teacher.score(groups), strict=True):
            expected = [alone(group.query, passage.text) for passage in group.passages]
            np.testing.assert_allclose(values, expected, atol=1e-4)


@settings(max_examples=10)
@given(st.permutations(range(8)), st.permutations(range(4)))
def test_the_order_of_passages_and_of_queries_does_not_matter(
    teachers: dict[str, LikelihoodTeacher], passages: list[int], queries: list[int]
) -> None:
    teachers["packed"].decoder.budget = 500
    expected = teachers["packed"].score([tiny.group(query, *PASSAGES) for query in QUERIES[:4]])
    shuffled = [tiny.group(QUERIES[q], *(PASSAGES[p] for p in passages)) for q in queries]
    found = {engine: teacher.score(shuffled) for engine, teacher in teachers.items()}
    for q, of_packed, of_plain in zip(queries, found["packed"], found["plain"], strict=True):
        np.testing.assert_array_equal(of_packed, expected[q][passages])  # the rows are the same to the last token
        np.testing.assert_allclose(of_plain, expected[q][passages], atol=1e-4)


def test_logits_over_the_vocabulary_are_held_a_few_at_a_time(
    teachers: dict[str, LikelihoodTeacher], alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "HEAD_ROWS", 3)
    monkeypatch.setitem(decoder.TOKENS_A_BATCH, "cpu", 300)
    for teacher in teachers.values():
        (values,) = teacher.score([tiny.group(QUERIES[2], *PASSAGES)])
        np.testing.assert_allclose(values, [alone(QUERIES[2], passage) for passage in PASSAGES], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "config"), [("Granite", {"logits_scaling": 4.0}), ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 0.5})]
)
def test_a_model_that_scales_or_caps_its_logits_is_exact(tmp_path: Path, name: str, config: dict[str, Any]) -> None:
    folder = tiny.causal_folder(tmp_path, name, **config)
    alone = one_by_one(folder)
    (values,) = made(folder).score([tiny.group(QUERIES[0], *PASSAGES)])
    np.testing.assert_allclose(values, [alone(QUERIES[0], passage) for passage in PASSAGES], atol=1e-4)


def test_a_passage_is_read_once_for_all_its_queries(teachers: dict[str, LikelihoodTeacher]) -> None:
    teacher = teachers["packed"]
    teacher.decoder.budget = 10_000
    passage = "window " * 60
    asked = teacher.prompts([tiny.group(query, passage) for query in ("how", "why", "what", "when")])
    (row,) = teacher.decoder.lay_out(asked.sequences, asked.tails).rows
    assert len(row.ids) < min(map(len, asked.sequences)) + 20


@engines
def test_progress_counts_every_pair(teachers: dict[str, LikelihoodTeacher], engine: str) -> None:
    told: list[int] = []
    teachers[engine].score([tiny.group(query, *PASSAGES) for query in QUERIES[:3]], told.append)
    assert sum(told) == 3 * len(PASSAGES)


def test_no_groups_have_no_scores(teachers: dict[str, LikelihoodTeacher]) -> None:
    assert teachers["packed"].score([]) == []


def test_a_query_that_leaves_no_room_is_refused_not_cut(teachers: dict[str, LikelihoodTeacher]) -> None:
    with pytest.raises(UserError, match="max_length"):
        teachers["packed"].score([tiny.group("window " * MOST, "passage")])


def test_float8_on_a_cpu_orders_as_float32_does(tmp_path: Path) -> None:
    folder = tiny.causal_folder(tmp_path, hidden_size=128, head_dim=32, num_hidden_layers=3, initializer_range=0.1)
    groups = [tiny.group(query, *PASSAGES) for query in QUERIES]
    exact, rough = (
        np.concatenate(made(folder, **changes).score(groups)) for changes in ({}, {"dtype": "float8", "keep_layers": 0})
    )
    assert np.corrcoef(exact, rough)[0, 1] > 0.9
    assert not np.array_equal(exact, rough)


CHANGES: list[dict[str, Any]] = [
    {"template": "chatml-docstring"},
    {"max_length": MOST + 1},
    {"dtype": "bfloat16"},
    {"dtype": "float8"},
    {"dtype": "float8", "keep_layers": 1},
]


def test_the_identity_changes_with_each_setting_and_with_the_weights(qwen: Path, llama: Path) -> None:
    identities = [made(qwen).identity, made(llama).identity, *(made(qwen, **changes).identity for changes in CHANGES)]
    assert len({identity.digest for identity in identities}) == 2 + len(CHANGES)


def test_the_identity_says_log_likelihood_and_not_which_engine(qwen: Path) -> None:
    identity = made(qwen).identity
    assert (identity.kind, identity.score, identity.bounded) == ("likelihood", "log-likelihood", True)
    assert identity == made(qwen, engine="plain").identity
    assert (made(qwen).engine, made(qwen, engine="plain").engine) == ("packed", "plain")


def test_released_weights_are_loaded_again_when_the_teacher_is_asked_again(qwen: Path) -> None:
    teacher = made(qwen)
    before = teacher.score([tiny.group(QUERIES[0], *PASSAGES)])[0]
    teacher.release()
    assert "model" not in vars(teacher.decoder)
    np.testing.assert_array_equal(teacher.score([tiny.group(QUERIES[0], *PASSAGES)])[0], before)
