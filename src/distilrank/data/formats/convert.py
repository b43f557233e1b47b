"""Any format in, any format out: which there are, and how one is told from the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from distilrank.data.formats import (
    beir,
    flagembedding,
    msmarco,
    mteb,
    pairs,
    reranking,
    sentence_transformers,
    tevatron,
    trec,
)
from distilrank.data.formats.collection import find
from distilrank.data.formats.item import Item, refuse_item
from distilrank.data.formats.join import Pair, grouped
from distilrank.data.formats.tables import Rows, kind, table_rows, text_lines, write_table
from distilrank.errors import UserError, did_you_mean
from distilrank.records import Group
from distilrank.rows import BadLines, BadRow, Row

Tables = Sequence[Path] | str
"""Local files, or a `duckdb:` query."""


@dataclass(frozen=True)
class RowFormat:
    """A format with a row a query, a triplet or a pair: in JSON lines, Parquet, CSV or out of a query alike."""

    fits: Callable[[Row], bool]
    read: Callable[[Rows, BadLines | None], Iterator[Item]]
    write: Callable[[Item], Iterator[dict[str, Any]]]
    schema: pa.Schema


@dataclass(frozen=True)
class Parts:
    """What belongs to a source beside itself: its split, the files that hold texts and labels, names of columns."""

    split: str | None = None
    corpus: Path | None = None
    queries: Path | None = None
    qrels: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


ROW_FORMATS = {
    "training-groups": RowFormat(
        lambda row: "passages" in row and "scores" in row,
        reranking.read_training,
        reranking.row_of_training,
        reranking.TRAINING_SCHEMA,
    ),
    "reranking": RowFormat(
        lambda row: "passages" in row or isinstance(row.get("positive", row.get("negative")), list),
        reranking.read_groups,
        reranking.write_group,
        reranking.GROUP_SCHEMA,
    ),
    "flagembedding": RowFormat(
        lambda row: "pos" in row or "neg" in row, flagembedding.read, flagembedding.write, flagembedding.SCHEMA
    ),
    "tevatron": RowFormat(
        lambda row: "positive_passages" in row or "negative_passages" in row or tevatron.by_id(row),
        tevatron.read,
        tevatron.write,
        tevatron.SCHEMA,
    ),
    "sentence-transformers": RowFormat(
        sentence_transformers.fits, sentence_transformers.read, sentence_transformers.write, sentence_transformers.SCHEMA
    ),
    "pairs": RowFormat(lambda row: "passage" in row, pairs.read, pairs.write, pairs.SCHEMA),
}
FORMATS = (*ROW_FORMATS, "beir", "mteb", "trec", "msmarco")
_WITH_MARGINS = ("training-groups", "flagembedding", "sentence-transformers", "msmarco")
"""What can hold a margin of two passages; for the others mined triplets become groups again."""


def convert(
    source: Tables,
    output: Path,
    *,
    read_as: str | None = None,
    write_as: str = "reranking",
    parts: Parts | None = None,
    skip: BadLines | None = None,
    offline: bool = False,
) -> int:
    """Read a source in one format and write it in another; returns how many rows, or queries of a folder, were written.

    Raises `UserError` with `file:line` where a row is malformed or cannot be held by the format that is written.
    """
    _known(write_as, "--to")
    items = read_items(source, read_as, parts, skip, offline=offline, margins=write_as in _WITH_MARGINS)
    return write_items(output, items, write_as, split=parts.split if parts else None, skip=skip)


def read_any_groups(
    source: Tables, parts: Parts | None = None, skip: BadLines | None = None, *, offline: bool = False
) -> Iterator[Group]:
    """The groups of a source in whatever format it is."""
    return (item.group for item in read_items(source, None, parts, skip, offline=offline))


def read_items(
    source: Tables,
    read_as: str | None = None,
    parts: Parts | None = None,
    skip: BadLines | None = None,
    *,
    offline: bool = False,
    margins: bool = False,
) -> Iterator[Item]:
    """Groups with what scores there are. Triplets that carry margins come one by one with `margins`, else as groups."""
    parts = parts or Parts()
    name = read_as or _guess(source, parts)
    _known(name, "--from")
    if name in ROW_FORMATS:
        rows = table_rows(source, parts.columns, skip, offline=offline)
        first = next(rows, None)
        if first is None:
            raise UserError(f"{_shown(source)}: {'no good line in it' if skip and skip.reasons else 'the file is empty'}")
        if read_as is None:
            name = _guess_row(first)
        if name == "tevatron" and tevatron.by_id(first[1]):
            return tevatron.read_by_id(chain([first], rows), parts.corpus, skip)
        items: Iterator[Item] = ROW_FORMATS[name].read(chain([first], rows), skip)
        return items if margins or name != "sentence-transformers" else _whole(items, skip)
    if isinstance(source, str):
        raise UserError(f"{source}: a query returns rows, which --from {name} does not have")
    if name == "msmarco":
        return msmarco.read(source, parts.corpus, parts.queries, parts.qrels, skip)
    if name == "trec":
        return _trec(source, parts, skip)
    folder = source[0]
    if not folder.is_dir():
        raise UserError(f"{folder}: {name} is a folder, this is a file")
    read = beir.read if name == "beir" else mteb.read
    return read(folder, parts.split, skip)


def write_items(
    path: Path, items: Iterable[Item], write_as: str, *, split: str | None = None, skip: BadLines | None = None
) -> int:
    """Write groups in a format; returns how many rows, or queries of a folder."""
    if write_as == "beir":
        return beir.write(path, items, split)
    if write_as == "mteb":
        return mteb.write(path, items, split)
    if write_as == "trec":
        return trec.write(path, items)
    if write_as == "msmarco":
        return msmarco.write(path, items, skip)
    form = ROW_FORMATS[write_as]

    def rows() -> Iterator[dict[str, Any]]:
        for item in items:
            try:
                yield from form.write(item)
            except BadRow as bad:
                refuse_item(path, item, bad, skip)

    return write_table(path, rows(), form.schema)


def _known(name: str, option: str) -> None:
    if name not in FORMATS:
        raise UserError(f"{option} {name}: {did_you_mean(name, FORMATS)}")


def _shown(source: Tables) -> str:
    return source if isinstance(source, str) else ", ".join(map(str, source))


def _guess(source: Tables, parts: Parts) -> str:
    """The format of a folder by its files, of a text file by its first line; of rows any: their columns tell it later."""
    if isinstance(source, str):
        return "reranking"
    path = source[0]
    if path.is_dir():
        for name, needed in (("trec", trec.OURS), ("mteb", "top_ranked"), ("beir", "corpus")):
            if (path / needed).is_file() or find(path, needed, parts.split):
                return name
        raise UserError(f"{path}: no folder of BEIR's or MTEB's (it lacks a corpus): name a file in it")
    if kind(path) in (".tsv", ".txt", ".trec", ".run"):
        first = next((line for line in text_lines(path) if line.strip()), "")
        if len(first.split()) == 6 and first.split()[3].isdecimal() and "query" not in first.split("\t"):
            return "trec"
        if kind(path) == ".tsv" and "query" not in first and parts.columns.get("query", "query") not in first.split("\t"):
            return "msmarco"
    return "reranking"


def _guess_row(first: tuple[str, Row]) -> str:
    where, row = first
    for name, form in ROW_FORMATS.items():
        if form.fits(row):
            return name
    keys = ", ".join(map(repr, row)) or "none"
    raise UserError(
        f"{where}: no known format has these columns: {keys}; a reranking set has query and passages (or positive and "
        "negative), a table query and passage: say which is which with --column query=NAME --column passage=NAME"
    )


def _trec(source: Sequence[Path], parts: Parts, skip: BadLines | None) -> Iterator[Item]:
    folder = source[0] if source[0].is_dir() else None
    if folder is None and (parts.corpus is None or parts.queries is None):
        raise UserError(f"{source[0]}: a TREC run names texts by id: add --corpus and --queries, and --qrels for labels")
    of = folder or Path()
    qrels = parts.qrels or (of / "qrels.txt" if folder and (of / "qrels.txt").exists() else None)
    run = [of / trec.OURS] if folder else source
    return trec.read(run, parts.corpus or of / "corpus.jsonl", parts.queries or of / "queries.jsonl", qrels, skip)


def _whole(items: Iterator[Item], skip: BadLines | None) -> Iterator[Item]:
    """Triplets with margins as groups without labels: among mined passages one is positive here and negative there."""
    first = next(items, None)
    if first is None or first.pairs is None:
        yield from chain([first] if first else [], items)
        return
    rows = (
        Pair("", query=item.group.query, text=passage.text)
        for item in chain([first], items)
        for passage in item.group.passages
    )
    yield from grouped(rows, once=True, skip=skip)
