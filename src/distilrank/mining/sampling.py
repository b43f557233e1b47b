"""Which of a query's ranked passages are taught: a draw of some, at random or from all over the ranking."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Literal

Samples = int | Literal["auto"]
"""Draws a query; `auto`: so many that they come nearest to one pass over its passages."""


def draws(count: int, wanted: int, samples: Samples) -> int:
    """How often `wanted` of `count` passages are drawn."""
    if count <= wanted:
        return 1  # no passage is left out: another draw would be the same
    return int(count / wanted + 0.5) if samples == "auto" else samples


def drawn(count: int, wanted: int, strategy: str, rng: random.Random) -> list[int]:
    """Ranks of `wanted` of `count` ranked passages, ascending; all of them where there are no more.

    `random` draws without replacement. `quantile` cuts the ranking into `wanted` strata of equal size and draws one of
    each, so that the whole range of the teacher's scores is taught (stratified sampling, arXiv 2604.04734).
    """
    if count <= wanted:
        return list(range(count))
    if strategy == "random":
        return sorted(rng.sample(range(count), wanted))
    bounds = [round(number * count / wanted) for number in range(wanted + 1)]
    return [rng.randrange(low, high) for low, high in pairwise(bounds)]
