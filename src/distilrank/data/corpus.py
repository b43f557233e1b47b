"""A corpus and its queries: their files (BEIR's columns), and a corpus on disk that is read by number."""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from distilrank.errors import UserError
from distilrank.rows import BadLines, Row, checked_name, read_rows, text_of, write_rows


@dataclass(frozen=True, slots=True)
class Document:
    """A passage of a corpus. `id` is `document#number` where we cut it out of a document."""

    id: str
    text: str
    title: str = ""

    @property
    def passage(self) -> str:
        """What teacher and student read: title, blank line, text."""
        return f"{self.title}\n\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """A query; `passage` is the id of the passage that it was made from, where it was made."""

    id: str
    text: str
    passage: str | None = None


def read_corpus(path: str | Path, skip: BadLines | None = None) -> Iterator[Document]:
    """Read a corpus, `{"_id", "title"?, "text"}`. Raises `UserError` on a malformed row."""

    def document(row: Row) -> Document:
        return Document(_identity(row), text_of(row, "text"), text_of(row, "title") if row.get("title") else "")

    if Path(path).is_dir():
        raise UserError(f"{path}: is a folder: make a corpus of the documents in it with `distilrank passages`")
    return read_rows(path, document, skip)


def write_corpus(path: str | Path, documents: Iterable[Document]) -> int:
    """Write a corpus; returns how many passages."""
    rows = ({"_id": d.id, "title": d.title or None, "text": d.text} for d in documents)
    return write_rows(path, rows, pa.schema([(name, pa.string()) for name in ("_id", "title", "text")]))


def read_queries(path: str | Path, skip: BadLines | None = None) -> Iterator[Query]:
    """Read queries, `{"_id", "text", "passage"?}`. Raises `UserError` on a malformed row."""
    return read_rows(
        path, lambda row: Query(_identity(row), text_of(row, "text"), checked_name(row.get("passage"), "passage")), skip
    )


def write_queries(path: str | Path, queries: Iterable[Query]) -> int:
    """Write queries; returns how many."""
    rows = ({"_id": q.id, "text": q.text, "passage": q.passage} for q in queries)
    return write_rows(path, rows, pa.schema([(name, pa.string()) for name in ("_id", "text", "passage")]))


def _identity(row: Row) -> str:
    return checked_name(row.get("_id"), "_id") or text_of(row, "_id")


class Corpus:
    """The passages of a corpus in a temporary file, read by number: in memory it takes 8 bytes a passage."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._file = tempfile.TemporaryFile(prefix="distilrank-corpus-")  # noqa: SIM115 (closed by __exit__)
        self._ends = array("q", [0])
        for document in documents:
            line = json.dumps([document.id, document.text, document.title]).encode()
            self._file.write(line)
            self._ends.append(self._ends[-1] + len(line))
        self._file.flush()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> Document:
        start, end = self._ends[number], self._ends[number + 1]
        return Document(*json.loads(os.pread(self._file.fileno(), end - start, start)))

    def __iter__(self) -> Iterator[Document]:
        return (self[number] for number in range(len(self)))

    def __enter__(self) -> Corpus:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()
