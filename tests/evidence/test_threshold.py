"""The absolute score: areas by counting pairs, a threshold by trying them all, and what margins do to the level."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrank.evidence.threshold import best_threshold, level_note, level_of
from evidence import samples


def counted(labels: np.ndarray, scores: np.ndarray) -> float:
    pairs = list(product(scores[labels], scores[~labels]))
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def test_both_areas_are_counts_of_pairs() -> None:
    of = samples.groups(12)
    rows = [row.round(0) for row in samples.scores(of, 1.0, 0)]
    level = level_of(of, rows)
    labels = [np.asarray([bool(p.label) for p in group.passages]) for group in of]
    judged = [n for n, row in enumerate(labels) if row.any() and not row.all()]
    pooled = np.concatenate([labels[n] for n in judged]), np.concatenate([rows[n] for n in judged])
    assert level is not None
    assert level.auc == pytest.approx(counted(*pooled))
    assert level.auc_within == pytest.approx(np.mean([counted(labels[n], rows[n]) for n in judged]))
    assert level.base_rate == pytest.approx(pooled[0].mean())


@given(pairs=st.lists(st.tuples(st.booleans(), st.integers(-5, 5).map(float)), min_size=2, max_size=20))
def test_no_other_threshold_has_a_better_f1(pairs: list[tuple[bool, float]]) -> None:
    labels, scores = np.asarray([a for a, _ in pairs]), np.asarray([b for _, b in pairs])
    if not labels.any():
        return

    def f1(cut: float) -> float:
        return 2 * float(labels[scores >= cut].sum()) / float((scores >= cut).sum() + labels.sum())

    assert f1(best_threshold(labels, scores)) == pytest.approx(max(map(f1, scores)))


def test_a_threshold_is_judged_on_queries_that_did_not_choose_it() -> None:
    # Scores without any meaning: whatever is chosen, cutting unseen queries is right as often as chance.
    of = samples.groups(200)
    level = level_of(of, samples.scores(of, 0.0, 1))
    assert level is not None
    assert level.auc == pytest.approx(0.5, abs=0.06)
    assert level.precision == pytest.approx(level.base_rate, abs=0.03)


def test_a_level_that_moved_between_queries_is_noted_and_one_that_held_is_not() -> None:
    of = samples.groups(100)
    before, after = samples.scores(of, 1.0, 2), samples.scores(of, 2.0, 3)
    drift = np.random.default_rng(4).normal(scale=5, size=len(of))
    moved = level_of(of, [row + shift for row, shift in zip(after, drift, strict=True)])
    first, held = level_of(of, before), level_of(of, after)
    assert first is not None
    assert moved is not None
    assert held is not None
    assert moved.auc_within == pytest.approx(held.auc_within)
    assert moved.auc < first.auc < held.auc
    assert moved.query_deviation > 4 > held.query_deviation
    assert "leaves free, moved: " in level_note(first, moved)
    assert level_note(first, held).startswith("The level between queries moved no more")


def test_without_labels_there_is_no_level() -> None:
    of = samples.groups(3)
    assert level_of(samples.unlabelled(of), samples.scores(of, 1.0, 0)) is None
