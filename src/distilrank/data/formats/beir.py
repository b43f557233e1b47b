"""A BEIR folder: `corpus.jsonl`, `queries.jsonl` and `qrels/<split>.tsv` (Thakur et al. 2021).

It has no candidates: a query's passages are those that were judged for it. For a retriever's candidates give its run
(`--from trec`), or make them with `distilrank candidates`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from distilrank.data.formats.collection import needed, read_qrels, read_texts, write_collection
from distilrank.data.formats.item import Item
from distilrank.data.formats.join import Pair, joined
from distilrank.rows import BadLines
from distilrank.shards import whole_folder

OURS = "queries.jsonl"


def read(folder: Path, split: str | None, skip: BadLines | None) -> Iterator[Item]:
    """The judged passages of each query, in the order of the judgements."""
    judgements = read_qrels(needed(folder, "qrels", split), skip)
    pairs = (Pair(j.where, query_id=j.query_id, id=j.id, label=j.label) for j in judgements)
    corpus, queries = (read_texts(needed(folder, name, split), skip) for name in ("corpus", "queries"))
    return joined(pairs, corpus, queries, skip=skip)


def write(folder: Path, items: Iterable[Item], split: str | None) -> int:
    """Write corpus, queries and judgements; an unlabelled passage is in the corpus only. Returns how many queries."""
    count = 0
    with whole_folder(folder, OURS) as temporary:
        (temporary / "qrels").mkdir()
        with (temporary / "qrels" / f"{split or 'test'}.tsv").open("w", encoding="utf-8") as qrels:
            qrels.write("query-id\tcorpus-id\tscore\n")
            for item, query_id, ids in write_collection(temporary, items):
                count += 1
                for identity, passage in zip(ids, item.group.passages, strict=True):
                    if passage.label is not None:
                        qrels.write(f"{query_id}\t{identity}\t{passage.label}\n")
    return count
