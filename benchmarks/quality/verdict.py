"""The declared test: one arm against another on the test queries, pooled over sets and pairs.

    python benchmarks/quality/verdict.py benchmarks/quality/results/test.jsonl \\
        --ours "ARM" --reference cut "ARM" --reference whole "ARM"

Declared before a test set was opened (docs/quality.md): a query's difference of average precision is the mean over seeds,
and over both pairs of student and teacher where it occurs in both; the differences of all test queries of all sets go into
one two-sided paired t-test, to be below .01 (in the fourth test .005); and for no set of a pair may the bootstrap 95 %
interval lie below zero. The lines of each pair alone were not declared: they tell where a difference comes from.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from table import gap_closed, lost, read

from distilrank.evidence.significance import paired_differences


def differences(cells: dict, ours: str, reference: str, dataset: str) -> np.ndarray:
    """Ours minus the reference's average precision, the mean over seeds; NaN where a query does not count."""

    seeds = [sorted(row["seed"] for row in cells[arm][dataset]) for arm in (ours, reference)]
    if seeds[0] != seeds[1]:
        raise SystemExit(f"{dataset}: seeds {seeds[0]} of {ours}, but {seeds[1]} of {reference}")

    def mean(arm: str) -> np.ndarray:
        return np.mean([np.array(row["AP"], dtype=float) for row in cells[arm][dataset]], axis=0)

    return mean(ours) - mean(reference)


def _mean_of_pairs(found: list[np.ndarray]) -> np.ndarray:
    """A query's mean over the pairs; NaN where it counts in none."""
    values = np.stack(found)
    counted = (~np.isnan(values)).sum(axis=0).astype(float)
    return np.nansum(values, axis=0) / np.where(counted, counted, np.nan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--reference", nargs=2, action="append", required=True, metavar=("PAIR", "ARM"))
    options = parser.parse_args()
    pooled: dict[str, list[np.ndarray]] = defaultdict(list)
    alone: dict[str, list[np.ndarray]] = defaultdict(list)
    columns = "pair | set | queries | before | reference | ours | teacher | ours - reference | 95 % interval"
    print(f"| {columns} | gap closed | agreement | steps |")
    print("|---" * 12 + "|")
    forgotten = []
    for pair, reference in options.reference:
        cells, ends = read(options.results, pair)
        for dataset in sorted(cells[options.ours]):
            found = differences(cells, options.ours, reference, dataset)
            pooled[dataset].append(found)
            alone[pair].append(found)
            test = paired_differences(found[~np.isnan(found), None])[0]
            rows = {arm: cells[arm][dataset] for arm in (reference, options.ours)}
            of = {arm: np.mean([row["after"]["AP"] for row in some]) for arm, some in rows.items()}
            closed = {arm: np.mean([gap_closed(row, ends[dataset]) for row in some]) for arm, some in rows.items()}
            agreed = {arm: np.mean([row["after"]["agreement"] for row in some]) for arm, some in rows.items()}
            steps = {arm: np.mean([row["steps"] for row in some]) for arm, some in rows.items()}
            forgotten += [(pair, arm == options.ours, lost(row, ends)) for arm, some in rows.items() for row in some]
            before, teacher = ends[dataset]["before"]["AP"], ends[dataset]["teacher"]["AP"]
            print(
                f"| {pair} | {dataset} | {test.queries} | {before:.3f} | {of[reference]:.3f} | {of[options.ours]:.3f} "
                f"| {teacher:.3f} | {test.difference:+.4f} | {test.low:+.4f} to {test.high:+.4f} "
                f"| {closed[reference]:.2f} -> {closed[options.ours]:.2f} "
                f"| {agreed[reference]:.3f} -> {agreed[options.ours]:.3f} "
                f"| {steps[reference]:.0f} -> {steps[options.ours]:.0f} |"
            )
    by_query = np.concatenate([_mean_of_pairs(found) for found in pooled.values()])
    print()
    for name, values in [("pooled", by_query), *((f"{pair} alone", np.concatenate(found)) for pair, found in alone.items())]:
        test = paired_differences(values[~np.isnan(values), None])[0]
        print(
            f"{name}: {test.queries} queries, {test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f}), "
            f"paired t-test p = {test.p:.2g}, randomisation p = {test.p_randomisation:.2g}"
        )
    for pair, _ in options.reference:
        for ours in (False, True):
            losses = [loss for of, which, loss in forgotten if of == pair and which == ours]
            if losses:
                print(f"{pair}, {'ours' if ours else 'reference'}: MAP lost outside {np.mean(losses):+.4f}")


if __name__ == "__main__":
    main()
