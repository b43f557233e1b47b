"""MTEB's reranking layout: `corpus`, `queries`, `qrels` and `top_ranked`, each a file or a folder of one file a split.

`top_ranked` has a query's candidates, `{"query-id", "corpus-ids": [..]}`; a candidate that was not judged is a negative
there, as MTEB's evaluator takes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from distilrank.data.formats.collection import needed, read_qrels, read_texts, write_collection
from distilrank.data.formats.item import Item
from distilrank.data.formats.join import Pair, joined
from distilrank.data.formats.tables import table_rows
from distilrank.rows import BadLines, BadRow, checked_name, list_of, refuse
from distilrank.shards import whole_folder

OURS = "top_ranked.jsonl"


def read(folder: Path, split: str | None, skip: BadLines | None) -> Iterator[Item]:
    """The top-ranked passages of each query, in their order."""
    labels = ((j.query_id, j.id, j.label) for j in read_qrels(needed(folder, "qrels", split), skip))
    corpus, queries = (read_texts(needed(folder, name, split), skip) for name in ("corpus", "queries"))
    for item in joined(_top_ranked(needed(folder, "top_ranked", split), skip), corpus, queries, labels, skip=skip):
        passages = tuple(replace(passage, label=passage.label or 0, rank=None) for passage in item.group.passages)
        yield Item(replace(item.group, passages=passages))


def write(folder: Path, items: Iterable[Item], split: str | None) -> int:
    """Write the four parts, `qrels/<split>.tsv` among them; returns how many queries."""
    count = 0
    with whole_folder(folder, OURS) as temporary:
        (temporary / "qrels").mkdir()
        with (
            (temporary / "qrels" / f"{split or 'test'}.tsv").open("w", encoding="utf-8") as qrels,
            (temporary / OURS).open("w", encoding="utf-8") as top_ranked,
        ):
            qrels.write("query-id\tcorpus-id\tscore\n")
            for item, query_id, ids in write_collection(temporary, items):
                count += 1
                top_ranked.write(json.dumps({"query-id": query_id, "corpus-ids": ids}, ensure_ascii=False) + "\n")
                for identity, passage in zip(ids, item.group.passages, strict=True):
                    if passage.label is not None:
                        qrels.write(f"{query_id}\t{identity}\t{passage.label}\n")
    return count


def _top_ranked(files: Sequence[Path], skip: BadLines | None) -> Iterator[Pair]:
    for where, row in table_rows(files, {}, skip):
        try:
            query_id = checked_name(row.get("query-id"), "query-id")
            ids = [checked_name(entry, f"corpus-ids[{place}]") for place, entry in enumerate(list_of(row, "corpus-ids"))]
            if query_id is None or None in ids:
                raise BadRow('a row of top_ranked has "query-id" and "corpus-ids"')
        except BadRow as bad:
            refuse(where, str(bad), skip)
            continue
        for place, identity in enumerate(ids):
            yield Pair(where, query_id=query_id, id=identity, rank=place)
