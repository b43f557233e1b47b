"""The tables of an evaluation, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distilrank.evidence.evaluate import Evaluation

SHOWN = {"AP": "MAP", "RR": "MRR", "nDCG": "NDCG"}


@dataclass(frozen=True)
class Change:
    """One line of the reference's table."""

    measure: str
    before: float
    after: float
    p: float

    @property
    def absolute(self) -> float:
        """after - before."""
        return self.after - self.before

    @property
    def relative(self) -> float:
        """(after - before) / before; NaN where before is 0."""
        return self.absolute / self.before if self.before else float("nan")


def shown(measure: str) -> str:
    """A measure's usual name for its mean over queries: AP -> MAP, RR@10 -> MRR@10, nDCG@10 -> NDCG@10."""
    stem, at, depth = measure.partition("@")
    return SHOWN.get(stem, stem) + at + depth


def change_table(evaluation: Evaluation) -> list[Change]:
    """Before, after and p a measure; empty when the evaluation lacks one of the two."""
    before, after = evaluation.with_role("before"), evaluation.with_role("after")
    if not before or not after:
        return []
    means = evaluation.means()
    return [
        Change(name, means[before.name][name], means[after.name][name], evaluation.comparisons[name].p)
        for name in evaluation.measures
    ]


def print_tables(evaluation: Evaluation) -> None:
    """The reference's table (before, after, absolute and relative change) with p, then every system."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if changes := change_table(evaluation):
        table = Table(title="student before and after")
        for heading in ("metric", "before", "after", "absolute", "relative", "p"):
            table.add_column(heading, justify="left" if heading == "metric" else "right")
        for change in changes:
            table.add_row(
                shown(change.measure),
                f"{change.before:.6f}",
                f"{change.after:.6f}",
                f"{change.absolute:+.6f}",
                "-" if change.relative != change.relative else f"{change.relative:+.2%}",
                p_value(change.p),
            )
        console.print(table)
    table = Table(title=f"every system on the same candidates, {int(evaluation.judged.sum())} queries")
    for heading in ("system", *map(shown, evaluation.measures), "ties"):
        table.add_column(heading, justify="left" if heading == "system" else "right")
    means = evaluation.means()
    for system in evaluation.systems:
        row: Sequence[str] = [f"{means[system.name][name]:.4f}" for name in evaluation.measures]
        table.add_row(system.name, *row, f"{evaluation.measured[system.name].tied_share:.2%}")
    console.print(table)
    if left := len(evaluation.groups) - int(evaluation.judged.sum()):
        console.print(f"{left} queries have no positive or no negative passage and are in no mean")


def p_value(p: float) -> str:
    """A p-value as people read it."""
    return "-" if p != p else ("< 0.0001" if p < 1e-4 else f"{p:.4f}")
