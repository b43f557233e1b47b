"""Several teachers as one: each member's scores are stored apart and combined afterwards, by a rule on record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from distilrank.errors import UserError
from distilrank.teachers.base import Teacher


@dataclass(frozen=True)
class Affine:
    """score * scale + shift."""

    scale: float
    shift: float


@dataclass(frozen=True)
class Ensemble:
    """Pointwise teachers with a weight each. `normalize` is `global` (one affine a member) or `query` (z-scores)."""

    members: tuple[Teacher, ...]
    weights: tuple[float, ...]
    normalize: str = "global"

    def fit(self, scores: Sequence[Iterable[np.ndarray]]) -> tuple[Affine, ...]:
        """The affine of each member that gives its training scores a within-query deviation of 1 and a mean of 0.

        Raises `UserError` when a member gives every passage of every query the same score.
        """
        return tuple(_fit(member, values) for member, values in zip(self.members, scores, strict=True))

    def combine(self, scores: Sequence[Iterable[np.ndarray]], affines: Sequence[Affine]) -> list[np.ndarray]:
        """The weighted sum of the members' normalised scores, float32 [passages] a group."""
        return list(self.combined(scores, affines))

    def combined(self, scores: Sequence[Iterable[np.ndarray]], affines: Sequence[Affine]) -> Iterator[np.ndarray]:
        """The same, a group at a time."""
        for of_members in zip(*scores, strict=True):
            total = np.zeros(len(of_members[0]), dtype=np.float64)
            for values, weight, affine in zip(of_members, self.weights, affines, strict=True):
                values = np.asarray(values, dtype=np.float64)
                if self.normalize == "query":
                    total += weight * (values - values.mean()) / (values.std() or 1.0)
                else:
                    total += weight * (values * affine.scale + affine.shift)
            yield total.astype(np.float32)


def spread(scores: Iterable[np.ndarray]) -> float:
    """The pooled standard deviation of scores within their query."""
    return float(np.sqrt(np.mean([np.var(np.asarray(values, dtype=np.float64)) for values in scores])))


def _fit(member: Teacher, scores: Iterable[np.ndarray]) -> Affine:
    total, passages = 0.0, 0

    def summed() -> Iterator[np.ndarray]:
        nonlocal total, passages
        for values in scores:
            total, passages = total + float(np.sum(values, dtype=np.float64)), passages + len(values)
            yield values

    deviation = spread(summed())
    if deviation == 0:
        raise UserError(f"the {member.identity.kind} teacher gives every passage of a query the same score")
    return Affine(1 / deviation, -total / passages / deviation)
