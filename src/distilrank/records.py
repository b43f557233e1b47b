"""The things that flow through the rooms, and their files: the only place that knows a file format of ours.

Every form is read and written through `rows.py`, a row at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from distilrank.errors import UserError
from distilrank.rows import (
    BadLines,
    BadRow,
    Row,
    checked_name,
    checked_number,
    checked_text,
    file_rows,
    kind_of,
    list_of,
    number_of,
    read_rows,
    refuse,
    shortened,
    text_of,
    texts_of,
    write_rows,
)


@dataclass(frozen=True, slots=True)
class Passage:
    """A candidate: `label` is an integer grade or none; `source` and `rank` say which retriever brought it and where."""

    text: str
    id: str | None = None
    label: int | None = None
    source: str | None = None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A query with its candidates in the retriever's order: the unit in which everything is stored and batched."""

    query_id: str
    query: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A teacher's raw score for a query and a passage; larger is more relevant, never a probability."""

    query: str
    passage: str
    score: float


@dataclass(frozen=True, slots=True)
class Triplet:
    """Two passages of a query and the difference of their scores (the margin)."""

    query: str
    positive: str
    negative: str
    score: float


@dataclass(frozen=True, slots=True)
class TrainingGroup:
    """The passages of a query chosen for training with their scores.

    `pairs` limits which pairs count (none: all). `labels`, where there are any, are grades (none: unknown); only a loss that
    asks for labels sees them.
    """

    query: str
    passages: tuple[str, ...]
    scores: tuple[float, ...]
    pairs: tuple[tuple[int, int], ...] | None = None
    labels: tuple[int | None, ...] | None = None


@dataclass(frozen=True)
class GroupFile:
    """The groups of a file, iterable as often as needed without holding them in memory."""

    path: str | Path
    skip: BadLines | None = None

    def __iter__(self) -> Iterator[Group]:
        return read_groups(self.path, self.skip)


def read_groups(path: str | Path, skip: BadLines | None = None) -> Iterator[Group]:
    """Read a reranking set: `{"query", "positive", "negative"}` or `{"query", "passages"}`, optional `"query_id"`.

    Positives come first with label 1, negatives after them with label 0. Raises `UserError` on a malformed row.
    """
    for number, row in enumerate(read_rows(path, group_of, skip, _COLUMNS)):
        yield row if row.query_id else Group(str(number), row.query, row.passages)


def read_scored(path: str | Path, skip: BadLines | None = None) -> Iterator[ScoredPair]:
    """Read scored pairs, `{"query", "passage", "score"}`. Raises `UserError` on a malformed row."""

    def pair(row: Row) -> ScoredPair:
        return ScoredPair(text_of(row, "query"), text_of(row, "passage"), number_of(row, "score"))

    return read_rows(path, pair, skip, _COLUMNS)


def read_triplets(path: str | Path, skip: BadLines | None = None) -> Iterator[Triplet]:
    """Read triplets, `{"query", "positive", "negative", "score"}`. Raises `UserError` on a malformed row."""

    def triplet(row: Row) -> Triplet:
        return Triplet(text_of(row, "query"), text_of(row, "positive"), text_of(row, "negative"), number_of(row, "score"))

    return read_rows(path, triplet, skip, _COLUMNS)


def read_training_groups(path: str | Path, skip: BadLines | None = None) -> Iterator[TrainingGroup]:
    """Read training groups, `{"query", "passages", "scores", "pairs"?, "labels"?}`.

    Raises `UserError` on a malformed row.
    """
    return read_rows(path, training_group_of, skip, _COLUMNS)


def holds_triplets(path: str | Path, skip: BadLines | None = None) -> bool:
    """Whether a training file holds triplets (else training groups), by the keys of its first good row."""
    for line, row in file_rows(Path(path), skip, _COLUMNS):
        if "passages" in row and "scores" in row:
            return False
        if "positive" in row and "negative" in row and "score" in row:
            return True
        why = (
            'neither a triplet {"query", "positive", "negative", "score"} nor a training group '
            '{"query", "passages", "scores"}: make one with `distilrank mine`'
        )
        refuse(f"{path}:{line}", why, skip)
    raise UserError(f"{path}: the file is empty")


def write_groups(path: str | Path, groups: Iterable[Group]) -> int:
    """Write groups in the retriever's order; returns how many."""

    return write_rows(path, map(row_of_group, groups), GROUP_SCHEMA)


def row_of_group(group: Group) -> dict[str, Any]:
    """A group as a row of a reranking set."""
    keys = ("text", "id", "label", "source", "rank")
    passages = [{key: getattr(passage, key) for key in keys} for passage in group.passages]
    return {"query_id": group.query_id, "query": group.query, "passages": passages}


def write_scored(path: str | Path, scored: Iterable[ScoredPair]) -> int:
    """Write scored pairs in the reference's format; returns how many."""
    rows = ({"query": pair.query, "passage": pair.passage, "score": pair.score} for pair in scored)
    return write_rows(path, rows, pa.schema([_STRING("query"), _STRING("passage"), ("score", pa.float64())]))


def write_triplets(path: str | Path, triplets: Iterable[Triplet]) -> int:
    """Write triplets in the reference's format; returns how many."""
    rows = ({"query": t.query, "positive": t.positive, "negative": t.negative, "score": t.score} for t in triplets)
    columns = [_STRING("query"), _STRING("positive"), _STRING("negative"), ("score", pa.float64())]
    return write_rows(path, rows, pa.schema(columns))


def write_training_groups(path: str | Path, groups: Iterable[TrainingGroup]) -> int:
    """Write training groups; returns how many."""
    keys = ("query", "passages", "scores", "pairs", "labels")
    rows = ({key: getattr(group, key) for key in keys} for group in groups)
    return write_rows(path, rows, TRAINING_SCHEMA)


def _STRING(name: str) -> tuple[str, pa.DataType]:
    return (name, pa.string())


_COLUMNS = ("query_id", "query", "passages", "positive", "negative", "passage", "score", "scores", "pairs", "labels")
_PASSAGE_TYPE = pa.struct([_STRING("text"), _STRING("id"), ("label", pa.int64()), _STRING("source"), ("rank", pa.int64())])
TRAINING_SCHEMA = pa.schema(
    [
        _STRING("query"),
        ("passages", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
        ("pairs", pa.list_(pa.list_(pa.int32()))),
        ("labels", pa.list_(pa.int64())),
    ]
)
GROUP_SCHEMA = pa.schema([_STRING("query_id"), _STRING("query"), ("passages", pa.list_(_PASSAGE_TYPE))])


# ---- what a row must be -----------------------------------------------------------------------------------------------


def group_of(row: Row) -> Group:
    """A row of a reranking set; its query id is empty where the row has none. Raises `BadRow`."""
    query = text_of(row, "query")
    if "passages" in row:
        passages = tuple(passage_of(entry, number) for number, entry in enumerate(list_of(row, "passages")))
        positive = {passage.text for passage in passages if passage.label}
        negative = {passage.text for passage in passages if passage.label == 0}
    elif "positive" in row or "negative" in row:
        labelled = [(text, 1) for text in texts_of(row, "positive")] + [(text, 0) for text in texts_of(row, "negative")]
        passages = tuple(Passage(text, label=label) for text, label in labelled)
        positive, negative = ({text for text, label in labelled if label == wanted} for wanted in (1, 0))
    else:
        raise BadRow('lacks "passages" (or "positive" and "negative")')
    if both := positive & negative:
        raise BadRow(f"a passage is both positive and negative: {shortened(min(both))}")
    if not passages:
        raise BadRow("the query has no passages")
    return Group(checked_name(row.get("query_id"), "query_id") or "", query, passages)


def passage_of(entry: Any, number: int) -> Passage:
    """The entry at a place in a row's `passages`: a text or an object. Raises `BadRow`."""
    where = f"passages[{number}]"
    if isinstance(entry, str):
        return Passage(checked_text(entry, where))
    if not isinstance(entry, Mapping):
        raise BadRow(f"{where} is {kind_of(entry)}, not a text or an object")
    if "text" not in entry:
        raise BadRow(f'{where} lacks "text"')
    whole = {}
    for key in ("label", "rank"):
        value = entry.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63):
            raise BadRow(f"{where}.{key} is {shortened(value)}, not a whole number of at least 0")
        whole[key] = value
    source = entry.get("source")
    return Passage(
        checked_text(entry["text"], f"{where}.text"),
        id=checked_name(entry.get("id"), f"{where}.id"),
        label=whole["label"],
        source=None if source is None else checked_text(source, f"{where}.source"),
        rank=whole["rank"],
    )


def training_group_of(row: Row) -> TrainingGroup:
    """A row of training groups. Raises `BadRow`."""
    passages = tuple(texts_of(row, "passages"))
    scores = tuple(checked_number(value, f"scores[{number}]") for number, value in enumerate(list_of(row, "scores")))
    if len(passages) != len(scores):
        raise BadRow(f"{len(passages)} passages but {len(scores)} scores")
    if len(passages) < 2:
        raise BadRow("a training group needs at least two passages")
    pairs = row.get("pairs")
    if pairs is not None:
        whole = isinstance(pairs, list) and all(
            isinstance(pair, list) and len(pair) == 2 and all(type(i) is int and 0 <= i < len(passages) for i in pair)
            for pair in pairs
        )
        if not whole or not pairs:
            raise BadRow(f"pairs must be a list of [i, j] below {len(passages)}")
        pairs = tuple((pair[0], pair[1]) for pair in pairs)
    labels = row.get("labels")
    if labels is not None:
        whole = isinstance(labels, list) and all(
            label is None or (type(label) is int and 0 <= label < 2**63) for label in labels
        )
        if not whole or len(labels) != len(passages):
            raise BadRow("labels must be a list with a whole number of at least 0, or null, for each passage")
        labels = tuple(labels)
    return TrainingGroup(text_of(row, "query"), passages, scores, pairs, labels)
