"""The mean log-likelihood of a query after a passage: a pair's own, whoever else asks of the passage."""

from __future__ import annotations

import random
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
from distilrank.teachers.likelihood import LikelihoodTeacher
from distilrank.teachers.prompts import LIKELIHOOD

TEMPLATE = LIKELIHOOD["chatml-question"]
PASSAGES = [tiny.text(random.Random(n), 1, 80) for n in range(8)]
QUERIES = [tiny.text(random.Random(n), 1, 12 * (1 + n % 3)) for n in range(20, 28)]
ASKED = st.tuples(st.sampled_from(QUERIES), st.lists(st.sampled_from(PASSAGES), min_size=1))
MOST = 160


@pytest.fixture(scope="module")
def teacher(qwen: Path) -> LikelihoodTeacher:
    return LikelihoodTeacher(qwen, max_length=MOST, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def alone(qwen: Path) -> Any:
    """The score of one pair from a plain forward of its one sequence."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(qwen).eval(), AutoTokenizer.from_pretrained(qwen)

    def score(query: str, passage: str) -> float:
        before, after, asked, said = tokenizer([TEMPLATE.before, TEMPLATE.after, query, passage])["input_ids"]
        prefix = before + said[: MOST - len(before) - len(after) - len(asked)] + after
        with torch.inference_mode():
            log_p = model(torch.tensor([prefix + asked])).logits[0].log_softmax(-1)
        return float(np.mean([log_p[len(prefix) - 1 + i, token] for i, token in enumerate(asked)]))

    return score


def test_scores_equal_one_by_one_means_and_are_cut_to_each_querys_room(teacher: LikelihoodTeacher, alone: Any) -> None:
    groups = [tiny.group(query, *PASSAGES) for query in QUERIES]
    for group, values in zip(groups, teacher.score(groups), strict=True):
        np.testing.assert_allclose(values, [alone(group.query, passage) for passage in PASSAGES], atol=1e-4)
        assert values.dtype == np.float32
        assert (values < 0).all()


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(QUERIES), st.lists(st.sampled_from(PASSAGES), min_size=1)), min_size=1, max_size=6)
)
def test_a_score_depends_on_its_pair_alone(teacher: LikelihoodTeacher, alone: Any, asked: list[Any]) -> None:
    groups = [tiny.group(query, *passages) for query, passages in asked]
    for group, values in zip(groups, teacher.score(groups), strict=True):
        expected = [alone(group.query, passage.text) for passage in group.passages]
        np.testing.assert_allclose(values, expected, atol=1e-4)


def test_progress_counts_every_pair(teacher: LikelihoodTeacher) -> None:
    told: list[int] = []
    teacher.score([tiny.group(query, *PASSAGES) for query in QUERIES[:3]], told.append)
    assert sum(told) == 3 * len(PASSAGES)


def test_no_groups_have_no_scores(teacher: LikelihoodTeacher) -> None:
    assert teacher.score([]) == []


def test_a_query_that_leaves_no_room_is_refused_not_cut(teacher: LikelihoodTeacher) -> None:
    with pytest.raises(UserError, match="max_length"):
        teacher.score([tiny.group("window " * MOST, "passage")])


def test_the_identity_changes_with_template_length_and_weights(qwen: Path, llama: Path) -> None:
    identities = [
        LikelihoodTeacher(qwen, max_length=MOST).identity,
        LikelihoodTeacher(qwen, max_length=MOST, template="chatml-docstring").identity,
        LikelihoodTeacher(qwen, max_length=MOST + 1).identity,
        LikelihoodTeacher(llama, max_length=MOST).identity,
    ]
    assert len({identity.digest for identity in identities}) == 4
    assert identities[0].bounded
