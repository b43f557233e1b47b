"""Losses, one a file: `loss(student [n], teacher [n], group [n], pairs) -> scalar`, each passage forwarded once.

`weighted_sum` makes one of several. All are float32 inside and wait for no device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from distilrank.students.losses.adr_mse import adr_mse
from distilrank.students.losses.kl import kl
from distilrank.students.losses.margin_mse import margin_mse
from distilrank.students.losses.mse import mse
from distilrank.students.losses.rank_net import rank_net
from distilrank.students.losses.weighted_margin_mse import weighted_margin_mse

Loss = Callable[..., Any]
LOSSES: dict[str, Loss] = {
    "margin_mse": margin_mse,
    "weighted_margin_mse": weighted_margin_mse,
    "mse": mse,
    "kl": kl,
    "rank_net": rank_net,
    "adr_mse": adr_mse,
}

__all__ = ["LOSSES", "Loss", "adr_mse", "kl", "margin_mse", "mse", "rank_net", "weighted_margin_mse", "weighted_sum"]


def weighted_sum(weights: Mapping[str, float]) -> Loss:
    """One loss out of several by name: sum of weight * loss."""
    chosen = [(LOSSES[name], weight) for name, weight in weights.items()]

    def loss(student: Any, teacher: Any, group: Any, pairs: Any = None) -> Any:
        return sum(weight * one(student, teacher, group, pairs) for one, weight in chosen)

    return loss
