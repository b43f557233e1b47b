"""A report of many queries: its size, the seconds to write it, and how long a browser takes to show its first rows.

    python benchmarks/report_size.py [--queries 5000 --passages 30 --characters 300 --seed 0]

Texts are words drawn evenly from 50,000 invented ones, which compress worse than any language. The browser is Debian's
headless Chromium, driven as the tests drive it; it loads the page three times, and the median counts. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from distilrank.evidence import Evaluation, System, evaluate, write_report
from distilrank.records import Group, Passage

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from evidence.browser import Page

FIRST_ROWS = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
"""The page's own script draws the rows before this event."""
OPEN = """(async () => {
  const start = performance.now();
  document.querySelector('.open').click();
  while (!document.querySelector('.side')) await new Promise((go) => setTimeout(go, 1));
  return performance.now() - start;
})()"""
SEARCH = """(() => {
  const search = document.getElementById('queries-search'), start = performance.now();
  search.value = 'an';
  search.dispatchEvent(new Event('input'));
  return performance.now() - start;
})()"""


def invented(queries: int, passages: int, characters: int, seed: int) -> Evaluation:
    """Four systems on queries with one positive each."""
    rng = np.random.default_rng(seed)
    words = ["".join(map(chr, rng.integers(97, 123, rng.integers(2, 10)))) for _ in range(50_000)]
    mean = 1 + sum(map(len, words)) / len(words)

    def text(length: int) -> str:
        return " ".join(words[place] for place in rng.integers(0, len(words), max(1, round(length / mean))))

    groups = [
        Group(
            str(n), text(50), tuple(Passage(text(characters), label=int(place == n % passages)) for place in range(passages))
        )
        for n in range(queries)
    ]
    labels = [np.asarray([passage.label for passage in group.passages]) for group in groups]

    def scores(strength: float) -> list[np.ndarray]:
        return [(rng.normal(size=passages) + strength * row).astype(np.float32) for row in labels]

    systems = [
        System("bm25", "baseline", scores(0.2)),
        System("before", "before", scores(0.5)),
        System("after", "after", scores(1.0)),
        System("teacher", "teacher", scores(2.0)),
    ]
    return evaluate(groups, systems)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("queries", 5_000), ("passages", 30), ("characters", 300), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    evaluation = invented(asked.queries, asked.passages, asked.characters, asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        start = time.perf_counter()
        write_report(evaluation, file)
        written = time.perf_counter() - start
        with Page(Path(folder) / "profile") as page:
            first = []
            for _ in range(3):
                page.open(file)
                first.append(page.run(FIRST_ROWS))
            found = {
                **vars(asked),
                "megabytes": round(file.stat().st_size / 1e6, 2),
                "written_s": round(written, 1),
                "first_rows_ms": round(statistics.median(first)),
                "open_query_ms": round(page.run(OPEN)),
                "search_ms": round(page.run(SEARCH)),
                "machine": platform.processor() or platform.machine(),
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
