"""The things that flow through the rooms, and their files: the only place that knows a file format of ours.

Every form is read and written as JSON lines (plain, `.gz` or `.zst`) or as Parquet with the same columns, a row at a
time. A malformed row raises `UserError` with `file:line: what is wrong`; with a `BadLines` it is counted and skipped.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from distilrank.errors import UserError
from distilrank.shards import whole_file

Row = Mapping[str, Any]
T = TypeVar("T")

ROWS_A_BATCH = 2_000


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


@dataclass
class BadLines:
    """Collects what is wrong with the rows that are skipped, by `file:line`."""

    reasons: dict[str, str] = field(default_factory=dict)

    def summary(self, most: int = 5) -> str:
        """One line for a person: how many rows were skipped, and the first few reasons."""
        shown = "; ".join(f"{where}: {why}" for where, why in islice(self.reasons.items(), most))
        return f"skipped {len(self.reasons)} bad line{'s' * (len(self.reasons) != 1)}: {shown}"


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
    for number, row in enumerate(_read(path, _group, skip)):
        yield row if row.query_id else Group(str(number), row.query, row.passages)


def read_scored(path: str | Path, skip: BadLines | None = None) -> Iterator[ScoredPair]:
    """Read scored pairs, `{"query", "passage", "score"}`. Raises `UserError` on a malformed row."""
    return _read(path, lambda row: ScoredPair(_text(row, "query"), _text(row, "passage"), _number(row, "score")), skip)


def read_triplets(path: str | Path, skip: BadLines | None = None) -> Iterator[Triplet]:
    """Read triplets, `{"query", "positive", "negative", "score"}`. Raises `UserError` on a malformed row."""

    def triplet(row: Row) -> Triplet:
        return Triplet(_text(row, "query"), _text(row, "positive"), _text(row, "negative"), _number(row, "score"))

    return _read(path, triplet, skip)


def read_training_groups(path: str | Path, skip: BadLines | None = None) -> Iterator[TrainingGroup]:
    """Read training groups, `{"query", "passages", "scores", "pairs"?, "labels"?}`.

    Raises `UserError` on a malformed row.
    """
    return _read(path, _training_group, skip)


def holds_triplets(path: str | Path, skip: BadLines | None = None) -> bool:
    """Whether a training file holds triplets (else training groups), by the keys of its first good row."""
    for line, row in _rows(Path(path), skip):
        if "passages" in row and "scores" in row:
            return False
        if "positive" in row and "negative" in row and "score" in row:
            return True
        why = (
            'neither a triplet {"query", "positive", "negative", "score"} nor a training group '
            '{"query", "passages", "scores"}: make one with `distilrank mine`'
        )
        _refuse(f"{path}:{line}", why, skip)
    raise UserError(f"{path}: the file is empty")


def write_groups(path: str | Path, groups: Iterable[Group]) -> int:
    """Write groups in the retriever's order; returns how many."""

    def row(group: Group) -> dict[str, Any]:
        keys = ("text", "id", "label", "source", "rank")
        passages = [{key: getattr(passage, key) for key in keys} for passage in group.passages]
        return {"query_id": group.query_id, "query": group.query, "passages": passages}

    return _write(path, map(row, groups), _GROUP_SCHEMA)


def write_scored(path: str | Path, scored: Iterable[ScoredPair]) -> int:
    """Write scored pairs in the reference's format; returns how many."""
    rows = ({"query": pair.query, "passage": pair.passage, "score": pair.score} for pair in scored)
    return _write(path, rows, pa.schema([_STRING("query"), _STRING("passage"), ("score", pa.float64())]))


def write_triplets(path: str | Path, triplets: Iterable[Triplet]) -> int:
    """Write triplets in the reference's format; returns how many."""
    rows = ({"query": t.query, "positive": t.positive, "negative": t.negative, "score": t.score} for t in triplets)
    columns = [_STRING("query"), _STRING("positive"), _STRING("negative"), ("score", pa.float64())]
    return _write(path, rows, pa.schema(columns))


def write_training_groups(path: str | Path, groups: Iterable[TrainingGroup]) -> int:
    """Write training groups; returns how many."""
    keys = ("query", "passages", "scores", "pairs", "labels")
    rows = ({key: getattr(group, key) for key in keys} for group in groups)
    columns = [
        _STRING("query"),
        ("passages", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
        ("pairs", pa.list_(pa.list_(pa.int32()))),
        ("labels", pa.list_(pa.int64())),
    ]
    return _write(path, rows, pa.schema(columns))


def _STRING(name: str) -> tuple[str, pa.DataType]:
    return (name, pa.string())


_COLUMNS = ("query_id", "query", "passages", "positive", "negative", "passage", "score", "scores", "pairs", "labels")
_PASSAGE_TYPE = pa.struct([_STRING("text"), _STRING("id"), ("label", pa.int64()), _STRING("source"), ("rank", pa.int64())])
_GROUP_SCHEMA = pa.schema([_STRING("query_id"), _STRING("query"), ("passages", pa.list_(_PASSAGE_TYPE))])


# ---- what a row must be -----------------------------------------------------------------------------------------------


class _Bad(ValueError):
    """What is wrong with a row."""


def _group(row: Row) -> Group:
    query = _text(row, "query")
    if "passages" in row:
        passages = tuple(_passage(entry, number) for number, entry in enumerate(_list(row, "passages")))
        positive = {passage.text for passage in passages if passage.label}
        negative = {passage.text for passage in passages if passage.label == 0}
    elif "positive" in row or "negative" in row:
        labelled = [(text, 1) for text in _texts(row, "positive")] + [(text, 0) for text in _texts(row, "negative")]
        passages = tuple(Passage(text, label=label) for text, label in labelled)
        positive, negative = ({text for text, label in labelled if label == wanted} for wanted in (1, 0))
    else:
        raise _Bad('lacks "passages" (or "positive" and "negative")')
    if both := positive & negative:
        raise _Bad(f"a passage is both positive and negative: {_short(min(both))}")
    if not passages:
        raise _Bad("the query has no passages")
    return Group(_name(row.get("query_id"), "query_id") or "", query, passages)


def _passage(entry: Any, number: int) -> Passage:
    where = f"passages[{number}]"
    if isinstance(entry, str):
        return Passage(_checked(entry, where))
    if not isinstance(entry, Mapping):
        raise _Bad(f"{where} is {_kind(entry)}, not a text or an object")
    if "text" not in entry:
        raise _Bad(f'{where} lacks "text"')
    whole = {}
    for key in ("label", "rank"):
        value = entry.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63):
            raise _Bad(f"{where}.{key} is {_short(value)}, not a whole number of at least 0")
        whole[key] = value
    source = entry.get("source")
    return Passage(
        _checked(entry["text"], f"{where}.text"),
        id=_name(entry.get("id"), f"{where}.id"),
        label=whole["label"],
        source=None if source is None else _checked(source, f"{where}.source"),
        rank=whole["rank"],
    )


def _training_group(row: Row) -> TrainingGroup:
    passages = tuple(_texts(row, "passages"))
    scores = tuple(_finite(value, f"scores[{number}]") for number, value in enumerate(_list(row, "scores")))
    if len(passages) != len(scores):
        raise _Bad(f"{len(passages)} passages but {len(scores)} scores")
    if len(passages) < 2:
        raise _Bad("a training group needs at least two passages")
    pairs = row.get("pairs")
    if pairs is not None:
        whole = isinstance(pairs, list) and all(
            isinstance(pair, list) and len(pair) == 2 and all(type(i) is int and 0 <= i < len(passages) for i in pair)
            for pair in pairs
        )
        if not whole or not pairs:
            raise _Bad(f"pairs must be a list of [i, j] below {len(passages)}")
        pairs = tuple((pair[0], pair[1]) for pair in pairs)
    labels = row.get("labels")
    if labels is not None:
        whole = isinstance(labels, list) and all(label is None or (type(label) is int and label >= 0) for label in labels)
        if not whole or len(labels) != len(passages):
            raise _Bad("labels must be a list with a whole number of at least 0, or null, for each passage")
        labels = tuple(labels)
    return TrainingGroup(_text(row, "query"), passages, scores, pairs, labels)


def _text(row: Row, key: str) -> str:
    if key not in row:
        raise _Bad(f'lacks "{key}"')
    return _checked(row[key], key)


def _texts(row: Row, key: str) -> list[str]:
    return [_checked(value, f"{key}[{number}]") for number, value in enumerate(_list(row, key))]


def _list(row: Row, key: str) -> list[Any]:
    if key not in row:
        raise _Bad(f'lacks "{key}"')
    if not isinstance(row[key], list):
        raise _Bad(f'"{key}" is {_kind(row[key])}, not a list')
    return list(row[key])


def _checked(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _Bad(f"{where} is {_kind(value)}, not a text")
    if not value.strip():
        raise _Bad(f"{where} is an empty text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _Bad(f"{where} holds half of a surrogate pair, which no UTF-8 file can hold") from None
    return value


def _name(value: Any, where: str) -> str | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return None if value is None else str(value)
    return _checked(value, where)


def _number(row: Row, key: str) -> float:
    if key not in row:
        raise _Bad(f'lacks "{key}"')
    return _finite(row[key], key)


def _finite(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Bad(f"{where} is {_kind(value)}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _Bad(f"{where} is {_short(value)}, not a finite number")
    return number


def _kind(value: Any) -> str:
    names: dict[type, str] = {
        dict: "an object", list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number",
    }  # fmt: skip
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _short(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 60 else shown[:57] + "..."


# ---- how rows are read and written ------------------------------------------------------------------------------------


def _read(path: str | Path, check: Callable[[Row], T], skip: BadLines | None) -> Iterator[T]:
    path = Path(path)
    empty = True
    for line, row in _rows(path, skip):
        try:
            value = check(row)
        except _Bad as bad:
            _refuse(f"{path}:{line}", str(bad), skip)
            continue
        empty = False
        yield value
    if empty:
        raise UserError(f"{path}: {'no good line in it' if skip and skip.reasons else 'the file is empty'}")


def _refuse(where: str, why: str, skip: BadLines | None) -> None:
    if skip is None:
        raise UserError(f"{where}: {why}")
    skip.reasons[where] = why


def _rows(path: Path, skip: BadLines | None) -> Iterator[tuple[int, Row]]:
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a file")
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    for number, line in _lines(path):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if not text:
                continue
            row = json.loads(text)
        except UnicodeDecodeError as error:
            _refuse(f"{path}:{number}", f"not UTF-8 text (byte {error.start + 1}): save the file as UTF-8", skip)
        except (json.JSONDecodeError, RecursionError, ValueError) as error:
            where = f" (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
            _refuse(f"{path}:{number}", f"not a JSON object{where}", skip)
        else:
            if isinstance(row, dict):
                yield number, row
            else:
                _refuse(f"{path}:{number}", f"a line must be a JSON object, this is {_kind(row)}", skip)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    number = 0
    try:
        with pa.input_stream(str(path), compression=compression) as stream:
            for number, line in enumerate(io.BufferedReader(stream, 1 << 16), start=1):
                yield number, line
    except OSError as error:
        name = f"the {compression} stream" if compression else "the file"
        why = "ends too early: it was cut off" if "runcated" in str(error) else f"cannot be read: {error}"
        raise UserError(f"{path}:{number + 1}: {name} {why}") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if name in _COLUMNS]
            for batch in file.iter_batches(batch_size=ROWS_A_BATCH, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {key: value for key, value in row.items() if value is not None}
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path}:{number + 1}: not a whole Parquet file: {str(error).splitlines()[0]}") from None


def _write(path: str | Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> int:
    path = Path(path)
    count = 0
    with whole_file(path) as temporary:
        if path.suffix == ".parquet":
            rows = iter(rows)
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                while batch := list(islice(rows, ROWS_A_BATCH)):
                    writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                    count += len(batch)
        else:
            compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
            with pa.output_stream(str(temporary), compression=compression) as stream:
                for row in rows:
                    stream.write(json.dumps(_without_none(row), ensure_ascii=False).encode() + b"\n")
                    count += 1
    return count


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    return [_without_none(entry) for entry in value] if isinstance(value, list | tuple) else value
