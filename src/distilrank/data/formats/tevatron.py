"""Tevatron's training data, a row a query, in both of its layouts.

Texts inside: `{"query_id", "query", "positive_passages", "negative_passages"}`, a passage `{"docid", "title", "text"}`. By
id, since version 2: `{"query_id", "query_text", "positive_document_ids", "negative_document_ids"}` beside a corpus of
`{"docid", "title", "text"}`. A title that is not empty is read in front of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from distilrank.data.formats.collection import read_texts, text_files, titled
from distilrank.data.formats.item import Item, sides
from distilrank.data.formats.join import Pair, joined
from distilrank.data.formats.tables import Rows, checked
from distilrank.errors import UserError
from distilrank.records import Group, Passage
from distilrank.rows import EMPTY, BadLines, BadRow, Row, checked_name, kind_of, list_of, text_of

_PASSAGES = pa.list_(pa.struct([(name, pa.string()) for name in ("docid", "title", "text")]))
SCHEMA = pa.schema(
    [("query_id", pa.string()), ("query", pa.string()), ("positive_passages", _PASSAGES), ("negative_passages", _PASSAGES)]
)


def read(rows: Rows, skip: BadLines | None) -> Iterator[Item]:
    """A row a group, positives first."""
    for number, (_, group) in enumerate(checked(rows, _group, skip)):
        yield Item(group if group.query_id else Group(str(number), group.query, group.passages))


def by_id(row: Row) -> bool:
    """Whether a row names its passages by id."""
    return "positive_document_ids" in row or "negative_document_ids" in row


def read_by_id(rows: Rows, corpus: Path | None, skip: BadLines | None) -> Iterator[Item]:
    """The same with the texts of a corpus. Raises `UserError` without one."""
    if corpus is None:
        raise UserError("these rows name their passages by id: add --corpus, the file or folder with docid and text")
    pairs = (pair for where, named in checked(rows, _named, skip) for pair in named(where))
    return joined(pairs, read_texts(text_files(corpus), skip), (), skip=skip)


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
            if not (text := titled(entry, f"{name}[{place}]")):
                raise BadRow(f"{name}[{place}] is {EMPTY}")
            passages.append(Passage(text, id=checked_name(entry.get("docid"), f"{name}[{place}].docid"), label=label))
    if not passages:
        raise BadRow("the query has no passages")
    if both := {p.text for p in passages if p.label} & {p.text for p in passages if not p.label}:
        raise BadRow(f"a passage is both positive and negative: {min(both)[:60]!r}")
    return Group(checked_name(row.get("query_id"), "query_id") or "", text_of(row, "query"), tuple(passages))


def _named(row: Row) -> Callable[[str], Iterator[Pair]]:
    """A row's passages by id, once it is known where the row stands."""
    query = text_of(row, "query" if "query" in row else "query_text")
    query_id = checked_name(row.get("query_id"), "query_id") or query
    ids: dict[str, int] = {}
    for name, label in (("positive_document_ids", 1), ("negative_document_ids", 0)):
        for place, entry in enumerate(list_of(row, name)):
            identity = checked_name(entry, f"{name}[{place}]")
            if identity is None:
                raise BadRow(f"{name}[{place}] is null")
            if ids.setdefault(identity, label) != label:
                raise BadRow(f"the passage {identity!r} is both positive and negative")
    if not ids:
        raise BadRow("the query has no passages")
    return lambda where: (Pair(where, query_id, query, id=identity, label=label) for identity, label in ids.items())
