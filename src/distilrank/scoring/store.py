"""The score store: one folder a teacher identity, append-only parts, joined by content in DuckDB.

`<store>/<identity digest>/identity.json` and `part-<uuid>.parquet` with `pair` (16-byte digest of query and passage) and
`score` (float32). Readers see whole parts only; writers need no lock. The store is a folder, or a URL of an object store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from distilrank.errors import UserError
from distilrank.records import Group
from distilrank.shards import append_part, parts, place, reached, write_text
from distilrank.spill import spilling_database
from distilrank.teachers import TeacherIdentity

PAIRS_A_BATCH = 50_000
_WANTED = pa.schema([("number", pa.int64()), ("pair", pa.binary())])
PART = pa.schema([("pair", pa.binary()), ("score", pa.float32())])


def pair_digest(query: str, passage: str) -> bytes:
    """16 bytes that name a (query, passage) pair by content."""
    asked = query.encode()
    return hashlib.blake2b(len(asked).to_bytes(8, "little") + asked + passage.encode(), digest_size=16).digest()


@dataclass(frozen=True)
class Missing:
    """The pairs of some groups that a store lacks: how many, and the groups cut down to them, each pair once."""

    pairs: int
    groups: Iterator[Group]


class ScoreStore:
    """Scores of one teacher identity. `groups` arguments are iterated more than once and need not fit in memory."""

    def __init__(self, folder: str | Path, identity: TeacherIdentity, model: str = "") -> None:
        """`model` is the name by which people know the teacher: it is written down and decides nothing."""
        self.folder = place(folder) / identity.digest
        self._described = asdict(identity) | ({"model": model} if model else {})

    def absolute(self) -> ScoreStore:
        """The same store for a process that works in another folder."""
        found = copy(self)
        found.folder = self.folder.absolute()
        return found

    def append(self, groups: Iterable[Group], scores: Iterable[np.ndarray], provenance: dict[str, str]) -> Path:
        """Keep the scores of groups as one part; the first brings the identity, so that none stands there without scores."""
        described = self.folder / "identity.json"
        with reached(described, "read"):
            known = described.exists()
        if not known:
            write_text(described, json.dumps(self._described, indent=1, ensure_ascii=False) + "\n")
        pairs: list[bytes] = []
        values: list[np.ndarray] = []
        for group, of_group in zip(groups, scores, strict=True):
            pairs += [pair_digest(group.query, passage.text) for passage in group.passages]
            values.append(np.asarray(of_group, dtype=np.float32))
        table = pa.table([pa.array(pairs, pa.binary()), np.concatenate(values)], schema=PART)
        return append_part(self.folder, table.replace_schema_metadata(provenance))

    @contextmanager
    def missing(self, groups: Iterable[Group]) -> Iterator[Missing]:
        """The pairs that have no score yet, in order; a pair that occurs twice is asked for once."""
        with self._joined(groups) as database:
            database.execute(
                "CREATE TABLE missing AS SELECT min(number) AS number FROM wanted ANTI JOIN have USING (pair) GROUP BY pair"
            )
            count = database.execute("SELECT count(*) FROM missing").fetchone()[0]
            numbers = _stream(database.execute("SELECT number FROM missing ORDER BY number"))
            yield Missing(count, _cut_to(groups, (row[0] for row in numbers)))

    def scores(self, groups: Iterable[Group]) -> Iterator[np.ndarray]:
        """Float32 [passages] for each group, in order. Raises `UserError` when a score is missing."""
        for group, values in self.known(groups):
            if np.isnan(values).any():
                raise UserError(f"{self.folder}: no score for a passage of {group.query[:60]!r}: score it first")
            yield values

    def whole(self, groups: Iterable[Group]) -> Iterator[tuple[Group, np.ndarray]]:
        """The groups of which every pair has a score, with float32 [passages] each, in order."""
        return (found for found in self.known(groups) if not np.isnan(found[1]).any())

    def known(self, groups: Iterable[Group]) -> Iterator[tuple[Group, np.ndarray]]:
        """Each group, in order, with float32 [passages]: NaN where the store has no score."""
        query = "SELECT number, max(score) FROM wanted JOIN have USING (pair) GROUP BY number ORDER BY number"
        with self._joined(groups) as database:
            rows = _stream(database.execute(query))
            number = 0
            found, value = next(rows, (-1, 0.0))
            for group in groups:
                values = np.full(len(group.passages), np.nan, dtype=np.float32)
                for place_in_group in range(len(values)):
                    if found == number:
                        values[place_in_group] = value
                        found, value = next(rows, (-1, 0.0))
                    number += 1
                yield group, values

    @contextmanager
    def _joined(self, groups: Iterable[Group]) -> Iterator[Any]:
        """A database with `wanted` (every pair of the groups, numbered) and `have` (every pair of the store)."""
        import duckdb

        with spilling_database() as database:
            try:
                database.execute("CREATE TABLE wanted (number BIGINT, pair BLOB)")
                for batch in _numbered(groups):
                    database.register("batch", batch)
                    database.execute("INSERT INTO wanted SELECT * FROM batch")
                if whole := whole_parts(self.folder):
                    show_parts(database, whole)
                else:
                    database.execute("CREATE TABLE have (pair BLOB, score FLOAT)")
                yield database
            except duckdb.Error as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"{self.folder}: the store cannot be read: {reason}: {_advice(self.folder)}") from error


def show_parts(database: Any, whole: list[Path]) -> None:
    """Parts as the table `have`: DuckDB reads files itself; an object store is read by Arrow, a batch at a time."""
    if remote := getattr(whole[0], "fs", None):
        names = [path.path for path in whole]  # type: ignore[attr-defined]
        database.register("have", ds.dataset(names, PART, "parquet", filesystem=remote))
    else:
        database.read_parquet([str(path) for path in whole]).create_view("have")


def whole_parts(folder: Path) -> list[Path]:
    """The parts of a teacher's folder, each looked at. Raises `UserError` when one is torn or was not written by us."""
    found = parts(folder)
    with ThreadPoolExecutor(16) as readers:  # a look at an object costs a round trip
        return [part for part, _ in zip(found, readers.map(part_schema, found), strict=True)]


def part_schema(part: Path) -> pa.Schema:
    """A part's columns, with its provenance. Raises `UserError` when it is torn or was not written by us."""
    try:
        with reached(part, "read"), part.open("rb") as stream:
            schema = pq.read_schema(stream)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{part}: not whole ({str(error).splitlines()[0]}): {_advice(part.parent)}") from None
    if not is_part(schema):
        raise UserError(f"{part}: not a part of a score store: {_advice(part.parent)}")
    return schema


def is_part(schema: pa.Schema) -> bool:
    """Whether a file with these columns is one of ours."""
    return bool(schema.remove_metadata() == PART)


def _advice(folder: Path) -> str:
    return f"`distilrank scores verify {folder.parent}` lists what to delete; pairs of a deleted part are scored again"


def _numbered(groups: Iterable[Group]) -> Iterator[pa.Table]:
    pairs: list[bytes] = []
    start = 0
    for group in groups:
        pairs += [pair_digest(group.query, passage.text) for passage in group.passages]
        if len(pairs) >= PAIRS_A_BATCH:
            yield _wanted(start, pairs)
            start, pairs = start + len(pairs), []
    if pairs:
        yield _wanted(start, pairs)


def _wanted(start: int, pairs: list[bytes]) -> pa.Table:
    return pa.table([np.arange(start, start + len(pairs)), pa.array(pairs, pa.binary())], schema=_WANTED)


def _stream(rows: Any, size: int = 20_000) -> Iterator[tuple[Any, ...]]:
    while batch := rows.fetchmany(size):
        yield from batch


def _cut_to(groups: Iterable[Group], numbers: Iterator[int]) -> Iterator[Group]:
    """The groups with only the passages whose running numbers are given, in ascending order."""
    wanted = next(numbers, -1)
    number = 0
    for group in groups:
        kept = []
        for passage in group.passages:
            if number == wanted:
                kept.append(passage)
                wanted = next(numbers, -1)
            number += 1
        if kept:
            yield Group(group.query_id, group.query, tuple(kept))
