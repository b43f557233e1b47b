"""Whether a difference between two systems on the same queries is shown, and how small a one these queries could show.

The paired t-test and the paired randomisation test as retrieval uses them (Smucker, Allan & Carterette 2007), the percentile
bootstrap (Efron & Tibshirani 1993), Holm's correction (1979), power after Sakai (2016, "Topic set size design").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from distilrank.errors import UserError
from distilrank.evidence.numbers import Number

LEVEL = 0.05
"""A difference is shown when its corrected p-value is below it."""
POWER = 0.8
RESAMPLES = 9_999
"""Of the randomisation test, so that its smallest p is 1e-4, and of the bootstrap."""
NUMBERS_AT_A_TIME = 4_000_000


@dataclass(frozen=True)
class Paired:
    """Two systems on the same queries: first minus second. With one query everything but the difference is NaN."""

    difference: Number
    """Mean over queries."""
    low: Number
    """The bootstrap 95 % interval of the difference: its lower end."""
    high: Number
    p: Number
    """Two-sided, of the paired t-test. NaN where all queries differ by the same amount: there is no variance to test by."""
    p_randomisation: Number
    """Two-sided, of the paired randomisation test: the signs of the queries' differences are drawn at random."""
    p_holm: Number
    """The t-test's p (the randomisation test's where that is NaN), corrected by Holm over its family of tests."""
    smallest: Number
    """The smallest true difference that so many queries show with power .8, tested at `level`."""
    queries: int
    level: Number = LEVEL
    """What `p` must be below for the difference to be shown: what Holm's correction leaves of .05, given the other tests."""

    @property
    def shown(self) -> bool:
        """Whether the difference is shown: the corrected p is below .05."""
        return self.p_holm < LEVEL


def paired(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Paired:
    """Test `first - second`, float arrays [queries]; queries that are NaN in either are left out.

    Raises `UserError` when no query is left.
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return paired_differences(difference[~np.isnan(difference), None], seed)[0]


def paired_differences(differences: np.ndarray, seed: int = 0) -> list[Paired]:
    """Test each column of per-query differences, float64 [queries, columns], against zero, on the same resamples.

    p-values are not corrected for one another: see `corrected`. Raises `UserError` when there is no query.
    """
    from scipy import stats

    count, nan = len(differences), math.nan
    if not count:
        raise UserError("the two systems share no query that counts: there is nothing to compare")
    means = differences.mean(axis=0)
    if count < 2:
        return [Paired(float(mean), nan, nan, nan, nan, nan, nan, count) for mean in means]
    # A constant that rounding has spread is a constant still.
    constant = np.ptp(differences, axis=0) <= 1e-12
    deviations = np.where(constant, np.nan, differences.std(axis=0, ddof=1))
    t = means / (deviations / math.sqrt(count))
    p = np.where(constant, np.where(np.abs(means) <= 1e-12, 1.0, np.nan), 2 * stats.t.sf(np.abs(t), count - 1))
    signs = _sign_flips(differences, np.random.default_rng(seed))
    low, high = np.quantile(_bootstrap(differences, np.random.default_rng(seed)), [0.025, 0.975], axis=0)
    smallest = _noncentrality(count, LEVEL) * deviations / math.sqrt(count)
    columns = (means, low, high, p, signs, np.where(np.isnan(p), signs, p), smallest)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Paired(a, b, c, d, e, f, g, queries=count) for a, b, c, d, e, f, g in rows]


def corrected(tests: Sequence[Paired]) -> list[Paired]:
    """The uncorrected tests of one family, their p-values corrected by Holm's method; NaN is no test and counts for none.

    `level` and `smallest` become those at which each is then tested: the p below which Holm's method rejects it, the other
    p-values being what they are. That is .05 / (tests - others that are rejected before it, whatever its own p).
    """
    known = sorted((index for index, test in enumerate(tests) if not math.isnan(test.p_holm)), key=lambda i: tests[i].p_holm)
    result, highest = list(tests), 0.0
    for place, index in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - place) * tests[index].p_holm))
        others = [tests[other].p_holm for other in known if other != index]
        rejected = next((n for n, p in enumerate(others) if not p * (len(known) - n) < LEVEL), len(others))
        level = LEVEL / (len(known) - rejected)
        smallest = tests[index].smallest
        if level < LEVEL and not math.isnan(smallest):
            smallest *= _noncentrality(tests[index].queries, level) / _noncentrality(tests[index].queries, LEVEL)
        result[index] = replace(tests[index], p_holm=highest, level=level, smallest=smallest)
    return result


def _sign_flips(differences: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """p-values [columns]: how often random signs give a mean at least as far from zero."""
    sums = np.abs(differences.sum(axis=0))
    slack = 1e-9 * np.abs(differences).sum(axis=0)
    extreme = np.zeros(differences.shape[1])
    for rows in _portions(len(differences)):
        signs = rng.integers(0, 2, (rows, len(differences)), dtype=np.int8) * 2.0 - 1.0
        extreme += (np.abs(signs @ differences) >= sums - slack).sum(axis=0)
    return np.asarray((1 + extreme) / (RESAMPLES + 1))


def _bootstrap(differences: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means of samples of queries drawn with replacement, float64 [RESAMPLES, columns]."""
    count = len(differences)
    means = []
    for rows in _portions(count):
        drawn = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        means.append(times.astype(np.float64) @ differences / count)
    return np.concatenate(means)


def _portions(count: int) -> Iterator[int]:
    """The resamples in portions that stay small in memory."""
    portion = max(1, NUMBERS_AT_A_TIME // count)
    yield from (min(portion, RESAMPLES - start) for start in range(0, RESAMPLES, portion))


@cache
def _noncentrality(count: int, level: float) -> float:
    """Mean over standard error at which a t-test over so many queries at a level rejects with probability POWER."""
    from scipy import optimize, stats

    critical = stats.t.ppf(1 - level / 2, count - 1)
    return float(optimize.brentq(lambda value: stats.nct.sf(critical, count - 1, value) - POWER, 0.5, 4 * critical + 10))
