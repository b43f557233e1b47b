"""Pairs a second of the demo's teacher on a CPU: padded transformers against the packed engine, through the score store.

    python benchmarks/teacher_on_cpu.py                    # likelihood and yes/no, JSON lines
    python benchmarks/teacher_on_cpu.py --rows 512 2048    # other row lengths

Queries and candidates are the demo's; both arms are driven as `distilrank score` drives them, checks off.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time

import numpy as np

from distilrank.demo import demo_groups, demo_model
from distilrank.engines.decoder import TOKENS_A_ROW
from distilrank.recipe import teacher_spec
from distilrank.scoring import ScoreStore, score
from distilrank.teachers import build_pointwise

KINDS = {
    "likelihood": {"template": "chatml-docstring", "max_length": 320},
    "causal": {"template": "qwen3-reranker", "instruction": "code-search", "max_length": 512},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--rows", type=int, nargs="+", default=[TOKENS_A_ROW["cpu"]])
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    groups = list(demo_groups("test", options.queries, options.candidates))
    for kind in options.kinds:
        reference: np.ndarray | None = None
        for engine, row in [("plain", 0), *(("packed", row) for row in options.rows)]:
            spec = teacher_spec(kind, str(demo_model("llm")), engine=engine, dtype=options.dtype, **KINDS[kind])
            teacher = build_pointwise(spec)
            teacher.decoder.budget = row or teacher.decoder.budget  # type: ignore[attr-defined]
            teacher.score(groups[:2])
            with tempfile.TemporaryDirectory() as folder:
                store = ScoreStore(folder, teacher.identity)
                start = time.perf_counter()
                pairs = score(groups, teacher, store)
                seconds = time.perf_counter() - start
                scores = np.concatenate(list(store.scores(groups)))
            line = {"kind": kind, "engine": engine, "row": row, "pairs": pairs, "pairs_s": round(pairs / seconds, 1)}
            if reference is None:
                reference = scores
            else:
                line |= {"largest_difference": round(float(np.abs(scores - reference).max()), 4)}
                line |= {"correlation": round(float(np.corrcoef(scores, reference)[0, 1]), 5)}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
