"""Rows of pairs joined into groups by DuckDB, out of core: neither a collection nor a run need fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import groupby, islice
from typing import Any

import pyarrow as pa

from distilrank.data.formats.item import Item
from distilrank.errors import UserError, first_line
from distilrank.records import Group, Passage
from distilrank.rows import EMPTY, BadLines, refuse, shortened
from distilrank.spill import spilling_database

ROWS_A_BATCH = 50_000


@dataclass(frozen=True, slots=True)
class Pair:
    """A query with one of its passages, as a row of a file has them; `where` is `file:line`. Texts may come by id only."""

    where: str
    query_id: str | None = None
    query: str | None = None
    id: str | None = None
    text: str | None = None
    label: int | None = None
    source: str | None = None
    rank: int | None = None
    score: float | None = None


_PAIR = pa.schema(
    [("number", pa.int64())]
    + [(name, pa.string()) for name in ("place", "query_id", "query", "id", "text")]
    + [("label", pa.int64()), ("source", pa.string()), ("rank", pa.int64()), ("score", pa.float64())]
)
_TEXT = pa.schema([("id", pa.string()), ("text", pa.string())])
_LABEL = pa.schema([("query_id", pa.string()), ("id", pa.string()), ("label", pa.int64())])
_IN_ORDER = """
    SELECT {columns} FROM pairs JOIN
    (SELECT coalesce(query_id, query) AS key, min(number) AS first FROM pairs GROUP BY key) AS firsts
    ON key = coalesce(pairs.query_id, pairs.query) {joins} ORDER BY first, number
"""


def grouped(pairs: Iterable[Pair], *, once: bool = False, skip: BadLines | None = None) -> Iterator[Item]:
    """Pairs that carry their texts, grouped by query id, else by query, in order of first appearance.

    With `once`, as triples need it, a repeated text counts once and positives come first. Scores are kept where all
    passages of a group have one.
    """
    columns = "place, coalesce(pairs.query_id, ''), query, pairs.id, text, label, source, rank, score, key"
    with _database() as database:
        _fill(database, "pairs", _PAIR, _numbered(pairs))
        rows = _stream(database.execute(_IN_ORDER.format(columns=columns, joins="")))
        yield from _items(rows, once, skip)


def joined(
    pairs: Iterable[Pair],
    corpus: Iterable[tuple[str, str]],
    queries: Iterable[tuple[str, str]],
    labels: Iterable[tuple[str, str, int]] | None = None,
    *,
    once: bool = False,
    skip: BadLines | None = None,
) -> Iterator[Item]:
    """Pairs that name query and passage by id, with the texts of a corpus and of queries, and labels where given. A pair may
    carry its query's text itself.

    Within a group the order is that of the ranks where all have one, else of the rows. Raises `UserError` where an id has
    no text, or two.
    """
    columns = "place, pairs.query_id, coalesce(queries.text, query), pairs.id, corpus.text, "
    columns += "coalesce(pairs.label, labels.label), source, rank, score, key"
    joins = (
        "LEFT JOIN queries ON queries.id = pairs.query_id LEFT JOIN corpus ON corpus.id = pairs.id "
        "LEFT JOIN labels ON labels.query_id = pairs.query_id AND labels.id = pairs.id"
    )
    with _database() as database:
        _fill(database, "pairs", _PAIR, _numbered(pairs))
        for name, texts in (("corpus", corpus), ("queries", queries)):
            _fill(database, name, _TEXT, texts)
            twice = database.execute(f"SELECT id FROM {name} GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 1").fetchone()
            if twice:
                raise UserError(f"the {name} has two texts with the id {shortened(twice[0])}")
        _fill(database, "labels", _LABEL, labels or ())
        database.execute("CREATE TABLE one_label AS SELECT query_id, id, max(label) AS label FROM labels GROUP BY ALL")
        database.execute("DROP TABLE labels; ALTER TABLE one_label RENAME TO labels")
        rows = _stream(database.execute(_IN_ORDER.format(columns=columns, joins=joins)))
        yield from _items(_with_texts(rows, skip), once, skip, by_rank=True)


def _with_texts(rows: Iterator[tuple[Any, ...]], skip: BadLines | None) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        place, query_id, query, identity, text = row[:5]
        if query is None or text is None:
            what = f"the query {shortened(query_id)}" if query is None else f"the passage {shortened(identity)}"
            refuse(place, f"{what} has no text in {'the queries' if query is None else 'the corpus'}", skip)
        elif not query.strip() or not text.strip():
            refuse(place, f"{shortened(query_id if not query.strip() else identity)} has {EMPTY}", skip)
        else:
            yield row


def _items(rows: Iterator[tuple[Any, ...]], once: bool, skip: BadLines | None, *, by_rank: bool = False) -> Iterator[Item]:
    for number, (_, of_query) in enumerate(groupby(rows, key=lambda row: row[-1])):
        group = list(of_query)
        if by_rank and all(row[7] is not None for row in group):
            group.sort(key=lambda row: row[7])
        labels: dict[str, set[bool]] = {}
        for row in group:
            if row[5] is not None:
                labels.setdefault(row[4], set()).add(row[5] > 0)
        if both := sorted(text for text, found in labels.items() if len(found) > 1):
            refuse(group[0][0], f"a passage is both positive and negative: {shortened(both[0])}", skip)
            continue
        if once:
            of_text: dict[str, tuple[Any, ...]] = {}
            for row in group:
                of_text.setdefault(row[4], row)
            group = sorted(of_text.values(), key=lambda row: not row[5])
        passages = tuple(Passage(row[4], row[3], row[5], row[6], row[7]) for row in group)
        scores = tuple(row[8] for row in group)
        yield Item(Group(group[0][1] or str(number), group[0][2], passages), None if None in scores else scores)


@contextmanager
def _database() -> Iterator[Any]:
    import duckdb

    with spilling_database() as database:
        try:
            yield database
        except duckdb.Error as error:
            raise UserError(f"the rows cannot be joined: {first_line(error)}") from error


def _fill(database: Any, name: str, schema: pa.Schema, rows: Iterable[tuple[Any, ...]]) -> None:
    batch = schema.empty_table()
    database.register("batch", batch)
    database.execute(f"CREATE TABLE {name} AS SELECT * FROM batch")
    rows = iter(rows)
    while some := list(islice(rows, ROWS_A_BATCH)):
        columns = zip(zip(*some, strict=True), schema, strict=True)
        batch = pa.table([pa.array(column, field.type) for column, field in columns], schema=schema)
        database.register("batch", batch)
        database.execute(f"INSERT INTO {name} SELECT * FROM batch")


def _numbered(pairs: Iterable[Pair]) -> Iterator[tuple[Any, ...]]:
    return ((number, *astuple(pair)) for number, pair in enumerate(pairs))


def _stream(rows: Any, size: int = 20_000) -> Iterator[tuple[Any, ...]]:
    while batch := rows.fetchmany(size):
        yield from batch
