"""What the teacher's scores are mapped to before training, and which scores cannot teach at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.engines.batches import split_like
from distilrank.engines.classifier import Reranker, encode_pairs, score_encoded
from distilrank.engines.load import has_head
from distilrank.errors import UserError
from distilrank.records import TrainingGroup

LEAST_SPREAD = 1.0
"""Within-query deviation asked of a student whose own is smaller, so that it does not rank yet: its head is fresh, or broken
by what was cut from below it. A teacher squeezed into less drowns in the noise of dropout, and a reranker's 4 is more than a
short training reaches (docs/quality.md)."""
CALIBRATION_GROUPS = 64


@dataclass(frozen=True)
class Affine:
    """score * scale + shift."""

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, score: float) -> float:
        return score * self.scale + self.shift


def calibration(
    rows: Callable[[], Iterable[Any]], student: Path, data: Path, settings: Any, dtype: str, device: str
) -> Affine:
    """The map of the teacher's scores; `rows` reads the training rows anew at each call.

    `auto` takes them to the student's own mean and within-query deviation, a number to that deviation around 0. Raises
    `UserError` when the scores look like probabilities or are constant.
    """
    if settings.mode == "triplets":
        _check_margins(rows(), data, settings)
        return Affine()
    variance = total = count = passages = 0.0
    outside = False
    for row in rows():
        scores = np.asarray(row.scores)
        variance, count = variance + float(scores.var()), count + 1
        total, passages = total + float(scores.sum()), passages + len(scores)
        outside |= bool((scores < 0).any() or (scores > 1).any())
    spread = math.sqrt(variance / count)
    if spread == 0:
        raise UserError(f"{data}: the teacher gives all passages of a query the same score: nothing to learn")
    if not outside and not settings.bounded_scores:
        raise UserError(
            f"{data}: every score lies in [0, 1], as probabilities do: score with raw logits; if the teacher's "
            "scores lie there by nature (a cosine), say --bounded-scores"
        )
    if settings.calibrate == "none":
        return Affine()
    target, level = 0.0, 0.0
    if settings.calibrate == "auto":
        target, level = student_level(student, islice(rows(), CALIBRATION_GROUPS), settings, dtype, device)
    scale = (target or float(settings.calibrate)) / spread
    # A margin knows no level: without `mse` nothing is shifted, and nothing rounded.
    return Affine(scale, level - total / passages * scale if "mse" in loss_names(settings.loss) else 0.0)


def loss_names(loss: str | Mapping[Any, float]) -> dict[str, float]:
    """The names of the losses with their weights."""
    return {loss: 1.0} if isinstance(loss, str) else dict(loss)


def _check_margins(rows: Iterable[Any], data: Path, settings: Any) -> None:
    if settings.loss != "margin_mse":
        raise UserError(f"triplets are taught by margin_mse, not by {settings.loss}: use groups")
    if settings.calibrate not in ("none", "auto"):
        raise UserError("triplets hold margins, which cannot be calibrated: set calibrate to none, or use groups")
    if not settings.bounded_scores and all(abs(row.score) <= 1 for row in rows):
        raise UserError(
            f"{data}: no margin is larger than 1, as among probabilities: score with raw logits; if the "
            "teacher's scores are that close by nature (a cosine, a likelihood), say --bounded-scores"
        )


def student_level(
    student: Path, groups: Iterable[TrainingGroup], settings: Any, dtype: str, device: str
) -> tuple[float, float]:
    """The student's within-query deviation, at least 1, and its mean on some groups: 1 and 0 where it has no head."""
    if not has_head(student):
        return LEAST_SPREAD, 0.0
    more = {"dtype": dtype, "device": device, "trust_remote_code": settings.trust_remote_code}
    reranker = Reranker(student, max_length=settings.max_length, **more)
    some = list(groups)
    queries = [group.query for group in some for _ in group.passages]
    passages = [passage for group in some for passage in group.passages]
    encoded = encode_pairs(reranker.tokenizer, queries, passages, settings.max_length)
    flat = score_encoded(reranker.model, encoded, reranker.tokenizer.pad_token_id or 0, dtype)
    of_groups = split_like(flat, [group.passages for group in some])
    spread = float(np.sqrt(np.mean([np.var(scores) for scores in of_groups])))
    return max(spread, LEAST_SPREAD), float(flat.mean())
