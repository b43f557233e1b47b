"""How far a system's order agrees with the teacher's: what can be said without labels. Agreement is not quality.

Kendall's tau-b (Kendall 1945), nDCG@10 with the teacher's scores as gains (`metrics.agreement`), and the share of queries
whose first passage is the teacher's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distilrank.metrics import Scores, agreement, ranking
from distilrank.records import Group

NAMES = ("kendall_tau", "ndcg", "top1")


@dataclass(frozen=True)
class Agreement:
    """By name of `NAMES`, a value a query, float64 [queries]; NaN where the teacher scored all passages alike."""

    values: Mapping[str, np.ndarray]

    @property
    def kendall_tau(self) -> float:
        """Mean tau-b, -1 to 1."""
        return self.mean("kendall_tau")

    @property
    def ndcg(self) -> float:
        """Mean nDCG@10 with the teacher's scores as gains, 0 to 1."""
        return self.mean("ndcg")

    @property
    def top1(self) -> float:
        """Share of queries with the teacher's first passage first."""
        return self.mean("top1")

    @property
    def queries(self) -> int:
        """How many queries have an order to agree with."""
        return int((~np.isnan(self.values["ndcg"])).sum())

    def mean(self, name: str) -> float:
        """The mean of one of `NAMES`; NaN where the teacher has no order on any query."""
        return float(np.nanmean(self.values[name])) if self.queries else float("nan")


def agreement_with(groups: Sequence[Group], teacher: Scores, system: Scores) -> Agreement:
    """A system's agreement with the teacher on the same groups; ties in first places by the hash of `metrics.ranking`."""
    ndcg = agreement(teacher, system)
    tau, top1 = np.full(len(groups), np.nan), np.full(len(groups), np.nan)
    for number in np.flatnonzero(~np.isnan(ndcg)).tolist():
        tau[number] = kendall_tau(teacher[number], system[number])
        first = (ranking(groups[number], scores[number])[0] for scores in (teacher, system))
        top1[number] = float(len(set(first)) == 1)
    return Agreement({"kendall_tau": tau, "ndcg": ndcg, "top1": top1})


def kendall_tau(first: np.ndarray, second: np.ndarray) -> float:
    """Tau-b of two arrays [passages]; 0 where one of them has no order at all."""
    signs = [np.sign(np.subtract.outer(values.astype(np.float64), values)) for values in (first, second)]
    scale = float(np.sqrt(np.abs(signs[0]).sum() * np.abs(signs[1]).sum()))
    return float((signs[0] * signs[1]).sum()) / scale if scale else 0.0
