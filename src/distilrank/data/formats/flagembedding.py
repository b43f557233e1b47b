"""FlagEmbedding's training data: `{"query", "pos", "neg", "pos_scores"?, "neg_scores"?}`, a row a query.

As its trainer reads it (FlagEmbedding, `finetune/reranker`): `pos` and `neg` are lists of texts, and the scores are the
teacher's, used where it distils. Other keys, like `prompt` and `pos_id`, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from distilrank.data.formats.item import Item, sides
from distilrank.data.formats.tables import Rows, checked
from distilrank.records import Group, Passage
from distilrank.rows import BadLines, BadRow, Row, checked_number, list_of, text_of, texts_of

_TEXTS, _NUMBERS = pa.list_(pa.string()), pa.list_(pa.float64())
SCHEMA = pa.schema(
    [("query", pa.string()), ("pos", _TEXTS), ("neg", _TEXTS), ("pos_scores", _NUMBERS), ("neg_scores", _NUMBERS)]
)


def read(rows: Rows, skip: BadLines | None) -> Iterator[Item]:
    """A row a group, positives first."""
    for number, (_, item) in enumerate(checked(rows, _item, skip)):
        yield Item(Group(str(number), item.group.query, item.group.passages), item.scores)


def write(item: Item) -> Iterator[dict[str, Any]]:
    """One row. Raises `BadRow` where nothing says which passage is positive."""
    row: dict[str, Any] = {"query": item.group.query}
    for name, places in zip(("pos", "neg"), sides(item), strict=True):
        row[name] = [item.group.passages[place].text for place in places]
        row[f"{name}_scores"] = [item.scores[place] for place in places] if item.scores else None
    yield row


def _item(row: Row) -> Item:
    passages = [Passage(text, label=1) for text in texts_of(row, "pos")]
    passages += [Passage(text, label=0) for text in texts_of(row, "neg")]
    if not passages:
        raise BadRow("the query has no passages")
    if both := {p.text for p in passages if p.label} & {p.text for p in passages if not p.label}:
        raise BadRow(f"a passage is both positive and negative: {min(both)[:60]!r}")
    scores: list[float] = []
    for name in ("pos", "neg"):
        if row.get(f"{name}_scores") is not None:
            found = list_of(row, f"{name}_scores")
            if len(found) != len(row[name]):
                raise BadRow(f"{len(row[name])} texts in {name} but {len(found)} scores in {name}_scores")
            scores += [checked_number(score, f"{name}_scores[{place}]") for place, score in enumerate(found)]
    if scores and len(scores) != len(passages):
        raise BadRow("scores for one of pos and neg only")
    return Item(Group("", text_of(row, "query"), tuple(passages)), tuple(scores) or None)
