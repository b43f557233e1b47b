"""The score store: one folder a teacher identity, append-only parts, joined by content in DuckDB.

`<store>/<identity digest>/identity.json` and `part-<uuid>.parquet` with `pair` (16-byte digest of query and passage) and
`score` (float32). Readers see whole parts only; writers need no lock.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distilrank.errors import UserError
from distilrank.records import Group
from distilrank.shards import append_part, parts, write_text
from distilrank.teachers import TeacherIdentity

MEMORY = "2GB"
"""What DuckDB may hold in memory before it spills to disk."""
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
        self.folder = Path(folder) / identity.digest
        self._described = asdict(identity) | ({"model": model} if model else {})

    def append(self, groups: Iterable[Group], scores: Iterable[np.ndarray], provenance: dict[str, str]) -> Path:
        """Keep the scores of groups as one part; the first brings the identity, so that none stands there without scores."""
        described = self.folder / "identity.json"
        if not described.exists():
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
        query = "SELECT number, max(score) FROM wanted JOIN have USING (pair) GROUP BY number ORDER BY number"
        with self._joined(groups) as database:
            rows = _stream(database.execute(query))
            number = 0
            for group in groups:
                values = np.empty(len(group.passages), dtype=np.float32)
                for place in range(len(values)):
                    found, value = next(rows, (-1, 0.0))
                    if found != number:
                        raise UserError(f"{self.folder}: no score for a passage of {group.query[:60]!r}: score it first")
                    values[place] = value
                    number += 1
                yield values

    @contextmanager
    def _joined(self, groups: Iterable[Group]) -> Iterator[Any]:
        """A database with `wanted` (every pair of the groups, numbered) and `have` (every pair of the store)."""
        import duckdb

        with tempfile.TemporaryDirectory(prefix="distilrank-store-") as folder:
            database = duckdb.connect(f"{folder}/join.duckdb")
            database.execute("SET enable_progress_bar = false")  # it would draw on standard output
            try:
                database.execute(f"SET memory_limit = '{MEMORY}'; SET temp_directory = '{folder}/spill'")
                database.execute("SET preserve_insertion_order = false")
                database.execute("CREATE TABLE wanted (number BIGINT, pair BLOB)")
                for batch in _numbered(groups):
                    database.register("batch", batch)
                    database.execute("INSERT INTO wanted SELECT * FROM batch")
                whole = [str(path) for path in parts(self.folder) if part_schema(path)]
                if whole:
                    database.read_parquet(whole).create_view("have")
                else:
                    database.execute("CREATE TABLE have (pair BLOB, score FLOAT)")
                yield database
            except duckdb.Error as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"{self.folder}: the store cannot be read: {reason}: {_advice(self.folder)}") from error
            finally:
                database.close()


def part_schema(part: Path) -> pa.Schema:
    """A part's columns, with its provenance. Raises `UserError` when it is torn or was not written by us."""
    try:
        schema = pq.read_schema(part)
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
