"""sentence-transformers' triplets: anchor, positive, one or several negatives, and a margin where it was distilled.

Its losses go by the order of the columns, with `score` or `label` as the target (a margin for `MarginMSELoss`); the names
below are those of its documentation and of the data sets of its authors. Ours, and the published scripts', are the same
with `query` and `score`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from distilrank.data.formats.item import Item, margins
from distilrank.data.formats.join import Pair, grouped
from distilrank.data.formats.tables import Rows, checked, number
from distilrank.records import Group, Passage
from distilrank.rows import BadLines, BadRow, Row, shortened, text_of

QUERY = ("query", "anchor", "question")
SCHEMA = pa.schema([(name, pa.string()) for name in ("query", "positive", "negative")] + [("score", pa.float64())])
_NEGATIVE = re.compile(r"negative(_\d+)?")


def fits(row: Row) -> bool:
    """Whether a row is a triplet: texts, not lists of texts."""
    return any(name in row for name in QUERY) and isinstance(row.get("positive"), str) and any(map(_NEGATIVE.fullmatch, row))


def read(rows: Rows, skip: BadLines | None) -> Iterator[Item]:
    """A margin a row where the first has a score, so that not one of them changes; else groups of labelled passages."""
    rows = iter(rows)
    first = next(rows, None)
    again = _chain(first, rows)
    if first and "score" in first[1]:
        return (item for _, item in checked(again, _margin, skip))
    pairs = (pair for where, row in checked(again, _pairs, skip) for pair in _labelled(where, row))
    return grouped(pairs, once=True, skip=skip)


def write(item: Item) -> Iterator[dict[str, Any]]:
    """A row a pair of passages. Raises `BadRow` where there is none."""
    for positive, negative, margin in margins(item):
        yield {"query": item.group.query, "positive": positive, "negative": negative, "score": margin}


def _chain(first: tuple[str, Row] | None, rest: Iterator[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    if first:
        yield first
    yield from rest


def _margin(row: Row) -> Item:
    query, positive, negatives = _pairs(row)
    margin = number(row, "score")
    if margin is None or len(negatives) != 1:
        raise BadRow("a distilled triplet has one negative and a score")
    passages = (Passage(positive), Passage(negatives[0]))
    return Item(Group("", query, passages), (margin, 0.0), ((0, 1),))


def _pairs(row: Row) -> tuple[str, str, list[str]]:
    name = next((name for name in QUERY if name in row), QUERY[0])
    negatives = [text_of(row, key) for key in row if _NEGATIVE.fullmatch(key)]
    if not negatives:
        raise BadRow('lacks "negative"')
    positive = text_of(row, "positive")
    if positive in negatives:
        raise BadRow(f"a passage is both positive and negative: {shortened(positive)}")
    return text_of(row, name), positive, negatives


def _labelled(where: str, row: tuple[str, str, list[str]]) -> Iterator[Pair]:
    query, positive, negatives = row
    yield Pair(where, query=query, text=positive, label=1)
    for negative in negatives:
        yield Pair(where, query=query, text=negative, label=0)
