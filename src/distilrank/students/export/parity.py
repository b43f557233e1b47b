"""How far an export's scores are from those of the model that it was made from, on the same pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from distilrank.errors import GateError, UserError
from distilrank.metrics import Scores, agreement, is_judged, measure
from distilrank.records import Group, Passage, holds_triplets, read_groups, read_training_groups, read_triplets
from distilrank.students.export.texts import PASSAGES, QUERIES
from distilrank.students.folder import RECORD
from distilrank.students.validation import query_hash, validation_threshold

MOST_QUERIES = 200
"""So many queries are compared, the first of a set: the comparison takes a minute or two on a CPU."""


@dataclass(frozen=True)
class Parity:
    """An export against its original, over the pairs of `queries` queries from `groups` (where they came from)."""

    groups: str
    queries: int
    pairs: int
    max_difference: float
    """The largest absolute difference of two logits of a pair."""
    kendall_tau: float
    """Mean tau-b of the two orders of a query's passages, over queries with an order."""
    ndcg: float
    """nDCG@10 of the export's order with the original's scores as gains: 1 where the order is the same."""
    map_before: float | None
    """MAP of the original; none where no query has both a positive and a negative passage."""
    map_after: float | None

    @property
    def loss(self) -> float:
        """What the gate looks at: MAP lost where there are labels, else what nDCG@10 lacks to 1."""
        if self.map_before is None or self.map_after is None:
            return 1.0 - self.ndcg
        return self.map_before - self.map_after

    def line(self) -> str:
        """The comparison in a line for people."""
        told = f"MAP {self.map_before:.4f} -> {self.map_after:.4f}" if self.map_before is not None else "no labels"
        return (
            f"{self.pairs:,} pairs of {self.queries} queries ({self.groups}): logits differ by at most "
            f"{self.max_difference:.2g}, Kendall tau {self.kendall_tau:.4f}, nDCG@10 against the original's order "
            f"{self.ndcg:.4f}, {told}"
        )

    def demand(self, most: float) -> None:
        """Raise `GateError` when more than `most` was lost, or when a score is not finite."""
        if not self.loss <= most:
            what = "MAP" if self.map_before is not None else "nDCG@10 against the original's order"
            lost = f"the export loses {self.loss:.4f} {what}, more than {most:g}: nothing was written"
            raise GateError(f"{lost}; take another format, or allow more (--max-loss)")


def compare(name: str, groups: Sequence[Group], before: Scores, after: Scores) -> Parity:
    """Compare two systems' scores, float32 [passages] a group, of the same groups; `name` says where the groups are from.

    Raises `GateError` when the export gives a number that is not finite.
    """
    from scipy.stats import kendalltau

    if not all(np.isfinite(values).all() for values in after):
        raise GateError("the export gives scores that are not finite: nothing was written")
    ordered = [(a, b) for a, b in zip(before, after, strict=True) if np.ptp(a) > 0]
    # A system that gives all passages the same score has no order, and its tau is undefined: it agrees with nothing.
    taus = [float(kendalltau(a, b).statistic) if np.ptp(b) > 0 else 0.0 for a, b in ordered]
    gains = agreement(before, after)
    labelled = any(map(is_judged, groups))
    means = [measure(groups, scores, ("AP",)).mean("AP") if labelled else None for scores in (before, after)]
    return Parity(
        groups=name,
        queries=len(groups),
        pairs=sum(map(len, before)),
        max_difference=max((float(np.abs(a - b).max()) for a, b in zip(before, after, strict=True)), default=0.0),
        kendall_tau=float(np.mean(taus)) if taus else 1.0,
        ndcg=float(np.nanmean(gains)) if ordered else 1.0,
        map_before=means[0],
        map_after=means[1],
    )


def parity_groups(model: Path, given: str | Path | None = None) -> tuple[str, list[Group]]:
    """What an export of `model` is compared on, and its name.

    In this order: the reranking set `given`; the test set of the run that the model lies in; the training queries that this
    run kept for validation; a dozen queries and passages of our own, each query with all passages and without labels. Raises
    `UserError` on a malformed set.
    """
    if given:
        return Path(given).name, _some(read_groups(given), given)
    run = model.resolve().parent
    if (run / "manifest.json").is_file():
        if (test := run / "data/test.parquet").is_file():
            return "the run's test queries", _some(read_groups(test), test)
        if groups := list(islice(_validation(model, run / "data"), MOST_QUERIES)):
            return "the run's validation queries", groups
    return "built-in texts", [Group(query, query, tuple(map(Passage, PASSAGES))) for query in QUERIES]


def _some(groups: Iterator[Group], path: str | Path) -> list[Group]:
    found = list(islice(groups, MOST_QUERIES))
    if not found:
        raise UserError(f"{path}: the file is empty")
    return found


def _validation(model: Path, data: Path) -> Iterator[Group]:
    """The groups whose queries the training of a run kept apart, by the same rule."""
    taught, train = data / "training.parquet", data / "train.parquet"
    try:
        settings = json.loads((model / RECORD).read_text(encoding="utf-8"))["settings"]
        share, seed = float(settings["validation"]), int(settings["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if taught.is_file() and train.is_file():
        rows = read_triplets(taught) if holds_triplets(taught) else read_training_groups(taught)
        threshold = validation_threshold([row.query for row in rows], share, seed)
        yield from (group for group in read_groups(train) if query_hash(group.query, seed) < threshold)
