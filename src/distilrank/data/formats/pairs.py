"""A table with a row a pair of query and passage, by the names of its columns.

`query` and `passage`, and where there are any `query_id`, `passage_id`, `label`, `source`, `rank` and `score`; other names
are told with `--column query=question`. Scored pairs are such a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from distilrank.data.formats.item import Item
from distilrank.data.formats.join import Pair, grouped
from distilrank.data.formats.tables import Rows, checked, number, whole
from distilrank.rows import BadLines, Row, checked_name, checked_text, text_of

_TEXTS = ("query_id", "query", "passage_id", "passage")
SCHEMA = pa.schema(
    [(name, pa.string()) for name in _TEXTS]
    + [("label", pa.int64()), ("source", pa.string()), ("rank", pa.int64()), ("score", pa.float64())]
)


def read(rows: Rows, skip: BadLines | None) -> Iterator[Item]:
    """Rows of one query, wherever they stand, become a group in the order of first appearance."""
    return grouped((replace(pair, where=where) for where, pair in checked(rows, _pair, skip)), skip=skip)


def write(item: Item) -> Iterator[dict[str, Any]]:
    """A row a passage."""
    for place, passage in enumerate(item.group.passages):
        yield {
            "query_id": item.group.query_id or None,
            "query": item.group.query,
            "passage_id": passage.id,
            "passage": passage.text,
            "label": passage.label,
            "source": passage.source,
            "rank": passage.rank,
            "score": item.scores[place] if item.scores else None,
        }


def _pair(row: Row) -> Pair:
    source = row.get("source")
    return Pair(
        "",
        query_id=checked_name(row.get("query_id"), "query_id"),
        query=text_of(row, "query"),
        id=checked_name(row.get("passage_id"), "passage_id"),
        text=text_of(row, "passage"),
        label=whole(row, "label"),
        source=None if source is None else checked_text(source, "source"),
        rank=whole(row, "rank"),
        score=number(row, "score"),
    )
