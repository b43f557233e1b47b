"""Recall of the candidates and quality by depth, by hand and against ir-measures."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrank.evidence.retrieval import given_order, retrieval_of
from distilrank.metrics import measure
from distilrank.records import Group, Passage


def ranked(labels: list[int], ranks: list[int | None], number: int = 0) -> Group:
    entries = zip(labels, ranks, strict=True)
    return Group(str(number), f"q{number}", tuple(Passage(f"p{i}", label=a, rank=r) for i, (a, r) in enumerate(entries)))


def test_recall_counts_what_the_first_stage_brought() -> None:
    # By rank: p2 (positive), p0, p1; p3 is positive and was added by hand.
    group = ranked([0, 0, 1, 1], [2, 3, 1, None])
    found = retrieval_of([group], {"ideal": [np.asarray([0, 0, 1, 1], dtype=np.float32)]}, "AP")
    assert found is not None
    assert found.recall == {1: 0.5, 4: 0.5}
    # Reranking cannot bring the missed one up: it stays at place 4.
    assert found.by_depth["ideal"] == [pytest.approx((1 + 2 / 4) / 2)] * 2


def test_deeper_reranking_by_an_ideal_system_finds_more() -> None:
    group = ranked([0] * 9 + [1], list(range(1, 11)))
    found = retrieval_of([group], {"ideal": [np.asarray([0] * 9 + [1], dtype=np.float32)]}, "RR")
    assert found is not None
    assert found.depths == [1, 5, 10]
    assert found.by_depth["ideal"] == [pytest.approx(0.1), pytest.approx(0.1), pytest.approx(1)]
    assert found.recall == {1: 0, 5: 0, 10: 1}


@given(
    labels=st.lists(st.integers(0, 1), min_size=2, max_size=30).filter(lambda row: 0 < sum(row) < len(row)),
    seed=st.integers(0, 9),
)
def test_recall_is_ir_measures_and_the_whole_depth_is_the_systems_own_measure(labels: list[int], seed: int) -> None:
    group = ranked(labels, list(range(len(labels))))
    scores = [np.random.default_rng(seed).normal(size=len(labels)).astype(np.float32)]
    found = retrieval_of([group], {"m": scores}, "nDCG@10")
    assert found is not None
    qrels = [ir_measures.Qrel("0", str(i), label) for i, label in enumerate(labels)]
    run = [ir_measures.ScoredDoc("0", str(i), -float(i)) for i in range(len(labels))]
    for cut, recall in found.recall.items():
        assert recall == pytest.approx(ir_measures.R(cutoff=cut).calc_aggregate(qrels, run))
    assert found.by_depth["m"][-1] == pytest.approx(measure([group], scores).mean("nDCG@10"))


def test_the_order_of_the_labels_is_no_first_stage() -> None:
    listed = [Group("0", "q", (Passage("a", label=1), Passage("b", label=0)))]
    assert given_order(listed) is None
    assert retrieval_of(listed, {}, "AP") is None
    mixed = [*listed, Group("1", "r", (Passage("a", label=0), Passage("b", label=1)))]
    order = given_order(mixed)
    assert order is not None
    assert [row.tolist() for row in order] == [[0, -1], [0, -1]]
