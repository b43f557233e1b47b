"""MS MARCO's tab-separated files, without header or quotes (Bajaj et al. 2016).

Triples `query, positive, negative`, as texts or as ids of a collection; or a retriever's top passages
`query id, passage id, query, passage`, whose order is that of the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from distilrank.data.formats.collection import read_qrels, read_texts, text_files
from distilrank.data.formats.item import Item, margins, refuse_item
from distilrank.data.formats.join import Pair, grouped, joined
from distilrank.data.formats.tables import text_lines
from distilrank.errors import UserError
from distilrank.rows import BadLines, BadRow, refuse
from distilrank.shards import whole_file


def read(
    files: Sequence[Path], corpus: Path | None, queries: Path | None, qrels: Path | None, skip: BadLines | None
) -> Iterator[Item]:
    """Groups of a query's passages; with corpus and queries the triples are of ids. `qrels` labels top passages."""
    if (corpus is None) != (queries is None):
        raise UserError("triples of ids need both --corpus and --queries")
    pairs = _pairs(files, corpus is not None, _labels(qrels, skip), skip)
    if corpus is None or queries is None:
        return grouped(pairs, once=True, skip=skip)
    return joined(pairs, read_texts(text_files(corpus), skip), read_texts([queries], skip), once=True, skip=skip)


def write(path: Path, items: Iterable[Item], skip: BadLines | None) -> int:
    """Write triples of texts; tabs and line ends in them become spaces. Returns how many."""
    count = 0
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with whole_file(path) as temporary, pa.output_stream(str(temporary), compression=compression) as stream:
        for item in items:
            try:
                for positive, negative, _ in margins(item):
                    fields = (" ".join(text.split()) for text in (item.group.query, positive, negative))
                    stream.write(("\t".join(fields) + "\n").encode())
                    count += 1
            except BadRow as bad:
                refuse_item(path, item, bad, skip)
    return count


def _labels(qrels: Path | None, skip: BadLines | None) -> dict[tuple[str, str], int] | None:
    return None if qrels is None else {(j.query_id, j.id): j.label for j in read_qrels([qrels], skip)}


def _pairs(
    files: Sequence[Path], by_id: bool, labels: dict[tuple[str, str], int] | None, skip: BadLines | None
) -> Iterator[Pair]:
    for path in files:
        for number, line in enumerate(text_lines(path), start=1):
            where, fields = f"{path}:{number}", [field.strip() for field in line.rstrip("\r\n").split("\t")]
            if fields == [""]:
                continue
            if "" in fields or len(fields) not in ((3,) if by_id else (3, 4)):
                refuse(where, "not three fields (query, positive, negative), or four of a retriever's top passages", skip)
            elif len(fields) == 4:
                query_id, identity, query, text = fields
                label = None if labels is None else labels.get((query_id, identity), 0)
                yield Pair(where, query_id=query_id, query=query, id=identity, text=text, label=label)
            elif fields[1] == fields[2]:
                refuse(where, "the positive and the negative are the same", skip)
            else:
                query, *passages = fields
                for label, passage in zip((1, 0), passages, strict=True):
                    if by_id:
                        yield Pair(where, query_id=query, id=passage, label=label)
                    else:
                        yield Pair(where, query=query, text=passage, label=label)
