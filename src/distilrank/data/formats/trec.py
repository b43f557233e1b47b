"""A TREC run with its collection: `query Q0 passage rank score tag` a line, and judgements where there are any.

The candidates are the run's, in the order of its ranks; a passage that was not judged has no label. The run's own scores
are a retriever's, not a teacher's: they are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from distilrank.data.formats.collection import read_qrels, read_texts, text_files, write_collection
from distilrank.data.formats.item import Item
from distilrank.data.formats.join import Pair, joined
from distilrank.data.formats.tables import text_lines
from distilrank.rows import BadLines, refuse
from distilrank.shards import whole_folder

OURS = "run.txt"


def read(run: Sequence[Path], corpus: Path, queries: Path, qrels: Path | None, skip: BadLines | None) -> Iterator[Item]:
    """The run's candidates of each query, with the labels of the judgements."""
    labels = ((j.query_id, j.id, j.label) for j in read_qrels([qrels], skip)) if qrels else None
    return joined(_run(run, skip), read_texts(text_files(corpus), skip), read_texts([queries], skip), labels, skip=skip)


def write(folder: Path, items: Iterable[Item]) -> int:
    """Write `run.txt`, `qrels.txt`, `corpus.jsonl` and `queries.jsonl`; returns how many queries."""
    count = 0
    with (
        whole_folder(folder, OURS) as temporary,
        (temporary / OURS).open("w", encoding="utf-8") as run,
        (temporary / "qrels.txt").open("w", encoding="utf-8") as qrels,
    ):
        for item, query_id, ids in write_collection(temporary, items):
            count += 1
            for rank, (identity, passage) in enumerate(zip(ids, item.group.passages, strict=True), start=1):
                # A run is read by its scores: they fall with the rank, whatever the retriever's own were.
                tag = "_".join((passage.source or "distilrank").split())
                run.write(f"{query_id} Q0 {identity} {rank} {1 / rank:.6f} {tag}\n")
                if passage.label is not None:
                    qrels.write(f"{query_id} 0 {identity} {passage.label}\n")
    return count


def _run(files: Sequence[Path], skip: BadLines | None) -> Iterator[Pair]:
    for path in files:
        for number, line in enumerate(text_lines(path), start=1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 6 or not fields[3].isdecimal():
                why = "a line of a run is `query Q0 passage rank score tag`, with a whole number as rank"
                refuse(f"{path}:{number}", why, skip)
            else:
                query_id, _, identity, rank, _, tag = fields
                yield Pair(f"{path}:{number}", query_id=query_id, id=identity, source=tag, rank=int(rank))
