"""A data set gives back the tokens that the scorer would read, is measured without being read, and is made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

import tiny
from distilrank.engines.classifier import encode_pairs
from distilrank.records import TrainingGroup
from distilrank.students.dataset import (
    NO_LABEL,
    encoded_rows,
    has_labels,
    sizes_of,
    tokenised,
    training_rows,
    used_tokens,
)

TEXTS = st.lists(st.sampled_from(tiny.WORDS), min_size=1, max_size=30).map(" ".join)


@st.composite
def training_groups(draw: Any) -> TrainingGroup:
    passages = draw(st.lists(TEXTS, min_size=2, max_size=5))
    pairs = draw(st.sampled_from([None, ((0, 1),)]))
    labels = draw(st.sampled_from([None, (1, *[None] * (len(passages) - 1))]))
    return TrainingGroup(draw(TEXTS), tuple(passages), tuple(map(float, range(len(passages)))), pairs, labels)


@pytest.fixture(scope="module", params=["bert", "xlmr"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return AutoTokenizer.from_pretrained(request.getfixturevalue(request.param))


@given(st.lists(training_groups(), min_size=1, max_size=4), st.integers(8, 60))
def test_rows_hold_what_the_scorer_would_read(tokenizer: Any, groups: list[TrainingGroup], max_length: int) -> None:
    found = list(training_rows(groups, tokenizer, max_length))
    queries = [group.query for group in groups for _ in group.passages]
    expected = encode_pairs(tokenizer, queries, [text for group in groups for text in group.passages], max_length)
    assert encoded_rows(found) == expected
    for row, group in zip(found, groups, strict=True):
        assert row["scores"] == list(group.scores)
        assert row["pairs"] == [list(pair) for pair in group.pairs or ()]
        assert row["labels"] == [-1 if label is None else label for label in group.labels or ()]


def test_a_label_is_any_that_a_file_may_hold(tokenizer: Any, tmp_path: Path) -> None:
    group = TrainingGroup("how to open a window", ("river", "stone"), (1.0, 0.0), labels=(2**40, None))
    data = tokenised([group], tokenizer, 64, tmp_path / "tokens", ["a"], lambda done: None)
    assert data[0]["labels"] == [2**40, NO_LABEL]


def test_a_querys_tokens_are_kept_once(tokenizer: Any) -> None:
    (row,) = training_rows([TrainingGroup("how to open a window", ("river", "stone"), (1.0, 0.0))], tokenizer, 64)
    alone = tokenizer("how to open a window")["input_ids"]
    assert row["shared_input_ids"][: len(alone)] == alone
    assert max(map(len, row["rest_input_ids"])) < len(alone)


def some(count: int) -> list[TrainingGroup]:
    return [
        TrainingGroup(
            group.query, tuple(p.text for p in group.passages), (2.0, 1.0, 0.0, -1.0), ((0, 1),) if n % 3 else None
        )
        for n, group in enumerate(tiny.groups(count))
    ]


def test_sizes_and_tokens_are_those_of_the_rows(tokenizer: Any, tmp_path: Path) -> None:
    groups = some(20)
    data = tokenised(groups, tokenizer, 64, tmp_path / "tokens", ["a"], lambda done: None)
    sizes = sizes_of(data)
    for number, row in enumerate(training_rows(groups, tokenizer, 64)):
        lengths = [len(ids) for ids in encoded_rows([row])["input_ids"]]
        assert (sizes.tokens[number], sizes.passages[number], sizes.longest[number]) == (sum(lengths), 4, max(lengths))
        assert sizes.margins[number] == (1 if number % 3 else 6)
        assert data[number]["number"] == number
    rows = encoded_rows([data[number] for number in range(20)])["input_ids"]
    assert used_tokens(data).tolist() == sorted({token for ids in rows for token in ids})
    assert not has_labels(data)


def test_a_data_set_is_made_once_and_anew_when_anything_changes(tokenizer: Any, tmp_path: Path) -> None:
    made: list[int] = []
    first = tokenised(some(5), tokenizer, 64, tmp_path / "tokens", ["a"], made.append)
    again = tokenised(iter(()), tokenizer, 64, tmp_path / "tokens", ["a"], made.append)
    assert (len(made), again[:]) == (5, first[:])
    other = tokenised(some(3), tokenizer, 64, tmp_path / "tokens", ["b"], made.append)
    assert (len(made), len(other)) == (8, 3)
    assert len(list((tmp_path / "tokens").iterdir())) == 1


def test_a_data_set_that_was_cut_off_is_not_taken_for_whole(tokenizer: Any, tmp_path: Path) -> None:
    def cut(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenised(some(5), tokenizer, 64, tmp_path / "tokens", ["a"], cut)
    assert not list((tmp_path / "tokens").glob("*.arrow"))
    assert len(tokenised(some(5), tokenizer, 64, tmp_path / "tokens", ["a"], lambda done: None)) == 5


def test_sizes_are_numbers_and_not_a_copy_of_the_tokens(tokenizer: Any, tmp_path: Path) -> None:
    sizes = sizes_of(tokenised(some(7), tokenizer, 64, tmp_path / "tokens", ["a"], lambda done: None))
    assert all(isinstance(values, np.ndarray) and values.shape == (7,) for values in vars(sizes).values())
