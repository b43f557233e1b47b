"""What the first stage leaves to a reranker: recall of the candidates, and quality against the depth that is reranked.

The first stage's order is the candidates' `rank` where there are ranks, else the order in which they are listed. A passage
without a rank among ranked ones was added by hand: the first stage missed it, and it stands last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distilrank.evidence.numbers import Number
from distilrank.metrics import Scores, is_judged, measure, ranking
from distilrank.records import Group

CUTS = (1, 5, 10, 20, 50, 100, 200, 500, 1000)
MOST_QUERIES = 1_000
"""Quality against depth is measured on so many queries at most, evenly spaced: it is a curve to read, not a result."""


@dataclass(frozen=True)
class Retrieval:
    """Of the candidates in the first stage's order, over judged queries."""

    recall: Mapping[int, Number]
    """Recall@k of the known positives: no reranker of the first k candidates can find more."""
    measure: str
    depths: Sequence[int]
    by_depth: Mapping[str, Sequence[Number]]
    """System -> the measure at each depth, when it reranks so many candidates and the rest keep their order. What the first
    stage missed is never reranked, so that the last value may be below the system's mean."""


def given_order(groups: Sequence[Group]) -> list[np.ndarray] | None:
    """The first stage's order as scores, float32 [passages] a group; none where positives are listed before all others,
    which is the order of the labels and no retriever's.
    """
    ranked = any(passage.rank is not None for group in groups for passage in group.passages)
    judged = [group for group in groups if is_judged(group)]
    if not ranked and judged and all(map(_positives_first, judged)):
        return None
    scores = []
    for group in groups:
        places = [passage.rank for passage in group.passages] if ranked else list(range(len(group.passages)))
        last = 1 + max((place for place in places if place is not None), default=0)
        scores.append(-np.asarray([last if place is None else place for place in places], dtype=np.float32))
    return scores


def retrieval_of(groups: Sequence[Group], systems: Mapping[str, Scores], name: str) -> Retrieval | None:
    """Recall of the candidates and the measure `name` of each system by depth; none without a first stage's order."""
    first = given_order(groups)
    judged = [number for number, group in enumerate(groups) if is_judged(group)]
    if first is None or not judged:
        return None
    most = max(len(groups[number].passages) for number in judged)
    cuts = [cut for cut in CUTS if cut < most] + [most]
    chosen = judged if len(judged) <= MOST_QUERIES else judged[:: -(-len(judged) // MOST_QUERIES)]
    asked = [groups[number] for number in chosen]
    by_depth = {
        system: [
            measure(asked, [_reranked(groups[n], first[n], scores[n], cut) for n in chosen], [name]).mean(name)
            for cut in cuts
        ]
        for system, scores in systems.items()
    }
    recall = {cut: float(np.mean([_recall(groups[n], first[n], cut) for n in judged])) for cut in cuts}
    return Retrieval(recall, name, cuts, by_depth)


def _positives_first(group: Group) -> bool:
    labels = [bool(passage.label) for passage in group.passages]
    return labels == sorted(labels, reverse=True)


def _brought(group: Group, first: np.ndarray) -> list[int]:
    """The passages that the first stage brought, in its order; without any ranks it brought them all."""
    ranked = any(passage.rank is not None for passage in group.passages)
    return [place for place in ranking(group, first).tolist() if not ranked or group.passages[place].rank is not None]


def _recall(group: Group, first: np.ndarray, cut: int) -> float:
    """Share of a group's positives among the first `cut` candidates."""
    found = sum(bool(group.passages[place].label) for place in _brought(group, first)[:cut])
    return found / sum(bool(passage.label) for passage in group.passages)


def _reranked(group: Group, first: np.ndarray, scores: np.ndarray, depth: int) -> np.ndarray:
    """The order after a system has reranked the first `depth` candidates, as scores."""
    head = set(_brought(group, first)[:depth])
    order = [place for place in ranking(group, scores).tolist() if place in head]
    order += [place for place in ranking(group, first).tolist() if place not in head]
    result = np.empty(len(order), dtype=np.float32)
    result[order] = -np.arange(len(order))
    return result
