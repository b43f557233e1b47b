"""Agreement is Kendall's and scikit-learn's; without labels it is all that an evaluation says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from distilrank.errors import UserError
from distilrank.evidence import System, evaluate, load_evaluation, save_evaluation
from distilrank.evidence.agreement import agreement_with, kendall_tau
from evidence import samples

TIED = st.integers(-3, 3).map(float)


@given(pairs=st.lists(st.tuples(TIED, TIED), min_size=2, max_size=15))
def test_tau_is_scipys(pairs: list[tuple[float, float]]) -> None:
    first, second = np.asarray(pairs, dtype=np.float32).T
    wanted = kendalltau(first, second).statistic
    assert kendall_tau(first, second) == pytest.approx(0.0 if np.isnan(wanted) else wanted)


def test_the_teacher_agrees_with_itself_and_its_opposite_does_not() -> None:
    of = samples.groups()
    teacher = samples.scores(of, 1.0, 0)
    same = agreement_with(of, teacher, teacher)
    assert (same.kendall_tau, same.ndcg, same.top1) == (pytest.approx(1), pytest.approx(1), 1)
    other = agreement_with(of, teacher, [-row for row in teacher])
    assert (other.kendall_tau, other.top1) == (pytest.approx(-1), 0)
    assert other.ndcg < 0.7


def test_a_teacher_without_an_order_has_nothing_to_agree_with() -> None:
    of = samples.groups()
    teacher = samples.scores(of, 1.0, 0)
    teacher[3] = np.zeros(8, dtype=np.float32)
    found = agreement_with(of, teacher, teacher)
    assert found.queries == len(of) - 1
    assert np.isnan(found.values["top1"][3])


def test_without_labels_only_agreement_is_said(tmp_path: Path) -> None:
    of = samples.groups()
    found = evaluate(samples.unlabelled(of), samples.systems(of))
    assert (found.measures, found.measured, found.comparisons, found.levels) == ((), {}, {}, {})
    assert not found.judged.any()
    assert found.agreement["after"].ndcg > found.agreement["before"].ndcg
    assert found.agreement_change["ndcg"].shown
    assert set(found.agreement) == {"bm25", "before", "after"}
    save_evaluation(found, tmp_path / "eval")
    loaded = load_evaluation(tmp_path / "eval")
    assert loaded.agreement_change == found.agreement_change
    for name, one in found.agreement.items():
        np.testing.assert_array_equal(loaded.agreement[name].values["kendall_tau"], one.values["kendall_tau"])


def test_neither_labels_nor_a_teacher_is_nothing_to_measure() -> None:
    of = samples.groups()
    with pytest.raises(UserError, match="nothing to measure"):
        evaluate(samples.unlabelled(of), [System("m", "model", samples.scores(of, 1.0, 0))])
