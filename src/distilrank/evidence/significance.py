"""Whether a difference between two systems on the same queries is shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Paired:
    """A paired t-test over queries: mean difference, its 95 % interval, and the two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float
    queries: int


def paired_t(after: np.ndarray, before: np.ndarray) -> Paired:
    """The paired t-test of `after - before`, float arrays [queries]; queries that are NaN in either are left out.

    Identical systems have p = 1; with a single query there is no interval and p is NaN.
    """
    from scipy import stats

    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    difference = difference[~np.isnan(difference)]
    count, mean = len(difference), float(difference.mean())
    if count < 2:
        return Paired(mean, float("nan"), float("nan"), float("nan"), count)
    if np.ptp(difference) == 0:
        # No variance, no test: equal systems differ by nothing, any other constant difference is no evidence either way.
        return Paired(mean, mean, mean, 1.0 if mean == 0 else float("nan"), count)
    result = stats.ttest_1samp(difference, 0.0)
    low, high = result.confidence_interval(0.95)
    return Paired(mean, float(low), float(high), float(result.pvalue), count)
