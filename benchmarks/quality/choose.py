"""Which of some arms the final comparison takes: the best on validation whose student keeps what it knew.

    python benchmarks/quality/choose.py benchmarks/quality/results/validation.jsonl "ARM" "ARM" ...

The mean of average precision over seeds, then sets, then pairs of student and teacher; arms of which *whole* loses more than
.01 outside, or of which a cell is missing, do not count. Prints the table to stderr and the arm's name to stdout.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from table import lost, read

SETS = {"cut": 5, "whole": 4}
MOST_LOST = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("arms", nargs="+")
    options = parser.parse_args()
    found: dict[str, float] = {}
    tables = {pair: read(options.results, pair) for pair in SETS}
    for arm in options.arms:
        means, losses, seeds = [], [], []
        for pair, (cells, ends) in tables.items():
            rows = cells.get(arm, {})
            if len(rows) == SETS[pair]:
                means.append(np.mean([np.mean([row["after"]["AP"] for row in some]) for some in rows.values()]))
                losses.append(np.mean([np.mean([lost(row, ends) for row in some]) for some in rows.values()]))
                seeds.append(min(map(len, rows.values())))
        if len(means) < len(SETS):
            print(f"{arm}: cells are missing", file=sys.stderr)
            continue
        print(f"{arm}: MAP {means[0]:.4f} {means[1]:.4f}, lost {losses[1]:+.4f}, seeds {seeds}", file=sys.stderr)
        if losses[1] <= MOST_LOST:
            found[arm] = float(np.mean(means))
    print(max(found, key=found.__getitem__))


if __name__ == "__main__":
    main()
