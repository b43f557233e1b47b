"""Rows from wherever a table is: JSON lines, Parquet, CSV and TSV with a header, or what a DuckDB query returns."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from distilrank.data.sources import SQL
from distilrank.errors import UserError
from distilrank.rows import BadLines, BadRow, Row, checked_number, file_lines, file_rows, refuse, shortened, write_rows
from distilrank.shards import whole_file

T = TypeVar("T")
PACKED = (".gz", ".zst")
_EXTENSION = re.compile(r'Extension "(\w+)" is an existing extension|exists in the (\w+) extension')
Rows = Iterable[tuple[str, Row]]
"""Rows with where each stands, `file:line`."""


def kind(path: Path) -> str:
    """A file's ending without that of its compression: `.csv` of `a.csv.gz`."""
    return (path.with_suffix("") if path.suffix in PACKED else path).suffix


def table_rows(
    tables: Sequence[Path] | str, columns: Mapping[str, str], skip: BadLines | None, *, offline: bool = False
) -> Iterator[tuple[str, Row]]:
    """The rows of files, or of a `duckdb:` query. `columns` says which column is meant by a name of ours."""
    rows = _query(tables, offline) if isinstance(tables, str) else (row for path in tables for row in _file(path, skip))
    theirs = {name: ours for ours, name in columns.items()}
    needed = {columns[ours] for ours in ("query", "passage") if ours in columns}
    for where, row in rows:
        if absent := needed - row.keys():
            raise UserError(f"{where}: no column {min(absent)!r}; there are: {', '.join(map(repr, row))}")
        needed = set()  # of the first row: it may be null further down, which is told as what it is
        kept = {key: value for key, value in row.items() if key not in columns or columns[key] == key}
        yield where, {theirs.get(key, key): value for key, value in kept.items()}


def checked(rows: Rows, check: Callable[[Row], T], skip: BadLines | None) -> Iterator[tuple[str, T]]:
    """What `check` makes of each row. Raises `UserError` where it raises `BadRow`, or where there is no row."""
    empty = True
    for where, row in rows:
        try:
            value = check(row)
        except BadRow as bad:
            refuse(where, str(bad), skip)
            continue
        empty = False
        yield where, value
    if empty:
        raise UserError("no good row in what was read" if skip and skip.reasons else "there is no row in what was read")


def write_table(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> int:
    """Write rows by the file's ending, CSV and TSV among them; returns how many."""
    if kind(path) not in (".csv", ".tsv"):
        return write_rows(path, rows, schema)
    if lists := [field.name for field in schema if pa.types.is_nested(field.type)]:
        raise UserError(f"{path}: {kind(path)} cannot hold the lists of {lists[0]!r}: write .jsonl or --to pairs")
    count = 0
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with whole_file(path) as temporary, pa.output_stream(str(temporary), compression=compression) as stream:
        lines = _Lines(stream)
        writer = csv.writer(lines, dialect="excel-tab" if kind(path) == ".tsv" else "excel")
        writer.writerow(schema.names)
        for row in rows:
            writer.writerow([row.get(name) for name in schema.names])
            count += 1
    return count


class _Lines:
    """A text file for the csv module over a stream of bytes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text.encode())
        return len(text)


def number(row: Row, key: str) -> float | None:
    """The finite number at a key, as a number or, out of CSV, as text; none where the row has none."""
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise BadRow(f"{key} is {shortened(value)}, not a number") from None
    return checked_number(float(value) if isinstance(value, bool) else value, key)


def whole(row: Row, key: str) -> int | None:
    """A whole number of at least 0 in the same way."""
    value = number(row, key)
    if value is not None and (value != int(value) or not 0 <= value < 2**53):
        raise BadRow(f"{key} is {shortened(row[key])}, not a whole number of at least 0")
    return None if value is None else int(value)


def _file(path: Path, skip: BadLines | None) -> Iterator[tuple[str, Row]]:
    rows = _csv(path, skip) if kind(path) in (".csv", ".tsv") else file_rows(path, skip)
    return ((f"{path}:{number}", row) for number, row in rows)


def _csv(path: Path, skip: BadLines | None) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(text_lines(path), dialect="excel-tab" if kind(path) == ".tsv" else "excel", strict=True)
    try:
        header = next(reader, [])
        if twice := [name for name in header if header.count(name) > 1]:
            raise UserError(f"{path}:1: two columns have the name {twice[0]!r}")
        for fields in reader:
            if fields and len(fields) != len(header):
                refuse(f"{path}:{reader.line_num}", f"{len(fields)} fields, but the header has {len(header)}", skip)
            elif fields:
                yield reader.line_num, {key: value for key, value in zip(header, fields, strict=True) if value != ""}
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file with their ends. Raises `UserError` where one is not UTF-8."""
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    for number, line in file_lines(path):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: not UTF-8 text (byte {error.start + 1}): save the file as UTF-8") from None


def _query(source: str, offline: bool) -> Iterator[tuple[str, Row]]:
    import duckdb

    try:
        with duckdb.connect(config={"autoinstall_known_extensions": not offline}) as database:
            database.execute("SET enable_progress_bar = false")  # it would draw on standard output
            rows = database.execute(source.removeprefix(SQL))
            names = [column[0] for column in rows.description or ()]
            number = 0
            while batch := rows.fetchmany(2_000):
                for values in batch:
                    number += 1
                    row = {name: _plain(value) for name, value in zip(names, values, strict=True) if value is not None}
                    yield f"duckdb row {number}", row
    except duckdb.Error as error:
        told = " ".join(str(error).split())
        if absent := _EXTENSION.search(told):
            name = absent[1] or absent[2]
            where = "" if offline else ", and could not be fetched"
            raise UserError(
                f"duckdb: its extension {name} is not on this machine{where}: run the query INSTALL {name} once where there "
                "is a network, take it out of a wheel (docs/data.md), or export the table to Parquet or CSV"
            ) from None
        raise UserError(f"duckdb: {told}") from None


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value
