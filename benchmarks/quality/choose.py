"""Which of some arms the final comparison takes: the best on validation whose student keeps what it knew.

    python benchmarks/quality/choose.py benchmarks/quality/results/validation.jsonl "ARM" "ARM" ...

The mean of average precision over seeds, then sets, then pairs of student and teacher; arms of which a cell is missing, or
of which *whole* loses more than .01 outside (`--most-lost`), do not count. Prints the table to stderr and the arm's name to
stdout. The reference is chosen for each pair, and whatever it forgets: `--pairs cut --most-lost 1`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import models
import numpy as np
import sets
from run import POINTLESS
from table import lost, read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("arms", nargs="+")
    parser.add_argument("--sets", nargs="+", default=list(sets.NAMES), choices=[*sets.NAMES, *sets.MADE])
    parser.add_argument("--pairs", nargs="+", default=["cut", "whole"], choices=list(models.PAIRS))
    parser.add_argument("--most-lost", type=float, default=0.01)
    options = parser.parse_args()
    found: dict[str, float] = {}
    tables = {pair: read(options.results, pair) for pair in options.pairs}
    for arm in options.arms:
        means, losses, seeds = {}, {}, {}
        for pair, (cells, ends) in tables.items():
            wanted = [name for name in options.sets if (name, pair) not in POINTLESS]
            if arm in cells and set(wanted) <= set(cells[arm]):
                rows = [cells[arm][name] for name in wanted]
                means[pair] = np.mean([np.mean([row["after"]["AP"] for row in some]) for some in rows])
                losses[pair] = np.mean([np.mean([lost(row, ends) for row in some]) for some in rows])
                seeds[pair] = min(map(len, rows))
        if len(means) < len(options.pairs):
            print(f"{arm}: cells are missing", file=sys.stderr)
            continue
        said = [f"{pair} MAP {means[pair]:.4f}, lost {losses[pair]:+.4f}, {seeds[pair]} seeds" for pair in means]
        print(f"{arm}: {'; '.join(said)}", file=sys.stderr)
        if losses.get("whole", 0) <= options.most_lost:
            found[arm] = float(np.mean(list(means.values())))
    if not found:
        sys.exit("no arm has all cells and keeps what it knew")
    print(max(found, key=found.__getitem__))


if __name__ == "__main__":
    main()
