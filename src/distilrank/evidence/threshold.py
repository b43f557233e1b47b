"""Whether a score can be cut at: one threshold for all queries, what it costs, and whether training moved the level.

A reranker needs only the order within a query; a RAG pipeline that drops passages under a threshold needs one level for
all queries, which training on margins leaves free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distilrank.evidence.numbers import Number
from distilrank.evidence.wording import number
from distilrank.metrics import Scores, is_judged
from distilrank.records import Group

FOLDS = 5
NOTABLE = 0.005
"""A change of AUC below it is called none."""


@dataclass(frozen=True)
class Level:
    """One system's scores as absolute numbers, over the pairs of all judged queries. No label counts as no positive."""

    auc: Number
    """Area under the ROC curve of all pairs pooled: a positive of one query against the others of every query."""
    auc_within: Number
    """The mean over queries of the area within the query."""
    threshold: Number
    """The raw score with the best F1, passages at or above it kept."""
    precision: Number
    """Of cutting like this, each fifth of the queries cut at the threshold that the other four chose."""
    recall: Number
    f1: Number
    base_rate: Number
    """Share of positives among the pairs: the precision of keeping everything."""
    query_deviation: Number
    """Standard deviation over queries of a query's mean score."""
    within_deviation: Number
    """Mean over queries of the standard deviation of a query's scores."""


def level_of(groups: Sequence[Group], scores: Scores) -> Level | None:
    """The level of a system's scores; none where no query is judged."""
    from sklearn.metrics import roc_auc_score

    judged = [number for number, group in enumerate(groups) if is_judged(group)]
    if not judged:
        return None
    labels = [np.asarray([bool(passage.label) for passage in groups[number].passages]) for number in judged]
    values = [np.asarray(scores[number], dtype=np.float64) for number in judged]
    pooled = np.concatenate(labels), np.concatenate(values)
    folds = np.repeat(np.arange(len(judged)) % FOLDS, [len(row) for row in labels])
    precision, recall, f1 = _cut_unseen(*pooled, folds)
    return Level(
        auc=float(roc_auc_score(*pooled)),
        auc_within=float(np.mean([_auc(*pair) for pair in zip(labels, values, strict=True)])),
        threshold=best_threshold(*pooled),
        precision=precision,
        recall=recall,
        f1=f1,
        base_rate=float(pooled[0].mean()),
        query_deviation=float(np.std([row.mean() for row in values])),
        within_deviation=float(np.mean([row.std() for row in values])),
    )


def best_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The score with the best F1 when pairs at or above it are kept; the highest of equals."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[len(thresholds) - 1 - np.argmax(f1[:-1][::-1])])


def level_note(before: Level, after: Level) -> str:
    """What training did to the level between queries, in a sentence or two."""
    across, within = after.auc - before.auc, after.auc_within - before.auc_within
    numbers = (
        f"across queries AUC went from {before.auc:.3f} to {after.auc:.3f}, "
        f"within a query from {before.auc_within:.3f} to {after.auc_within:.3f}"
    )
    moved = ""
    if abs(after.threshold - before.threshold) > 0.1 * after.within_deviation:
        moved = (
            f" A threshold chosen before ({number(before.threshold, 2)}) does not carry over: use "
            f"{number(after.threshold, 2)}."
        )
    if within - across > NOTABLE:
        return (
            f"The level between queries, which training on margins leaves free, moved: {numbers}. Ranking within a query is "
            f"not touched by that, one threshold for all queries is worth less than the order is.{moved}"
        )
    return f"The level between queries moved no more than the order within a query did: {numbers}.{moved}"


def _cut_unseen(labels: np.ndarray, scores: np.ndarray, folds: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1 of thresholds chosen without the queries that they cut; NaN with too few queries."""
    kept = np.zeros(len(labels), dtype=bool)
    for fold in range(FOLDS):
        inside = folds == fold
        if not inside.any() or not labels[~inside].any():
            return (float("nan"),) * 3
        kept[inside] = scores[inside] >= best_threshold(labels[~inside], scores[~inside])
    right = int((kept & labels).sum())
    precision, recall = right / max(1, int(kept.sum())), right / int(labels.sum())
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-12)


def _auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Share of (positive, other) pairs in the right order, ties half."""
    apart = np.subtract.outer(scores[labels], scores[~labels])
    return float(((apart > 0) + 0.5 * (apart == 0)).mean())
