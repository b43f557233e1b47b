"""What the teacher's scores look like on these queries, and which of them a person should look at.

No method here is a test: it points at queries and passages, which `review.jsonl` holds with their texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from distilrank.evidence.numbers import Number
from distilrank.evidence.wording import number
from distilrank.metrics import Scores, is_judged
from distilrank.records import Group

BINS = 32
LENGTH_BINS = 5
END = 0.01
"""Saturated: within this share of the scores' range of one of its ends."""
NEAR = 0.05
"""Near-ties: neighbours in the order closer than this share of the median within-query deviation."""
ABOVE = 0.5
"""Suspected false negatives: above the query's best positive by at least so many within-query deviations."""
MOST_FINDINGS = 200
"""Of a kind, the strongest ones."""

Kind = Literal["unanswered", "false_negative", "duplicate"]


@dataclass(frozen=True)
class LengthBin:
    """A fifth of the pairs by length of the passage."""

    characters: Number
    """Median length."""
    score: Number
    """Mean score, as deviation from the query's mean in within-query deviations."""
    pairs: int


@dataclass(frozen=True)
class Diagnostics:
    """The teacher's scores in numbers."""

    pairs: int
    queries: int
    quantiles: Sequence[Number]
    """The score at 0, 10, ..., 100 % of the pairs."""
    edges: Sequence[Number]
    """Of the histogram, one more than `counts`."""
    counts: Sequence[int]
    saturated_share: Number
    near_tie: Number
    near_tie_share: Number
    length_correlation: Number
    """Spearman correlation of score and passage length within a query, mean over queries."""
    length_bins: Sequence[LengthBin]
    low_cut: Number
    """The median score of all passages that are not their query's best."""
    unanswered: int
    """Queries whose best passage scores below `low_cut`: perhaps no candidate answers them."""
    false_negatives: int
    """Passages labelled negative that the teacher puts clearly above every positive."""
    duplicates: int
    """Passages labelled negative whose words are those of a positive of the same query."""


@dataclass(frozen=True)
class ReviewPassage:
    """A passage to look at, with the teacher's score."""

    text: str
    label: int | None
    score: Number


@dataclass(frozen=True)
class Finding:
    """A line of `review.jsonl`."""

    kind: Kind
    query_id: str
    query: str
    why: str
    passages: Sequence[ReviewPassage]


def diagnose(groups: Sequence[Group], scores: Scores) -> tuple[Diagnostics, list[Finding]]:
    """Numbers about a teacher's scores on the groups, and what to review, the strongest of each kind first."""
    values = [np.asarray(row, dtype=np.float64) for row in scores]
    flat = np.concatenate(values)
    counts, edges = np.histogram(flat, BINS)
    end = END * float(np.ptp(flat))
    saturated = (flat <= flat.min() + end) | (flat >= flat.max() - end)
    gaps = np.concatenate([np.diff(np.sort(row)) for row in values])
    near = NEAR * float(np.median([row.std() for row in values]))
    low_cut = _low_cut(values)
    found = {
        "unanswered": sorted(_unanswered(groups, values, low_cut), key=lambda pair: -pair[0]),
        "false_negative": sorted(_false_negatives(groups, values), key=lambda pair: -pair[0]),
        "duplicate": sorted(_duplicates(groups, values), key=lambda pair: -pair[0]),
    }
    correlation, bins = _length(groups, values)
    numbers = Diagnostics(
        pairs=len(flat),
        queries=len(groups),
        quantiles=np.quantile(flat, np.linspace(0, 1, 11)).tolist(),
        edges=edges.tolist(),
        counts=counts.tolist(),
        saturated_share=float(saturated.mean()),
        near_tie=near,
        near_tie_share=float((gaps < near).mean()) if len(gaps) else 0.0,
        length_correlation=correlation,
        length_bins=bins,
        low_cut=low_cut,
        unanswered=len(found["unanswered"]),
        false_negatives=len(found["false_negative"]),
        duplicates=len(found["duplicate"]),
    )
    return numbers, [finding for pairs in found.values() for _, finding in pairs[:MOST_FINDINGS]]


def _low_cut(values: Sequence[np.ndarray]) -> float:
    others = [np.sort(row)[:-1] for row in values if len(row) > 1]
    return float(np.median(np.concatenate(others))) if others else float("-inf")


def _unanswered(groups: Sequence[Group], values: Sequence[np.ndarray], low_cut: float) -> Iterator[tuple[float, Finding]]:
    for group, row in zip(groups, values, strict=True):
        if (below := low_cut - float(row.max())) > 0:
            best, ordinary = number(float(row.max()), 3), number(low_cut, 3)
            why = f"its best passage scores {best}, an ordinary passage of other queries {ordinary}"
            yield below, _finding("unanswered", group, row, [int(row.argmax())], why)


def _false_negatives(groups: Sequence[Group], values: Sequence[np.ndarray]) -> Iterator[tuple[float, Finding]]:
    for group, row in zip(groups, values, strict=True):
        deviation = float(row.std())
        if not is_judged(group) or deviation == 0:
            continue
        best = max((place for place, passage in enumerate(group.passages) if passage.label), key=lambda place: row[place])
        for place, passage in enumerate(group.passages):
            above = float(row[place] - row[best]) / deviation
            if passage.label == 0 and above >= ABOVE:
                why = f"labelled negative, {above:.1f} within-query deviations above the best positive"
                yield above, _finding("false_negative", group, row, [place, best], why)


def _duplicates(groups: Sequence[Group], values: Sequence[np.ndarray]) -> Iterator[tuple[float, Finding]]:
    for group, row in zip(groups, values, strict=True):
        positives = {_words(passage.text): place for place, passage in enumerate(group.passages) if passage.label}
        for place, passage in enumerate(group.passages):
            twin = positives.get(_words(passage.text))
            if passage.label == 0 and twin is not None:
                why = "labelled negative, but its words are those of a positive"
                yield float(row[place]), _finding("duplicate", group, row, [place, twin], why)


def _finding(kind: Kind, group: Group, row: np.ndarray, places: Sequence[int], why: str) -> Finding:
    passages = [ReviewPassage(group.passages[i].text, group.passages[i].label, float(row[i])) for i in places]
    return Finding(kind, group.query_id, group.query, why, passages)


def _words(text: str) -> str:
    return " ".join("".join(character if character.isalnum() else " " for character in text.casefold()).split())


def _length(groups: Sequence[Group], values: Sequence[np.ndarray]) -> tuple[float, list[LengthBin]]:
    """Spearman within queries, and mean scores by length: does the teacher like long passages?"""
    from scipy.stats import rankdata

    correlations, lengths, relative = [], [], []
    for group, row in zip(groups, values, strict=True):
        length = np.asarray([len(passage.text) for passage in group.passages], dtype=np.float64)
        if np.ptp(row) > 0:
            lengths.append(length)
            relative.append((row - row.mean()) / row.std())
            if np.ptp(length) > 0:
                correlations.append(np.corrcoef(rankdata(length), rankdata(row))[0, 1])
    if not lengths:
        return float("nan"), []
    length, score = np.concatenate(lengths), np.concatenate(relative)
    parts = [part for part in np.array_split(np.argsort(length, kind="stable"), LENGTH_BINS) if len(part)]
    bins = [LengthBin(float(np.median(length[part])), float(score[part].mean()), len(part)) for part in parts]
    return float(np.mean(correlations)) if correlations else float("nan"), bins
