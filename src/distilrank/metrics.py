"""The measures, per query, through ir-measures, with one rule for ties: used by validation and by evidence alike.

Equal scores are ordered by a hash of the query and the passage: stable, the same for every system, blind to the labels
and to the order in which the candidates came. Passages of one text go by a hash of their ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distilrank.errors import UserError
from distilrank.records import Group

DEFAULT_MEASURES = ("AP", "RR@10", "nDCG@10")
"""MAP is the mean of AP over queries, MRR@10 the mean of RR@10."""

Counting = Literal["judged", "sentence-transformers"]
"""Which queries are in the means: those with a positive and another passage; or every query, as sentence-transformers'
`CrossEncoderRerankingEvaluator` has it, 0 where none of the passages is positive."""

Scores = Sequence[np.ndarray]
"""One float32 array a group, one entry a passage, in the order of the groups."""


@dataclass(frozen=True)
class Measured:
    """Values of each measure, float64 [queries], NaN where a query does not count."""

    values: dict[str, np.ndarray]
    tied_share: float
    """Share of the pairs of passages within a query that counts whose scores are equal."""

    @property
    def judged(self) -> np.ndarray:
        """Bool [queries]: the queries that count."""
        first: np.ndarray = next(iter(self.values.values()))
        return np.asarray(~np.isnan(first))

    def mean(self, measure: str) -> float:
        """The mean of a measure over the queries that count."""
        return float(np.nanmean(self.values[measure]))


def measure(
    groups: Sequence[Group],
    scores: Scores,
    measures: Sequence[str] = DEFAULT_MEASURES,
    counting: Counting = "judged",
) -> Measured:
    """Measure one system's scores against the labels of the groups; a passage without a label counts as no positive.

    Raises `UserError` on an unknown measure, or when no query has both a positive and another passage.
    """
    import ir_measures

    parsed = parse_measures(measures)
    names = {measure: name for name, measure in parsed.items()}
    qrels, run = [], []
    counts = np.zeros(len(groups), dtype=bool)
    values_of = {name: np.full(len(groups), np.nan) for name in measures}
    for number, (group, values) in enumerate(zip(groups, scores, strict=True)):
        if len(values) != len(group.passages) or not np.isfinite(values).all():
            raise UserError(f"the query {group.query[:60]!r} needs one finite score for each of its passages")
        counts[number] = counting == "sentence-transformers" or is_judged(group)
        if not counts[number]:
            continue
        if not any(passage.label for passage in group.passages):
            for values_of_one in values_of.values():
                values_of_one[number] = 0.0
            continue
        labels = [passage.label or 0 for passage in group.passages]
        order = ranking(group, values)
        for place, passage in enumerate(order.tolist()):
            # Places, not scores, are handed on: whatever precision the measure's library reads, the order stays ours.
            run.append(ir_measures.ScoredDoc(str(number), str(passage), float(len(order) - place)))
            qrels.append(ir_measures.Qrel(str(number), str(passage), labels[passage]))
    if not any(map(is_judged, groups)):
        raise UserError("no query has both a positive and a negative passage: there is nothing to measure")
    for metric in ir_measures.iter_calc(list(parsed.values()), qrels, run):
        values_of[names[metric.measure]][int(metric.query_id)] = metric.value
    return Measured(values_of, tied_share([values for values, counted in zip(scores, counts, strict=True) if counted]))


def parse_measures(names: Sequence[str]) -> dict[str, Any]:
    """The measures by name, each tried out. Raises `UserError` on one that ir-measures does not know or cannot compute."""
    import ir_measures

    parsed = {}
    for name in names:
        try:
            parsed[name] = ir_measures.parse_measure(name)
            if parsed[name].params.get("cutoff", 1) < 1:
                raise ValueError("a cutoff is at least 1")
            one = [ir_measures.Qrel("q", "d", 1)], [ir_measures.ScoredDoc("q", "d", 1.0)]
            next(ir_measures.iter_calc([parsed[name]], *one))
        except Exception as error:  # the library raises many kinds, AssertionError among them
            hint = "measures are named as ir-measures names them, like AP, RR@10 or nDCG@10"
            raise UserError(f"no measure {name!r}: {hint}") from error
    if not parsed or len(set(parsed.values())) < len(names):
        raise UserError(f"measures {', '.join(names) or '(none)'}: name at least one, and each only once")
    return parsed


def is_judged(group: Group) -> bool:
    """Whether a group has both a positive passage and another one, so that its order can be right or wrong."""
    positive = [bool(passage.label) for passage in group.passages]
    return any(positive) and not all(positive)


def ranking(group: Group, scores: np.ndarray) -> np.ndarray:
    """Indices of the passages from best to worst; equal scores in the order of their hash."""
    values = np.asarray(scores, dtype=np.float64)
    if len(np.unique(values)) == len(values):
        return np.argsort(-values)
    keys = [(_tie_key(group.query, passage.text), _tie_key(group.query, passage.id or "")) for passage in group.passages]
    return np.asarray(sorted(range(len(values)), key=lambda i: (-values[i], keys[i], i)))


def float32_in_order(scores: np.ndarray) -> np.ndarray:
    """Finite scores, float64 [passages], as float32 in the same order: what float32 cannot tell apart differs by its
    smallest step, what it cannot hold is put at its ends, and only equal scores are equal.
    """
    values = np.asarray(scores, dtype=np.float64)
    distinct, places = np.unique(values, return_inverse=True)
    most = np.finfo(np.float32).max / 2  # room for the steps
    rounded = np.clip(distinct, -most, most).astype(np.float32)
    if (np.diff(rounded) > 0).all():
        return rounded[places]
    for place in range(1, len(rounded)):
        rounded[place] = max(rounded[place], np.nextafter(rounded[place - 1], np.float32(np.inf)))
    return rounded[places]


def tied_share(scores: Scores) -> float:
    """Share of the within-query pairs whose two scores are equal."""
    pairs = tied = 0
    for values in scores:
        _, counts = np.unique(values, return_counts=True)
        pairs += len(values) * (len(values) - 1) // 2
        tied += int((counts * (counts - 1) // 2).sum())
    return tied / pairs if pairs else 0.0


def agreement(teacher: Scores, student: Scores, depth: int = 10) -> np.ndarray:
    """nDCG@`depth` of the student's order against the teacher's scores, float64 [queries]: agreement, not quality.

    The gain of a passage is its teacher score scaled to [0, 1] within the query; discount 1 / log2(place + 1)
    (Järvelin & Kekäläinen 2002, linear gain). A query whose teacher scores are all equal has no order: NaN. Student
    scores that tie share the mean gain of their places, as in scikit-learn's `ndcg_score`.
    """
    result = np.full(len(teacher), np.nan)
    for number, (wanted, got) in enumerate(zip(teacher, student, strict=True)):
        wanted, got = np.asarray(wanted, dtype=np.float64), np.asarray(got, dtype=np.float64)
        spread = np.ptp(wanted)
        if spread > 0:
            gains = (wanted - wanted.min()) / spread
            discounts = np.where(np.arange(len(gains)) < depth, 1 / np.log2(np.arange(len(gains)) + 2), 0.0)
            _, places, counts = np.unique(-got, return_inverse=True, return_counts=True)
            mean_gain = np.bincount(places, gains) / counts
            ends = np.cumsum(counts)
            total = np.concatenate([[0.0], np.cumsum(discounts)])
            actual = float((mean_gain * (total[ends] - total[ends - counts])).sum())
            result[number] = actual / float((np.sort(gains)[::-1] * discounts).sum())
    return result


def _tie_key(query: str, passage: str) -> bytes:
    return hashlib.blake2b(f"{query}\0{passage}".encode(), digest_size=8).digest()
