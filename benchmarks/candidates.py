"""Candidates from a large corpus: passages and queries a second, and the most memory held.

    python benchmarks/candidates.py [--retriever bm25|dense|hybrid] [--passages 1000000] [--queries 1000] [--depth 30]
        [--index exact|usearch] [--file PATH]

The corpus is made up: words drawn by Zipf's law from a vocabulary of 200,000, 60 a passage on average. It is written to
`--file` (default: a temporary one) by a process of its own, so that the memory measured is that of the candidates alone:
one JSON line with the memory after reading, after indexing and at the end. Vectors are random, of `--width` numbers: what an
embedder itself takes is not measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.data.candidates import RETRIEVERS, candidates, make_retrievers
from distilrank.data.corpus import Corpus, Document, Query, read_corpus, write_corpus
from distilrank.data.dense import INDEXES
from distilrank.records import write_groups
from distilrank.stages import peak_mb

VOCABULARY, WORDS = 200_000, 60
BLOCK = 10_000


def made_up(count: int, words: int, seed: int) -> Iterator[str]:
    """Texts of words w1, w2, ... by Zipf's law with exponent 1.1; their lengths are Poisson's."""
    rng = np.random.default_rng(seed)
    chances = 1 / np.arange(1, VOCABULARY + 1) ** 1.1
    steps = np.cumsum(chances / chances.sum())
    for start in range(0, count, BLOCK):
        lengths = 1 + rng.poisson(words - 1, min(BLOCK, count - start))
        drawn = np.searchsorted(steps, rng.random(lengths.sum()))
        for one in np.split(drawn, np.cumsum(lengths)[:-1]):
            yield " ".join(f"w{number}" for number in one)


class RandomEmbedder:
    """Stands in for an embedder: unit vectors, drawn anew for each text."""

    device = "cpu"

    def __init__(self, width: int) -> None:
        self.width, self.rng = width, np.random.default_rng(0)
        self.name = f"random-{width}"

    def embed(self, texts: Sequence[str], role: str) -> np.ndarray:
        drawn = self.rng.standard_normal((len(texts), self.width), dtype=np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--retriever", choices=RETRIEVERS, default="bm25")
    parser.add_argument("--index", choices=INDEXES, default="exact")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--depth", type=int, default=30)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--write-only", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = options.file or Path(folder) / "corpus.jsonl"
        if not file.exists():
            if not options.write_only:
                command = [sys.executable, __file__, "--write-only", "--file", str(file)]
                subprocess.run([*command, "--passages", str(options.passages)], check=True)
            else:
                texts = enumerate(made_up(options.passages, WORDS, 0))
                write_corpus(file, (Document(str(number), text) for number, text in texts))
        if options.write_only:
            return
        before, start = peak_mb(), time.perf_counter()
        with Corpus(read_corpus(file)) as corpus:
            read, after_reading = time.perf_counter(), peak_mb()
            how: dict[str, Any] = {"embedder": lambda: RandomEmbedder(options.width), "index": options.index}
            found_by = make_retrievers(corpus, options.retriever, vectors=Path(folder) / "vectors", **how)
            indexed, after_indexing = time.perf_counter(), peak_mb()
            asked = [Query(str(number), text) for number, text in enumerate(made_up(options.queries, 6, 1))]
            count = write_groups(Path(folder) / "groups.parquet", candidates(corpus, asked, found_by, options.depth))
            end = time.perf_counter()
            result = {
                "retriever": options.retriever,
                "index": options.index,
                "passages": len(corpus),
                "queries": count,
                "mb_before": before,
                "mb_after_reading": after_reading,
                "mb_after_indexing": after_indexing,
                "mb_peak": peak_mb(),
                "read_passages_a_second": round(len(corpus) / (read - start)),
                "index_passages_a_second": round(len(corpus) / (indexed - read)),
                "queries_a_second": round(count / (end - indexed), 1),
            }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
