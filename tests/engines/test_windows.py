"""Windows against a reading by hand: each window forwarded alone, and the largest logit of each passage."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import tiny
from distilrank.engines.classifier import Reranker, encode_pairs
from distilrank.engines.windows import count_windows, encode_windows, largest
from distilrank.errors import UserError

both = pytest.mark.parametrize("name", ["bert", "xlmr"])
MOST, OVERLAP = 40, 7
RNG = random.Random(3)
GROUPS = [tiny.group(tiny.text(RNG, 2, 5), *(tiny.text(RNG, 1, words) for words in (5, 30, 80, 200))) for _ in range(3)]


@pytest.fixture
def folder(name: str, request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(name)


def by_hand(folder: Path, query: str, passage: str) -> list[float]:
    """The logit of each window, built token by token."""
    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForSequenceClassification.from_pretrained(folder).eval(),
    )
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (query, passage))
    room = MOST - len(first) - tokenizer.num_special_tokens_to_add(pair=True)
    found, start = [], 0
    while True:
        piece = second[start : start + room]
        bert = "token_type_ids" in tokenizer.model_input_names
        ends = [tokenizer.sep_token_id] * (1 if bert else 2)
        ids = [tokenizer.cls_token_id, *first, *ends, *piece, tokenizer.sep_token_id]
        inputs = {"input_ids": torch.tensor([ids])}
        if bert:
            inputs["token_type_ids"] = torch.tensor([[0] * (len(first) + 2) + [1] * (len(piece) + 1)])
        with torch.inference_mode():
            found.append(model(**inputs).logits.item())
        if start + room >= len(second):
            return found
        start += room - OVERLAP


@both
def test_the_largest_logit_of_the_windows_is_the_score(folder: Path) -> None:
    scores = Reranker(folder, max_length=MOST, dtype="float32", device="cpu", windows=OVERLAP).score(GROUPS)
    counts = []
    for group, values in zip(GROUPS, scores, strict=True):
        for passage, value in zip(group.passages, values, strict=True):
            windows = by_hand(folder, group.query, passage.text)
            counts.append(len(windows))
            assert value == pytest.approx(max(windows), abs=1e-5)
    assert max(counts) > 5
    assert 1 in counts


@both
def test_a_passage_that_fits_scores_as_without_windows(folder: Path) -> None:
    short = [tiny.group("how why", "river stone", "garden")]
    plain, windowed = (
        Reranker(folder, max_length=MOST, dtype="float32", device="cpu", windows=overlap).score(short)[0]
        for overlap in (None, OVERLAP)
    )
    np.testing.assert_allclose(windowed, plain, atol=1e-6)


@both
@settings(max_examples=30, deadline=None)
@given(words=st.integers(0, 120), overlap=st.integers(0, 12))
def test_windows_hold_every_token_and_repeat_the_overlap(
    name: str, words: int, overlap: int, request: pytest.FixtureRequest
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(name))
    query, passage = "how why", tiny.text(random.Random(words), words, words) if words else ""
    ids = tokenizer(passage, add_special_tokens=False)["input_ids"]
    encoded, pair_of = encode_windows(tokenizer, [query], [passage], MOST, overlap)
    head = len(encode_pairs(tokenizer, [query], [""], MOST)["input_ids"][0]) - 1
    pieces = [row[head:-1] for row in encoded["input_ids"]]
    assert pieces[0] + [token for piece in pieces[1:] for token in piece[overlap:]] == ids
    assert all(before[len(before) - overlap :] == after[:overlap] for before, after in pairwise(pieces))
    assert max(map(len, encoded["input_ids"])) <= MOST
    assert set(pair_of) == {0}
    assert count_windows(tokenizer, [query], [passage], MOST, overlap).tolist() == [len(pieces)]


@both
def test_a_query_that_leaves_no_room_is_refused(folder: Path) -> None:
    reranker = Reranker(folder, max_length=20, dtype="float32", device="cpu", windows=8)
    with pytest.raises(UserError, match="windows of 20 that overlap by 8"):
        reranker.score([tiny.group("river " * 12, "stone")])


def test_the_largest_of_each_pair() -> None:
    scores = np.array([1.0, -2.0, -1.0, 5.0], dtype=np.float32)
    np.testing.assert_array_equal(largest(scores, np.array([0, 1, 1, 2]), 3), np.array([1.0, -1.0, 5.0], dtype=np.float32))
