"""Which queries the student won and lost by training, and the extremes with their texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distilrank.evidence import plots
from distilrank.evidence.evaluate import Evaluation, System
from distilrank.evidence.rankings import query_values
from distilrank.evidence.table import first_measure
from distilrank.metrics import ranking
from distilrank.records import Group, Passage

EXAMPLES = 5
"""How many of the biggest losses, and of the biggest gains, are shown without a script."""
FIRST = 3
"""How many first-ranked passages are shown before and after."""
POSITIVES = 5
"""How many positive passages of an example are shown."""


@dataclass(frozen=True)
class Shown:
    """A passage as it is shown: its mark says what the label said; ranks are before, after and teacher (if any)."""

    text: str
    mark: str
    positive: bool
    ranks: Sequence[int] = ()


@dataclass(frozen=True)
class Example:
    """A query whose ranking changed much."""

    query: str
    change: float
    values: Sequence[float]
    positives: Sequence[Shown]
    more_positives: int
    first_before: Sequence[Shown]
    first_after: Sequence[Shown]


@dataclass(frozen=True)
class Verdicts:
    """Per-query changes of the first measure: the figure, how many went which way, and the extremes."""

    figure: str
    won: int
    tied: int
    lost: int
    worst: float
    losses: Sequence[Example]
    gains: Sequence[Example]


def verdicts(evaluation: Evaluation, *, texts: bool) -> Verdicts | None:
    """Who won and who lost, or none without before and after; without `texts`, no examples."""
    before, after = evaluation.with_role("before"), evaluation.with_role("after")
    if before is None or after is None:
        return None
    measure = first_measure(evaluation)
    values = query_values(evaluation).get(measure)
    if values is None:
        return None
    change = values[after.name] - values[before.name]
    change = np.where(np.abs(change) < 1e-12, 0.0, change)
    known = np.flatnonzero(~np.isnan(change))
    if not len(known):
        return None
    gains = sorted((index for index in known.tolist() if change[index] > 0), key=lambda index: -change[index])
    losses = sorted((index for index in known.tolist() if change[index] < 0), key=lambda index: change[index])
    teacher = evaluation.with_role("teacher")
    systems = [before, after, *([teacher] if teacher else [])]

    def examples(indices: Sequence[int]) -> list[Example]:
        return [_example(evaluation, index, systems, values) for index in indices[:EXAMPLES] if texts]

    return Verdicts(
        plots.changes(change[known], measure),
        len(gains),
        len(known) - len(gains) - len(losses),
        len(losses),
        float(change[losses[0]]) if losses else 0.0,
        examples(losses),
        examples(gains),
    )


def _example(evaluation: Evaluation, index: int, systems: Sequence[System], values: Mapping[str, np.ndarray]) -> Example:
    """One query with what `systems` (before, after, perhaps the teacher) made of it; `values` is the measure of each."""
    group = evaluation.groups[index]
    of_query = [float(values[system.name][index]) for system in systems]
    orders = [ranking(group, system.scores[index]).tolist() for system in systems]
    positives = [place for place in orders[1] if group.passages[place].label]
    return Example(
        group.query,
        of_query[1] - of_query[0],
        of_query,
        [_shown(group, place, [order.index(place) + 1 for order in orders]) for place in positives[:POSITIVES]],
        max(0, len(positives) - POSITIVES),
        [_shown(group, place) for place in orders[0][:FIRST]],
        [_shown(group, place) for place in orders[1][:FIRST]],
    )


def _shown(group: Group, place: int, ranks: Sequence[int] = ()) -> Shown:
    passage = group.passages[place]
    return Shown(passage.text, _mark(passage), bool(passage.label), ranks)


def _mark(passage: Passage) -> str:
    if passage.label is None:
        return "no label"
    return "other" if passage.label == 0 else "positive" + f", grade {passage.label}" * (passage.label > 1)
