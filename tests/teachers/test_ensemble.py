"""Members' scores combined by the rule on record, against numpy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrank.errors import UserError
from distilrank.teachers.ensemble import Ensemble, spread

SIZES = (3, 5, 2, 8)
RNG = np.random.default_rng(0)
SCORES = [[RNG.normal(shift, width, size).astype(np.float32) for size in SIZES] for shift, width in ((-5, 0.5), (0.4, 0.1))]


def ensemble(normalize: str = "global") -> Ensemble:
    members: Any = tuple(SimpleNamespace(identity=SimpleNamespace(kind=kind)) for kind in ("likelihood", "embedder"))
    return Ensemble(members, (1.0, 0.5), normalize)


def test_an_affine_gives_a_member_mean_0_and_within_query_deviation_1() -> None:
    for scores, affine in zip(SCORES, ensemble().fit(SCORES), strict=True):
        mapped = [values.astype(np.float64) * affine.scale + affine.shift for values in scores]
        assert np.concatenate(mapped).mean() == pytest.approx(0, abs=1e-6)
        assert np.sqrt(np.mean([np.var(values) for values in mapped])) == pytest.approx(1)


def test_global_combination_is_the_weighted_sum_of_affines() -> None:
    both = ensemble()
    affines = both.fit(SCORES)
    for first, second, found in zip(*SCORES, both.combine(SCORES, affines), strict=True):
        expected = (first * affines[0].scale + affines[0].shift) + 0.5 * (second * affines[1].scale + affines[1].shift)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert found.dtype == np.float32


def test_an_affine_fitted_on_training_scores_is_used_as_it_is_on_others() -> None:
    both = ensemble()
    affines = both.fit(SCORES)
    shifted = [[values + 1 for values in scores] for scores in SCORES]
    moved = np.concatenate(both.combine(shifted, affines)) - np.concatenate(both.combine(SCORES, affines))
    np.testing.assert_allclose(moved, affines[0].scale + 0.5 * affines[1].scale, rtol=1e-4)


def test_query_combination_is_the_weighted_sum_of_z_scores() -> None:
    both = ensemble("query")
    for first, second, found in zip(*SCORES, both.combine(SCORES, both.fit(SCORES)), strict=True):
        z = [(values - values.mean(dtype=np.float64)) / values.std(dtype=np.float64) for values in (first, second)]
        np.testing.assert_allclose(found, z[0] + 0.5 * z[1], rtol=1e-5, atol=1e-6)


def test_a_query_whose_scores_are_all_equal_adds_nothing_to_z_scores() -> None:
    both = ensemble("query")
    found = both.combine([[np.float32([2, 2, 2])], [np.float32([1, 2, 3])]], both.fit(SCORES))
    np.testing.assert_allclose(found[0], 0.5 * np.array([-1, 0, 1]) / np.sqrt(2 / 3), rtol=1e-6)


@given(st.floats(-1e3, 1e3, width=32))
def test_a_constant_member_is_refused_by_name(value: float) -> None:
    constant = [np.full(size, value, dtype=np.float32) for size in SIZES]
    with pytest.raises(UserError, match="embedder teacher gives every passage of a query the same score"):
        ensemble().fit([SCORES[0], constant])


def test_spread_is_the_pooled_deviation_within_queries() -> None:
    assert spread([np.array([0.0, 2.0]), np.array([100.0, 106.0])]) == pytest.approx(np.sqrt((1 + 9) / 2))
