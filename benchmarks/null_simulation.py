"""How often the tests reject chance: a real pair's per-query differences with signs drawn at random, 2,000 times.

    python benchmarks/null_simulation.py [--set askubuntu_dup] [--draws 2000] [--queries N]

The pair is BM25 and the demo's embedder on the test queries of a labelled set under DISTILRANK_DATA (default
../shared/data). Prints JSON lines: how often each test rejects at .05, whether each finds the real difference, and how
often each finds a difference as large as the one that these queries are said to show with power .8, and how often the 95 %
interval of a sample of as many queries, drawn from these with replacement, holds their mean difference; the same of the
first 10 of them. --queries takes the first N of the set.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np

from distilrank.evidence.significance import LEVEL, paired, paired_differences
from distilrank.metrics import DEFAULT_MEASURES, measure
from distilrank.records import read_groups
from distilrank.rows import BadLines

COLUMNS = 100
FEW = 10


def rejected(differences: np.ndarray, draws: int, seed: int, shift: float = 0.0) -> tuple[float, float]:
    """Shares of `draws` in which the t-test and the randomisation test reject: signs at random, then `shift` added."""
    rng = np.random.default_rng(seed)
    tests = []
    for start in range(0, draws, COLUMNS):
        signs = rng.choice([-1.0, 1.0], (len(differences), min(COLUMNS, draws - start)))
        tests += paired_differences(signs * differences[:, None] + shift, seed=start)
    return tuple(
        float(np.mean([p < LEVEL for p in ps])) for ps in zip(*((t.p, t.p_randomisation) for t in tests), strict=True)
    )


def covered(differences: np.ndarray, draws: int, seed: int) -> float:
    """Share of `draws` samples of the queries in whose bootstrap interval the mean of all of them lies."""
    rng = np.random.default_rng(seed)
    tests = []
    for start in range(0, draws, COLUMNS):
        drawn = rng.integers(0, len(differences), (len(differences), min(COLUMNS, draws - start)))
        tests += paired_differences(differences[drawn], seed=start)
    return float(np.mean([test.low <= differences.mean() <= test.high for test in tests]))


def main() -> None:
    from distilrank.data import bm25_scores
    from distilrank.pipeline.ask import resolve_model
    from distilrank.teachers.embedder import EmbedderTeacher

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="askubuntu_dup")
    parser.add_argument("--draws", type=int, default=2_000)
    parser.add_argument("--queries", type=int)
    options = parser.parse_args()
    folder = Path(os.environ.get("DISTILRANK_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))
    groups = list(read_groups(folder / options.set / "test.jsonl", BadLines()))[: options.queries]
    embedder = EmbedderTeacher(resolve_model("demo:embedder"))
    first, second = (measure(groups, scores) for scores in (embedder.score(groups), bm25_scores(groups)))
    for name in DEFAULT_MEASURES:
        difference = first.values[name] - second.values[name]
        difference = difference[~np.isnan(difference)]
        real = paired(difference, np.zeros(len(difference)))
        null = rejected(difference, options.draws, seed=0)
        # Random signs leave the mean square of the differences as it is, and their mean is zero.
        smallest = real.smallest * float(np.sqrt((difference**2).mean()) / difference.std(ddof=1))
        power = rejected(difference, options.draws, seed=1, shift=smallest)
        result = {
            "set": options.set,
            "measure": name,
            "queries": real.queries,
            "draws": options.draws,
            "null_rejected": {"t": null[0], "randomisation": null[1]},
            "real": {"difference": real.difference, "p": real.p, "p_randomisation": real.p_randomisation},
            "interval_holds_mean": {
                str(count): covered(difference[:count], options.draws, seed=2) for count in (len(difference), FEW)
            },
            "smallest_found": {"difference": smallest, "t": power[0], "randomisation": power[1]},
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
