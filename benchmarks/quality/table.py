"""Tables out of the bench's results, in Markdown.

    python benchmarks/quality/table.py benchmarks/quality/results/validation.jsonl

An arm's line: MAP on each set (mean over its seeds), the share of the gap that it closes, agreement with the teacher, and
MAP lost outside, each a mean over the sets that all arms of the table have.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Cells = dict[str, dict[str, list[dict[str, Any]]]]
"""Arm -> set -> a result a seed."""


def read(path: Path, pair: str) -> tuple[Cells, dict[str, dict[str, Any]]]:
    """The cells of a pair, and its ends by set."""
    cells: Cells = defaultdict(lambda: defaultdict(list))
    ends = {}
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        if row["pair"] != pair:
            continue
        if row["arm"] == "ends":
            ends[row["set"]] = row
        else:
            cells[row["arm"]][row["set"]].append(row)
    return cells, ends


def gap_closed(row: dict[str, Any], ends: dict[str, Any]) -> float:
    """(after - before) / (teacher - before), of MAP."""
    before, teacher = ends["before"]["AP"], ends["teacher"]["AP"]
    return float((row["after"]["AP"] - before) / (teacher - before))


def lost(row: dict[str, Any], ends: dict[str, dict[str, Any]]) -> float:
    """Mean MAP lost on the validation queries of the other sets."""
    return float(np.mean([ends[name]["before"]["AP"] - value for name, value in row["outside"].items()]))


def table(cells: Cells, ends: dict[str, dict[str, Any]], sets: Sequence[str]) -> Iterable[str]:
    """Lines of Markdown, the arm that closes most of the gap first."""
    yield "| arm | seeds | " + " | ".join(sets) + " | gap closed | agreement | lost outside | steps |"
    yield "|---|---|" + "---|" * (len(sets) + 4)
    line = [f"{ends[name]['before']['AP']:.3f} / {ends[name]['teacher']['AP']:.3f}" for name in sets]
    yield f"| *before / teacher* | | {' | '.join(line)} | | | | |"
    rows = []
    for arm, by_set in cells.items():
        if not set(sets) <= set(by_set):
            continue
        means = [np.mean([row["after"]["AP"] for row in by_set[name]]) for name in sets]
        gap = np.mean([np.mean([gap_closed(row, ends[name]) for row in by_set[name]]) for name in sets])
        agreement = np.mean([np.mean([row["after"]["agreement"] for row in by_set[name]]) for name in sets])
        outside = np.mean([np.mean([lost(row, ends) for row in by_set[name]]) for name in sets])
        steps = np.mean([row["steps"] for name in sets for row in by_set[name]])
        seeds = min(len(by_set[name]) for name in sets)
        numbers = " | ".join(f"{mean:.3f}" for mean in means)
        rows.append((gap, f"| {arm} | {seeds} | {numbers} | {gap:.2f} | {agreement:.3f} | {outside:+.3f} | {steps:.0f} |"))
    yield from (row for _, row in sorted(rows, key=lambda row: -row[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--pairs", nargs="+", default=["cut", "whole"])
    parser.add_argument("--sets", nargs="+", help="arms that lack one of these are left out")
    options = parser.parse_args()
    for pair in options.pairs:
        cells, ends = read(options.results, pair)
        sets = options.sets or sorted(ends)
        print(f"\n{pair}\n")
        print("\n".join(table(cells, ends, [name for name in sets if name in ends])))


if __name__ == "__main__":
    main()
