"""Mining as many scored pairs as the reference has, 593,522: seconds and peak memory.

    python benchmarks/mining_speed.py [--pairs 593522]

Prints one JSON line. Titles of about 44 characters, 30 candidates a query, as in StackOverflowDupQuestions.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from distilrank.mining import mine
from distilrank.records import ScoredPair, write_scored

CANDIDATES = 30


def pairs(count: int) -> Iterator[ScoredPair]:
    """Random pairs with titles of the reference's length."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5_000)]
    for number in range(count):
        query = number // CANDIDATES
        title = f"{query} {words[query % 5_000]} {words[query * 7 % 5_000]} in a list"
        yield ScoredPair(title, " ".join(rng.choices(words, k=8)), rng.gauss(0, 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=593_522)
    parser.add_argument("--mine", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mine:  # in a process of its own, so that the peak is that of mining alone
        start = time.monotonic()
        triplets = mine(f"{options.mine}/scored.jsonl", f"{options.mine}/triplets.jsonl")
        seconds = time.monotonic() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
        result = {"pairs": options.pairs, "triplets": triplets, "seconds": round(seconds, 1), "peak_mb": peak}
        print(json.dumps(result | {"machine": platform.processor() or platform.machine()}))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_scored(Path(folder) / "scored.jsonl", pairs(options.pairs))
        command = [sys.executable, __file__, "--pairs", str(options.pairs), "--mine", folder]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
