"""Tevatron's training data: `{"query_id", "query", "positive_passages", "negative_passages"}`, a row a query.

As its data sets are published: a passage is `{"docid", "title", "text"}`; the title, where it is not empty, is read in
front of the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from distilrank.data.formats.collection import titled
from distilrank.data.formats.item import Item, sides
from distilrank.data.formats.tables import Rows, checked
from distilrank.records import Group, Passage
from distilrank.rows import BadLines, BadRow, Row, checked_name, kind_of, list_of, text_of

_PASSAGES = pa.list_(pa.struct([(name, pa.string()) for name in ("docid", "title", "text")]))
SCHEMA = pa.schema(
    [("query_id", pa.string()), ("query", pa.string()), ("positive_passages", _PASSAGES), ("negative_passages", _PASSAGES)]
)


def read(rows: Rows, skip: BadLines | None) -> Iterator[Item]:
    """A row a group, positives first."""
    for number, (_, group) in enumerate(checked(rows, _group, skip)):
        yield Item(group if group.query_id else Group(str(number), group.query, group.passages))


def write(item: Item) -> Iterator[dict[str, Any]]:
    """One row; a passage without an id gets one from its place. Raises `BadRow` where nothing says what is positive."""
    row: dict[str, Any] = {"query_id": item.group.query_id, "query": item.group.query}
    for name, places in zip(("positive_passages", "negative_passages"), sides(item), strict=True):
        row[name] = []
        for place in places:
            passage = item.group.passages[place]
            identity = passage.id or f"{item.group.query_id}-{place}"
            row[name].append({"docid": identity, "title": "", "text": passage.text})
    yield row


def _group(row: Row) -> Group:
    passages = []
    for name, label in (("positive_passages", 1), ("negative_passages", 0)):
        for place, entry in enumerate(list_of(row, name)):
            if not isinstance(entry, dict):
                raise BadRow(f"{name}[{place}] is {kind_of(entry)}, not an object")
            text = titled(entry, f"{name}[{place}]")
            passages.append(Passage(text, id=checked_name(entry.get("docid"), f"{name}[{place}].docid"), label=label))
    if not passages:
        raise BadRow("the query has no passages")
    if both := {p.text for p in passages if p.label} & {p.text for p in passages if not p.label}:
        raise BadRow(f"a passage is both positive and negative: {min(both)[:60]!r}")
    return Group(checked_name(row.get("query_id"), "query_id") or "", text_of(row, "query"), tuple(passages))
