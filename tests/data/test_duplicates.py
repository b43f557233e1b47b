"""Near duplicates against every pair compared; whatever is joined is really alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from distilrank.data.duplicates import clusters, shingles, similarity
from distilrank.errors import UserError

TEXTS = st.lists(st.text("ab 1é中", max_size=12), max_size=12)


def every_pair(texts: list[str], threshold: float) -> np.ndarray:
    """The oracle: all pairs compared, then the connected components."""
    sets = [shingles(text) for text in texts]
    near = [[len(a & b) >= threshold * len(a | b) for b in sets] for a in sets]
    return connected_components(np.asarray(near, dtype=bool), directed=False)[1]


def partition(numbers: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(numbers == number).tolist()) for number in set(numbers.tolist())}


@given(TEXTS, st.sampled_from([0.5, 0.8, 1.0]))
@settings(max_examples=25)
def test_nothing_is_joined_that_is_not_alike(texts: list[str], threshold: float) -> None:
    ours = partition(clusters(texts, threshold))
    whole = partition(every_pair(texts, threshold)) if texts else set()
    assert all(any(part <= other for other in whole) for part in ours)


def test_on_real_questions_all_but_a_few_pairs_are_found(real_data: Path) -> None:
    lines = (real_data / "askubuntu_dup/train_unlabelled.jsonl").read_text(encoding="utf-8").splitlines()[:400]
    texts = [json.loads(line)["query"] for line in lines]
    texts += [f"{text}!" for text in texts[:20]] + [f"Please: {text}" for text in texts[20:120]]
    ours, whole = partition(clusters(texts, 0.8)), partition(every_pair(texts, 0.8))
    assert len(whole) <= len(texts) - 60
    assert len(whole) <= len(ours) <= len(whole) + 2


def test_case_width_and_punctuation_make_no_difference() -> None:
    texts = [
        "How do I install Java?",
        "how do i install java",
        "ＨＯＷ do I install — Java!!",
        "Remove a kernel",
        "如何安装",
        "如何安装?",
    ]
    assert clusters(texts).tolist() == [0, 0, 0, 1, 2, 2]


def test_a_chain_joins_its_ends() -> None:
    base = "abcdefghijklmnopqrstuvwxyz0123456789"
    chain = [base[start : start + 24] for start in range(0, 9, 2)]
    assert similarity(chain[0], chain[1]) >= 0.8 > similarity(chain[0], chain[-1])
    assert len(set(clusters(chain).tolist())) == 1


def test_texts_without_a_letter_are_themselves() -> None:
    assert clusters(["?", "!", "?", ""]).tolist() == [0, 1, 0, 2]
    assert clusters([]).shape == (0,)


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
def test_a_threshold_outside_is_refused(threshold: float) -> None:
    with pytest.raises(UserError, match="above 0 and at most at 1"):
        clusters(["a"], threshold)
