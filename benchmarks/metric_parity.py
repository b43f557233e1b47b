"""Our measures against other people's on real labelled sets: the largest difference of any query, or of the means.

    python benchmarks/metric_parity.py

BM25 on every test set under DISTILRANK_DATA (default ../shared/data). Tied scores are put in our order first (each tool
breaks ties in its own way). Prints a JSON line a set: against trec_eval (pytrec_eval), ir-measures on the TREC files that
`evaluate --trec` writes, and scikit-learn by query; against sentence-transformers' `CrossEncoderRerankingEvaluator` by
means, with its own convention for the queries that count (without those of a single passage, at which it stops).
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np

from distilrank.data import bm25_scores
from distilrank.evidence import System, evaluate
from distilrank.evidence.trec import query_names, write_trec
from distilrank.metrics import measure, ranking
from distilrank.records import Group, read_groups
from distilrank.rows import BadLines

MEASURES = ("AP", "RR@10", "nDCG@10")


def strict(group: Group, scores: np.ndarray) -> np.ndarray:
    """The scores' order as distinct scores."""
    falling = np.empty(len(scores), dtype=np.float32)
    falling[ranking(group, scores)] = -np.arange(len(scores))
    return falling


def by_scikit_learn(group: Group, scores: np.ndarray) -> list[float]:
    """AP and nDCG@10 of one query."""
    from sklearn.metrics import average_precision_score, ndcg_score

    labels = [passage.label or 0 for passage in group.passages]
    return [average_precision_score(np.asarray(labels) > 0, scores), ndcg_score([labels], [scores], k=10)]


def by_trec_files(groups: list[Group], scores: list[np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Tool -> measure -> values of the queries that count, from the files that we write."""
    import ir_measures
    import pytrec_eval

    with tempfile.TemporaryDirectory() as folder:
        write_trec(evaluate(groups, [System("m", "model", scores)], MEASURES), Path(folder) / "trec")
        files = [str(Path(folder) / "trec" / name) for name in ("qrels.txt", "m.run")]
        with open(files[0]) as qrels, open(files[1]) as run:
            judge = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels), {"map", "ndcg_cut.10"})
            by_trec_eval = judge.evaluate(pytrec_eval.parse_run(run))
        parsed = [ir_measures.parse_measure(name) for name in MEASURES]
        read = ir_measures.read_trec_qrels(files[0]), ir_measures.read_trec_run(files[1])
        metrics = list(ir_measures.iter_calc(parsed, *map(list, read)))
    ordered = [name for name in query_names(groups) if name in by_trec_eval]
    found = {(str(metric.measure), metric.query_id): metric.value for metric in metrics}
    keys = {"AP": "map", "nDCG@10": "ndcg_cut_10"}
    return {
        "trec_eval": {ours: np.asarray([by_trec_eval[q][key] for q in ordered]) for ours, key in keys.items()},
        "ir_measures": {name: np.asarray([found[name, q] for q in ordered]) for name in MEASURES},
    }


def by_sentence_transformers(groups: list[Group], scores: list[np.ndarray]) -> list[float]:
    """Means of MAP, MRR@10 and NDCG@10, every query counted in its way."""
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    class Known:
        """A model that looks its scores up."""

        def predict(self, pairs: list[list[str]], **_: object) -> np.ndarray:
            return np.asarray([known[query, passage] for query, passage in pairs], dtype=np.float64)

    samples, known = [], {}
    for number, (group, values) in enumerate(zip(groups, scores, strict=True)):
        sample: dict[str, object] = {"query": str(number), "positive": [], "negative": []}
        for place, passage in enumerate(group.passages):
            sample["positive" if passage.label else "negative"].append(str(place))  # type: ignore[attr-defined]
            known[str(number), str(place)] = values[place]
        samples.append(sample)
    evaluator = CrossEncoderRerankingEvaluator(samples, at_k=10, write_csv=False)
    evaluator.store_metrics_in_model_card_data = lambda *_, **__: None  # type: ignore[method-assign]
    found = evaluator(Known())  # type: ignore[arg-type]
    return [found["map"], found["mrr@10"], found["ndcg@10"]]


def parity(groups: list[Group]) -> dict[str, object]:
    """The largest differences on one set."""
    scores = [strict(group, values) for group, values in zip(groups, bm25_scores(groups), strict=True)]
    queries, ours = len(groups), measure(groups, scores, MEASURES)
    kept = np.flatnonzero(ours.judged).tolist()
    learn = np.asarray([by_scikit_learn(groups[n], scores[n]) for n in kept])
    largest = {}
    for column, key in enumerate(("AP", "nDCG@10")):
        largest[f"scikit-learn {key}"] = np.abs(ours.values[key][kept] - learn[:, column]).max()
    for tool, values in by_trec_files(groups, scores).items():
        largest |= {f"{tool} {key}": np.abs(ours.values[key][kept] - row).max() for key, row in values.items()}
    several = [n for n, group in enumerate(groups) if len(group.passages) > 1]
    groups, scores = [groups[n] for n in several], [scores[n] for n in several]
    counted = measure(groups, scores, MEASURES, "sentence-transformers")
    for key, mean in zip(MEASURES, by_sentence_transformers(groups, scores), strict=True):
        largest[f"sentence-transformers {key}"] = abs(counted.mean(key) - mean)
    rounded = {key: float(f"{value:.1e}") for key, value in largest.items()}
    return {"queries": queries, "counted": len(kept), "largest_difference": rounded}


def main() -> None:
    folder = Path(os.environ.get("DISTILRANK_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))
    for path in sorted(folder.glob("*/test.jsonl")):
        print(json.dumps({"set": path.parent.name} | parity(list(read_groups(path, BadLines())))), flush=True)


if __name__ == "__main__":
    main()
