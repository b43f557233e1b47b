"""Losses, one a file: `loss(student [n], teacher [n], group [n], pairs) -> scalar`, each passage forwarded once.

Each is a mean over its units (margins, groups, passages), whose number hangs on no logit: so a step may be computed in
pieces of whole groups, each divided by the units of the whole step, and the pieces add up to the loss. All are float32
inside and wait for no device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from distilrank.students.losses.adr_mse import adr_mse
from distilrank.students.losses.bce import bce, labelled
from distilrank.students.losses.kl import groups, kl
from distilrank.students.losses.margin_mse import margin_mse, margins
from distilrank.students.losses.mse import mse, passages
from distilrank.students.losses.rank_net import preferences, rank_net
from distilrank.students.losses.weighted_margin_mse import gains, weighted_margin_mse

Loss = Callable[..., Any]
LOSSES: dict[str, tuple[Loss, Loss]] = {
    "margin_mse": (margin_mse, margins),
    "weighted_margin_mse": (weighted_margin_mse, gains),
    "mse": (mse, passages),
    "kl": (kl, groups),
    "rank_net": (rank_net, preferences),
    "adr_mse": (adr_mse, groups),
    "bce": (bce, labelled),
}
"""Each loss, and what counts its units."""


@dataclass(frozen=True)
class WeightedSum:
    """One loss out of several by name: sum of weight * loss."""

    weights: Mapping[str, float]

    def units(self, teacher: Any, group: Any, pairs: Any = None, labels: Any = None) -> list[Any]:
        """The units of each loss in a step, float scalars on the device of `teacher`."""
        return [LOSSES[name][1](teacher, group, pairs, labels).float() for name in self.weights]

    def none(self) -> list[Any]:
        """The units of nothing."""
        import torch

        return [torch.zeros(()) for _ in self.weights]

    def __call__(
        self, student: Any, teacher: Any, group: Any, pairs: Any = None, labels: Any = None, *, units: Any = None
    ) -> Any:
        total = 0.0
        for number, (name, weight) in enumerate(self.weights.items()):
            more = {"labels": labels} if name == "bce" else {}
            own = None if units is None else units[number]
            total = total + weight * LOSSES[name][0](student, teacher, group, pairs, units=own, **more)
        return total


__all__ = [
    "LOSSES",
    "Loss",
    "WeightedSum",
    "adr_mse",
    "bce",
    "kl",
    "margin_mse",
    "mse",
    "rank_net",
    "weighted_margin_mse",
]
