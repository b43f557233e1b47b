"""The tests are scipy's, chance is rejected as often as it should be, an effect is found, Holm's correction is his."""

from __future__ import annotations

import math
from dataclasses import astuple, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.errors import UserError
from distilrank.evidence.significance import Paired, corrected, paired, paired_differences

VALUES = st.floats(0, 1) | st.just(float("nan"))
ROWS = st.lists(st.tuples(VALUES, VALUES), min_size=6, max_size=30)


def differences(rows: list[tuple[float, float]]) -> np.ndarray:
    first, second = np.asarray(rows).T
    return (first - second)[~np.isnan(first) & ~np.isnan(second)]


@settings(max_examples=25)
@given(rows=ROWS)
def test_the_paired_t_test_is_scipys(rows: list[tuple[float, float]]) -> None:
    from scipy.stats import ttest_1samp

    kept = differences(rows)
    if len(kept) < 3 or kept.std() < 1e-6:
        return
    found = paired(*np.asarray(rows).T)
    assert (found.difference, found.queries) == (pytest.approx(kept.mean()), len(kept))
    assert found.p == pytest.approx(ttest_1samp(kept, 0).pvalue, rel=1e-6)
    assert found.low <= found.difference + 1e-12
    assert found.high >= found.difference - 1e-12


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.4])
def test_the_randomisation_test_is_scipys_exact_one(shift: float) -> None:
    from scipy.stats import permutation_test

    values = np.random.default_rng(3).normal(shift, 0.4, 12).round(1)
    wanted = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    # 9,999 draws of the signs: three standard errors of a share near the middle are .015.
    assert paired(values, np.zeros(12)).p_randomisation == pytest.approx(wanted, abs=0.015)


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(4).exponential(0.2, 60)
    wanted = bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(5)).confidence_interval
    found = paired(values, np.zeros(60))
    assert (found.low, found.high) == (pytest.approx(wanted.low, abs=0.004), pytest.approx(wanted.high, abs=0.004))


def test_columns_are_tested_as_if_each_were_alone() -> None:
    columns = np.random.default_rng(6).normal(0.1, 0.3, (40, 3))
    for together, column in zip(paired_differences(columns), columns.T, strict=True):
        assert astuple(together) == pytest.approx(astuple(paired(column, np.zeros(40))), rel=1e-9)


# ---- what has no answer


def test_equal_systems_differ_by_nothing() -> None:
    same = np.asarray([0.1, 0.5, 0.7, np.nan])
    found = paired(same, same)
    assert (found.p, found.p_randomisation, found.low, found.high, found.queries) == (1, 1, 0, 0, 3)
    assert not found.shown


def test_a_constant_difference_has_no_t_test_and_is_decided_by_the_signs() -> None:
    many = paired(np.full(20, 0.3), np.full(20, 0.1))
    assert math.isnan(many.p)
    assert many.shown
    few = paired(np.full(3, 0.3), np.full(3, 0.1))
    # Two of eight patterns of signs are as extreme.
    assert few.p_randomisation == pytest.approx(0.25, abs=0.015)
    assert not few.shown


def test_one_query_shows_nothing_and_none_is_refused() -> None:
    alone = paired(np.asarray([0.5, np.nan]), np.asarray([0.25, 0.1]))
    assert (alone.difference, alone.queries, alone.shown) == (0.25, 1, False)
    assert math.isnan(alone.p)
    with pytest.raises(UserError, match="no query"):
        paired(np.asarray([np.nan]), np.asarray([0.1]))


# ---- how often


def test_chance_is_rejected_as_often_as_the_level_says() -> None:
    """The signs of real-looking differences (many zeros, heavy tails) drawn at random: benchmarks/null_simulation.py does
    it with a real pair of systems and 2,000 draws.
    """
    from null_simulation import rejected

    rng = np.random.default_rng(7)
    values = rng.choice([0, 0, 0, 0.5, -0.5, 0.1, 2 / 3, -0.25], 150)
    by_t, by_signs = rejected(values, draws=500, seed=8)
    # 500 draws at .05: 3.5 standard errors are .034.
    assert by_t == pytest.approx(0.05, abs=0.034)
    assert by_signs == pytest.approx(0.05, abs=0.034)


def test_the_smallest_difference_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(9)
    noise = rng.normal(0, 0.3, (40, 400))
    smallest = paired(noise[:, 0], np.zeros(40)).smallest * 0.3 / noise[:, 0].std(ddof=1)
    found = paired_differences(noise + smallest)
    # 400 draws at .8: 3.5 standard errors are .07.
    assert np.mean([test.p < 0.05 for test in found]) == pytest.approx(0.8, abs=0.07)
    assert np.mean([test.p < 0.05 for test in paired_differences(noise + 3 * smallest)]) == 1


# ---- several systems


def of_p(p: float) -> Paired:
    return Paired(0.1, 0.0, 0.2, p, p, p, 0.1, 10)


@given(ps=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_his_procedure_rejects(ps: list[float]) -> None:
    found = [test.p_holm for test in corrected([of_p(p) for p in ps])]
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    stopped = False
    for place, index in enumerate(order):
        stopped = stopped or not ps[index] * (len(ps) - place) < 0.05
        assert (found[index] < 0.05) == (not stopped)
        assert found[index] >= ps[index]
    assert all(found[a] <= found[b] for a, b in pairwise(order))


@given(ps=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_the_level_of_a_test_is_the_p_below_which_holm_rejects_it(ps: list[float]) -> None:
    found = corrected([of_p(p) for p in ps])
    for index, test in enumerate(found):
        assert 0.05 / len(ps) <= test.level <= 0.05
        for p, rejected in ((test.level * 0.999, True), (test.level * 1.001, False)):
            others = [*ps[:index], p, *ps[index + 1 :]]
            assert corrected([of_p(p) for p in others])[index].shown == rejected


def test_the_smallest_difference_is_that_of_the_level_used() -> None:
    """Shown with power .8 after the correction, by simulation; at .05 alone it would be said to be smaller."""
    rng = np.random.default_rng(10)
    noise = rng.normal(0, 0.3, (40, 400))
    alone = paired(noise[:, 0], np.zeros(40))
    family = corrected([alone, replace(alone, p_holm=0.6), replace(alone, p_holm=0.7)])
    assert family[0].level == pytest.approx(0.05 / 3)
    assert family[0].smallest > 1.1 * alone.smallest
    smallest = family[0].smallest * 0.3 / noise[:, 0].std(ddof=1)
    found = paired_differences(noise + smallest)
    assert np.mean([test.p < family[0].level for test in found]) == pytest.approx(0.8, abs=0.07)
    assert corrected([alone])[0] == alone


def test_what_is_no_test_counts_for_none() -> None:
    found = corrected([of_p(0.03), replace(of_p(0.5), p_holm=float("nan")), of_p(0.02)])
    assert [found[0].p_holm, found[2].p_holm] == [pytest.approx(0.04), pytest.approx(0.04)]
    assert math.isnan(found[1].p_holm)
