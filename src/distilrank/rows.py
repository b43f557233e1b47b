"""Rows of files, one at a time: JSON lines (plain, `.gz` or `.zst`) or Parquet with the same columns; what a value must be.

A malformed row raises `UserError` with `file:line: what is wrong`; with a `BadLines` it is counted and skipped.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from distilrank.errors import UserError, first_line
from distilrank.shards import place, reached, whole_file

Row = Mapping[str, Any]
T = TypeVar("T")

ROWS_A_BATCH = 2_000
EMPTY = "an empty text"
"""How the reason ends where a text is empty, or spaces only."""


@dataclass
class BadLines:
    """Collects what is wrong with the rows that are skipped, by `file:line`."""

    reasons: dict[str, str] = field(default_factory=dict)

    def summary(self, most: int = 5) -> str:
        """One line for a person: how many rows were skipped, and the first few reasons."""
        shown = "; ".join(f"{where}: {why}" for where, why in islice(self.reasons.items(), most))
        return f"skipped {len(self.reasons)} bad line{'s' * (len(self.reasons) != 1)}: {shown}"


class BadRow(ValueError):
    """What is wrong with a row."""


# ---- how rows are read and written


def read_rows(
    path: str | Path, check: Callable[[Row], T], skip: BadLines | None, columns: Collection[str] | None = None
) -> Iterator[T]:
    """What `check` makes of each row; it raises `BadRow` on one that is none. Raises `UserError` on an empty file, too.

    `columns` limits what is read of a Parquet file (none: all).
    """
    path = place(path)
    empty = True
    for line, row in file_rows(path, skip, columns):
        try:
            value = check(row)
        except BadRow as bad:
            refuse(f"{path}:{line}", str(bad), skip)
            continue
        empty = False
        yield value
    if empty:
        raise UserError(f"{path}: {'no good line in it' if skip and skip.reasons else 'the file is empty'}")


def refuse(where: str, why: str, skip: BadLines | None) -> None:
    """Stop at a bad row, or note it where bad rows are skipped."""
    if skip is None:
        raise UserError(f"{where}: {why}")
    skip.reasons[where] = why


def file_rows(path: Path, skip: BadLines | None, columns: Collection[str] | None = None) -> Iterator[tuple[int, Row]]:
    """The rows of a file as (line number, row), unchecked. Raises `UserError` where there is no row to be had."""
    with reached(path, "read"):
        yield from _file_rows(path, skip, columns)


def _file_rows(path: Path, skip: BadLines | None, columns: Collection[str] | None) -> Iterator[tuple[int, Row]]:
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a file")
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, columns)
        return
    for number, line in file_lines(path):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if not text:
                continue
            row = json.loads(text)
        except UnicodeDecodeError as error:
            refuse(f"{path}:{number}", f"not UTF-8 text (byte {error.start + 1}): save the file as UTF-8", skip)
        except (json.JSONDecodeError, RecursionError, ValueError) as error:
            where = f" (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
            refuse(f"{path}:{number}", f"not a JSON object{where}", skip)
        else:
            if isinstance(row, dict):
                yield number, row
            else:
                refuse(f"{path}:{number}", f"a line must be a JSON object, this is {kind_of(row)}", skip)


def file_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file as (line number, bytes with the line end), unpacked by the file's ending."""
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    number = 0
    try:
        opened = path.open("rb") if hasattr(path, "fs") else str(path)
        with pa.input_stream(opened, compression=compression) as stream:
            for number, line in enumerate(io.BufferedReader(stream, 1 << 16), start=1):
                yield number, line
    except OSError as error:
        name = f"the {compression} stream" if compression else "the file"
        why = "ends too early: it was cut off" if "runcated" in str(error) else f"cannot be read: {error}"
        raise UserError(f"{path}:{number + 1}: {name} {why}") from None


def _parquet_rows(path: Path, wanted: Collection[str] | None) -> Iterator[tuple[int, Row]]:
    number = 0
    try:
        # What is buffered ahead is kept until the file is closed: all of it, in the end.
        with path.open("rb") as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
            columns = [name for name in file.schema_arrow.names if wanted is None or name in wanted]
            for batch in file.iter_batches(batch_size=ROWS_A_BATCH, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {key: value for key, value in row.items() if value is not None}
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path}:{number + 1}: not a whole Parquet file: {first_line(error)}") from None


def write_rows(path: str | Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> int:
    """Write rows whole, by the file's ending; returns how many. `schema` is that of a Parquet file."""
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


# ---- what a value must be


def text_of(row: Row, key: str) -> str:
    """The text at a key that must be there and not be empty."""
    if key not in row:
        raise BadRow(f'lacks "{key}"')
    return checked_text(row[key], key)


def texts_of(row: Row, key: str) -> list[str]:
    """The list of texts at a key that must be there."""
    return [checked_text(value, f"{key}[{number}]") for number, value in enumerate(list_of(row, key))]


def list_of(row: Row, key: str) -> list[Any]:
    """The list at a key that must be there."""
    if key not in row:
        raise BadRow(f'lacks "{key}"')
    if not isinstance(row[key], list):
        raise BadRow(f'"{key}" is {kind_of(row[key])}, not a list')
    return list(row[key])


def checked_text(value: Any, where: str) -> str:
    """A text that is not empty and that a UTF-8 file can hold."""
    if not isinstance(value, str):
        raise BadRow(f"{where} is {kind_of(value)}, not a text")
    if not value.strip():
        raise BadRow(f"{where} is {EMPTY}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(f"{where} holds half of a surrogate pair, which no UTF-8 file can hold") from None
    return value


def checked_name(value: Any, where: str) -> str | None:
    """An id: a text, or a whole number as text, or none."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return None if value is None else str(value)
    return checked_text(value, where)


def number_of(row: Row, key: str) -> float:
    """The finite number at a key that must be there."""
    if key not in row:
        raise BadRow(f'lacks "{key}"')
    return checked_number(row[key], key)


def checked_number(value: Any, where: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRow(f"{where} is {kind_of(value)}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadRow(f"{where} is {shortened(value)}, not a finite number")
    return number


def kind_of(value: Any) -> str:
    """What a value is, in a person's words."""
    names: dict[type, str] = {
        dict: "an object", list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number",
    }  # fmt: skip
    return "null" if value is None else names.get(type(value), type(value).__name__)


def shortened(value: Any) -> str:
    """A value as it is shown in a message."""
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 60 else shown[:57] + "..."
