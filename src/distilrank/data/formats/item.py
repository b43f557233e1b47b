"""What every format is read into and written from: a group with the scores that its format carries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distilrank.records import Group
from distilrank.rows import BadLines, BadRow, refuse, shortened


@dataclass(frozen=True, slots=True)
class Item:
    """A group; where its format carries them, a teacher's raw score a passage and the pairs of passages that count."""

    group: Group
    scores: tuple[float, ...] | None = None
    pairs: tuple[tuple[int, int], ...] | None = None


def refuse_item(path: Path, item: Item, why: BadRow, skip: BadLines | None) -> None:
    """Stop at a group that a format cannot hold, or note it where such are skipped."""
    hint = " (such queries are left out with --skip-bad-lines)" if skip is None else ""
    refuse(f"{path}: query {item.group.query_id or item.group.query[:60]!r}", f"{why}{hint}", skip)


def sides(item: Item) -> tuple[list[int], list[int]]:
    """The places of positives and of negatives: by label where one is above 0, else the best score against the rest.

    An unjudged passage beside a positive is a negative. Raises `BadRow` where nothing says which passage is positive.
    """
    passages = item.group.passages
    positives = [place for place, passage in enumerate(passages) if passage.label]
    if not positives and item.scores:
        positives = [max(range(len(passages)), key=item.scores.__getitem__)]
    if not positives:
        raise BadRow(f"neither a label nor a score says which passage is positive for {shortened(item.group.query)}")
    return positives, [place for place in range(len(passages)) if place not in set(positives)]


def margins(item: Item) -> Iterator[tuple[str, str, float | None]]:
    """Each (positive, negative, margin): the pairs that count, else positives with negatives, else all pairs by score."""
    passages, scores = item.group.passages, item.scores
    if item.pairs is not None:
        pairs = list(item.pairs)
    elif scores and not any(passage.label for passage in passages):
        places = range(len(passages))
        pairs = [(i, j) for i in places for j in places if scores[i] > scores[j]]
    else:
        positives, negatives = sides(item)
        pairs = [(i, j) for i in positives for j in negatives]
    if not pairs:
        raise BadRow(f"no pair of a positive and a negative passage for {shortened(item.group.query)}")
    for i, j in pairs:
        yield passages[i].text, passages[j].text, scores[i] - scores[j] if scores else None
