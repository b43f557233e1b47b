"""Next month: a student goes on with new queries, with and without old ones that come back; what does it forget?

    python benchmarks/next_month.py [--set askubuntu_dup] [--queries N] [--seeds 3] [--learning-rate 1e-4] [--share 0.2]

The two months are two halves of a set by topic: k-means (k = 2) on the embedder's vectors of the training queries; a test
query belongs to the nearer centre. Teacher: the mean of the demo's embedder's and reranker's within-query z-scores, times 4;
no label is used but in the measure. Student: the demo's reranker. One JSON line a seed and system with MAP on either half of
the test queries: `untrained`; `first` (the first half); `continued` (then the second half, `train --from`); `replayed` (the
same with `--replay`); `both` (untrained, on both halves at once: what patience would have given). Data: `$DISTILRANK_DATA`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from distilrank.demo import demo_model
from distilrank.engines.classifier import Reranker
from distilrank.engines.embedder import Embedder
from distilrank.metrics import measure
from distilrank.records import Group, TrainingGroup, read_groups, write_training_groups
from distilrank.rows import BadLines
from distilrank.students import TrainSettings, train
from distilrank.students.replay import continue_training

PASSAGES = 8
DEVIATION = 4.0


def read(folder: Path, names: Sequence[str], most: int | None) -> list[Group]:
    # Some queries of askubuntu_dup have no passages.
    found = (group for name in names if (folder / name).exists() for group in read_groups(folder / name, BadLines()))
    return list(islice(found, most))


def taught(groups: Sequence[Group], embedder: Embedder, reranker: Reranker, seed: int) -> list[TrainingGroup]:
    """Eight passages of each query, drawn at random, with the teacher's scores."""
    rng = np.random.default_rng(seed)
    chosen = []
    for group in groups:
        order = rng.permutation(len(group.passages))[:PASSAGES]
        chosen.append(Group(group.query_id, group.query, tuple(group.passages[i] for i in sorted(order.tolist()))))
    queries = embedder.embed([group.query for group in chosen], "query")
    texts = [passage.text for group in chosen for passage in group.passages]
    vectors = np.split(embedder.embed(texts, "document"), np.cumsum([len(group.passages) for group in chosen])[:-1])
    rows = []
    for group, query, passages, logits in zip(chosen, queries, vectors, reranker.score(chosen), strict=True):
        parts = [(values - values.mean()) / max(float(values.std()), 1e-6) for values in (passages @ query, logits)]
        scores = DEVIATION * np.mean(parts, axis=0)
        if len(scores) > 1:
            rows.append(TrainingGroup(group.query, tuple(p.text for p in group.passages), tuple(map(float, scores))))
    return rows


def main() -> None:
    from sklearn.cluster import KMeans

    parser = argparse.ArgumentParser()
    parser.add_argument("--set", default="askubuntu_dup")
    parser.add_argument("--queries", type=int)
    parser.add_argument("--tests", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--share", type=float, default=0.2)
    options = parser.parse_args()
    data = Path(os.environ.get("DISTILRANK_DATA", Path(__file__).parents[1] / "../shared/data")) / options.set
    training = read(data, ("train_unlabelled.jsonl", "train.jsonl"), options.queries)
    tests = read(data, ("test.jsonl",), options.tests)
    embedder, reranker = Embedder(demo_model("embedder")), Reranker(demo_model("reranker"))
    clusters = KMeans(2, n_init=10, random_state=0).fit(embedder.embed([group.query for group in training], "query"))
    half = clusters.labels_
    test_half = clusters.predict(embedder.embed([group.query for group in tests], "query"))

    def told(seed: int, system: str, model: Path, start: float) -> None:
        scores = Reranker(model).score(tests)
        maps = {}
        for number, name in enumerate(("first", "second")):
            places = np.flatnonzero(test_half == number).tolist()
            found = measure([tests[i] for i in places], [scores[i] for i in places], ("AP",))
            maps[f"MAP_{name}_half"] = round(found.mean("AP"), 4)
        seconds = round(time.monotonic() - start, 1)
        print(json.dumps({"set": options.set, "seed": seed, "system": system, **maps, "seconds": seconds}), flush=True)

    sizes = {"train": np.bincount(half, minlength=2).tolist(), "test": np.bincount(test_half, minlength=2).tolist()}
    print(json.dumps({"set": options.set, "queries_of_halves": sizes, "options": vars(options)}), flush=True)
    told(0, "untrained", demo_model("reranker"), time.monotonic())
    for seed in range(options.seeds):
        rows = taught(training, embedder, reranker, seed)
        settings = TrainSettings(learning_rate=options.learning_rate, queries_per_step=4, max_length=256, seed=seed)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            of = dict(zip((group.query for group in training), half.tolist(), strict=True))
            files = [folder / "first.parquet", folder / "second.parquet", folder / "both.parquet"]
            for number, file in enumerate(files[:2]):
                write_training_groups(file, (row for row in rows if of[row.query] == number))
            write_training_groups(files[2], rows)
            start = time.monotonic()
            train(files[0], demo_model("reranker"), folder / "one", settings)
            told(seed, "first", folder / "one", start)
            for system, replay in (("continued", None), ("replayed", files[0])):
                start = time.monotonic()
                continue_training(files[1], folder / "one", folder / system, settings, replay=replay, share=options.share)
                told(seed, system, folder / system, start)
            start = time.monotonic()
            train(files[2], demo_model("reranker"), folder / "all", settings)
            told(seed, "both", folder / "all", start)


if __name__ == "__main__":
    main()
