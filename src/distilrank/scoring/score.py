"""Driving a teacher over the pairs that the store lacks, a part at a time, so that a killed run loses one part."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import chain

import numpy as np

from distilrank.errors import UserError
from distilrank.progress import Advance, bar
from distilrank.records import Group, ScoredPair
from distilrank.scoring.store import ScoreStore
from distilrank.teachers import Teacher

PART_PAIRS = 4_096
PART_SECONDS = 30.0
PAIRS_A_WINDOW = 50_000
"""Among so many missing pairs, those of one passage are brought together for a teacher that shares it."""
FIRST_PART_PAIRS = 256
"""The first part is small: its rate tells how many pairs fill `PART_SECONDS`."""


def score(
    groups: Iterable[Group], teacher: Teacher, store: ScoreStore, *, part_pairs: int = PART_PAIRS, title: str = "score"
) -> int:
    """Score what the store lacks of the groups; returns how many pairs that were.

    `groups` is iterated more than once. Raises `UserError` when the teacher returns a number that is not finite.
    """
    with store.missing(groups) as missing, bar(title, missing.pairs, "pairs") as advance:
        size = min(part_pairs, FIRST_PART_PAIRS)
        pending: list[Group] = []
        waiting = 0
        asked = _by_passage(missing.groups) if teacher.shares == "passage" else missing.groups
        for group in asked:
            for piece in _pieces(group, part_pairs):
                if pending and waiting + len(piece.passages) > size:
                    rate = _score_part(pending, teacher, store, advance)
                    size = max(1, min(part_pairs, int(rate * PART_SECONDS * 0.8)))
                    pending, waiting = [], 0
                pending.append(piece)
                waiting += len(piece.passages)
        if pending:
            _score_part(pending, teacher, store, advance)
    return missing.pairs


def scored_pairs(groups: Iterable[Group], scores: Iterable[np.ndarray]) -> Iterator[ScoredPair]:
    """Groups and their scores as scored pairs, in order."""
    for group, values in zip(groups, scores, strict=True):
        for passage, value in zip(group.passages, values.tolist(), strict=True):
            yield ScoredPair(group.query, passage.text, value)


def _by_passage(groups: Iterator[Group]) -> Iterator[Group]:
    """The same pairs, one a group, with the pairs of a passage side by side; a window at a time, to bound memory.

    Passages come in the order of their texts, whatever is missing: a run that goes on after a kill forms the same batches.
    """
    window: dict[str, list[Group]] = {}
    waiting = 0
    for group in groups:
        for passage in group.passages:
            window.setdefault(passage.text, []).append(Group(group.query_id, group.query, (passage,)))
            waiting += 1
        if waiting >= PAIRS_A_WINDOW:
            yield from _in_order(window)
            window, waiting = {}, 0
    yield from _in_order(window)


def _in_order(window: dict[str, list[Group]]) -> Iterator[Group]:
    return chain.from_iterable(window[text] for text in sorted(window))


def _pieces(group: Group, most: int) -> Iterator[Group]:
    for start in range(0, len(group.passages), most):
        yield Group(group.query_id, group.query, group.passages[start : start + most])


def _score_part(groups: Sequence[Group], teacher: Teacher, store: ScoreStore, advance: Advance) -> float:
    start = time.monotonic()
    scores = teacher.score(groups, advance)
    pairs = 0
    for group, values in zip(groups, scores, strict=True):
        pairs += len(values)
        if not np.isfinite(values).all():
            raise UserError(f"the teacher gave a score that is not finite for the query {group.query[:60]!r}")
    store.append(groups, scores, _provenance())
    return pairs / max(time.monotonic() - start, 1e-3)


def _provenance() -> dict[str, str]:
    libraries = ("distilrank", "torch", "transformers", "sentence-transformers")
    return {name: version(name) for name in libraries} | {"machine": platform.machine(), "engine": "plain"}
