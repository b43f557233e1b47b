"""Our own forms: reranking sets and training groups, as `records.py` reads and writes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from distilrank.data.formats.item import Item
from distilrank.data.formats.tables import Rows, checked
from distilrank.records import GROUP_SCHEMA, TRAINING_SCHEMA, Group, Passage, group_of, row_of_group, training_group_of
from distilrank.rows import BadLines, BadRow, Row, shortened

__all__ = ["GROUP_SCHEMA", "TRAINING_SCHEMA", "read_groups", "read_training", "row_of_training", "write_group"]


def read_groups(rows: Rows, skip: BadLines | None) -> Iterator[Item]:
    """`{"query", "positive", "negative"}` or `{"query", "passages"}`, optional `"query_id"`."""
    for number, (_, group) in enumerate(checked(rows, group_of, skip)):
        yield Item(group if group.query_id else Group(str(number), group.query, group.passages))


def read_training(rows: Rows, skip: BadLines | None) -> Iterator[Item]:
    """`{"query", "passages", "scores", "pairs"?, "labels"?}`: what `mine --format groups` writes."""
    for number, (_, item) in enumerate(checked(rows, _training, skip)):
        yield replace(item, group=replace(item.group, query_id=str(number)))


def write_group(item: Item) -> Iterator[dict[str, Any]]:
    """A row a group; scores are left out: a reranking set is what is asked, not what was answered."""
    yield row_of_group(item.group)


def row_of_training(item: Item) -> Iterator[dict[str, Any]]:
    """A row a group with its scores. Raises `BadRow` where it has none."""
    texts = [passage.text for passage in item.group.passages]
    if item.scores is None or len(texts) < 2:
        why = "no scores" if item.scores is None else "a single passage"
        raise BadRow(f"a training group needs scores and two passages: {why} for {shortened(item.group.query)}")
    labels = [passage.label for passage in item.group.passages]
    row = {"query": item.group.query, "passages": texts, "scores": item.scores, "pairs": item.pairs}
    yield row if all(label is None for label in labels) else row | {"labels": labels}


def _training(row: Row) -> Item:
    training = training_group_of(row)
    labels = training.labels or (None,) * len(training.passages)
    passages = tuple(Passage(text, label=label) for text, label in zip(training.passages, labels, strict=True))
    return Item(Group("", training.query, passages), training.scores, training.pairs)
