"""The tables of an evaluation, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from distilrank.evidence.evaluate import Evaluation
from distilrank.evidence.significance import Paired
from distilrank.evidence.wording import p_value, shown

AGREEMENT = "agreement"
"""What stands for a measure where there are no labels: nDCG@10 against the teacher's scores."""


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


def first_measure(evaluation: Evaluation) -> str:
    """The measure that decides, here as in the gate of forgetting: the one listed first; agreement without labels."""
    return next(iter(evaluation.measures), AGREEMENT)


def change_table(evaluation: Evaluation) -> list[Change]:
    """Before, after and p a measure; empty when the evaluation lacks one of the two, or labels."""
    before, after = evaluation.with_role("before"), evaluation.with_role("after")
    if not before or not after or not evaluation.measures:
        return []
    means = evaluation.means()
    return [
        Change(name, means[before.name][name], means[after.name][name], evaluation.comparisons[name].p)
        for name in evaluation.measures
    ]


def print_tables(evaluation: Evaluation) -> None:
    """The reference's table with its tests, every system, and what else was found: agreement, forgetting, cost."""
    from rich.console import Console

    console = Console()
    for title, headings, rows in (
        _changes(evaluation),
        _tests(evaluation),
        _systems(evaluation),
        _agreement(evaluation),
        _forgetting(evaluation),
        _costs(evaluation),
    ):
        if rows:
            console.print(as_table(title, headings, rows))
    for note in _notes(evaluation):
        console.print(note, highlight=False, markup=False)


def interval(test: Paired) -> str:
    """The ends of a test's interval; a dash where there is none."""
    return f"{test.low:+z.4f} to {test.high:+z.4f}" if test.low == test.low else "-"


def verdict(test: Paired) -> str:
    """What a test says of a difference, in a word or two."""
    if not test.shown:
        return "not shown"
    return "better" if test.difference > 0 else "worse"


Rows = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, headings and rows of a table; without rows it is not printed."""


def _changes(evaluation: Evaluation) -> Rows:
    rows = [
        (
            shown(change.measure),
            f"{change.before:.6f}",
            f"{change.after:.6f}",
            f"{change.absolute:+z.6f}",
            _or_dash(change.relative, "+z.2%"),
            p_value(change.p),
        )
        for change in change_table(evaluation)
    ]
    return "student before and after", ("metric", "before", "after", "absolute", "relative", "p (t-test)"), rows


def _tests(evaluation: Evaluation) -> Rows:
    headings = ["metric", "95% interval", "p (signs)", "p (Holm)", "verdict"]
    rows = [
        [shown(name), interval(test), p_value(test.p_randomisation), p_value(test.p_holm), verdict(test)]
        for name, test in evaluation.comparisons.items()
    ]
    gaps = evaluation.gap_closed
    if any(gap == gap for gap in gaps.values()):
        headings.append("gap closed")
        rows = [[*row, _or_dash(gaps[name], "z.0%")] for row, name in zip(rows, evaluation.comparisons, strict=True)]
    return "how sure the change is", headings, rows


def _systems(evaluation: Evaluation) -> Rows:
    title = f"every system on the same candidates, {int(evaluation.judged.sum())} queries"
    headings = ["system", *map(shown, evaluation.measures), "ties"]
    if evaluation.reference and evaluation.measures:
        headings.append("verdict")
        title += f"; verdict: {evaluation.reference} against it in {shown(first_measure(evaluation))}"
    rows: list[Sequence[str]] = []
    means = evaluation.means()
    for system in evaluation.systems if evaluation.measures else ():
        values = [f"{means[system.name][name]:.4f}" for name in evaluation.measures]
        test = evaluation.against.get(system.name, {}).get(first_measure(evaluation))
        words = f"{verdict(test)}, p {p_value(test.p_holm)}" if test else ""
        rows.append((system.name, *values, f"{evaluation.measured[system.name].tied_share:.2%}", words))
    return title, headings, [row[: len(headings)] for row in rows]


def _agreement(evaluation: Evaluation) -> Rows:
    rows = [
        (name, _or_dash(one.kendall_tau, "z.4f"), _or_dash(one.ndcg, ".4f"), _or_dash(one.top1, ".1%"))
        for name, one in evaluation.agreement.items()
    ]
    title = "agreement with the teacher: no labels in it, and not quality"
    return title, ("system", "Kendall tau", "nDCG@10", "same first"), rows


def _forgetting(evaluation: Evaluation) -> Rows:
    rows = [
        (
            one.name,
            shown(one.measure),
            f"{one.before:.4f}",
            f"{one.after:.4f}",
            f"{one.loss:+z.4f}",
            p_value(one.paired.p_holm),
            verdict(one.paired),
        )
        for one in evaluation.forgetting
    ]
    return "outside the domain", ("set", "metric", "before", "after", "lost", "p (Holm)", "verdict"), rows


def _costs(evaluation: Evaluation) -> Rows:
    rows = [
        (
            name,
            ", ".join(filter(None, [f"{run.device} x {run.threads}" if run.threads else run.device, run.dtype])),
            f"{run.p50_ms:.1f}",
            f"{run.p95_ms:.1f}",
            f"{run.pairs_per_second_batched:,.0f}",
            f"{cost.parameters / 1e6:,.1f}" if cost.parameters else "-",
            f"{cost.bytes / 1e6:,.0f}" if cost.bytes else "-",
        )
        for name, cost in evaluation.costs.items()
        for run in cost.runs
    ]
    candidates = next((run.candidates for cost in evaluation.costs.values() for run in cost.runs), 0)
    headings = ("system", "device", "p50 ms", "p95 ms", "pairs/s", "M params", "MB")
    return f"cost on this machine: one query of {candidates} candidates; pairs/s batched", headings, rows


def _notes(evaluation: Evaluation) -> Iterable[str]:
    """What a reader of the tables must know."""
    left = evaluation.left_out
    if not evaluation.measures:
        yield f"none of the {len(evaluation.groups)} queries is labelled: this is agreement with the teacher, not quality"
    elif sum(left.values()):
        yield (
            f"{sum(left.values())} queries have no positive or no negative passage and are in no mean "
            f"({left['no_positive']} without a positive, {left['only_positives']} with nothing else)"
        )
    for name, test in evaluation.comparisons.items():
        if test.smallest == test.smallest and not test.shown:
            difference = f"a true difference of {test.smallest:.4f} four times in five"
            yield f"{shown(name)}: {test.queries} queries would show {difference}"


def as_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """A table for rich whose numbers are never broken."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    words = ("metric", "system", "verdict", "set", "device")
    for heading in headings:  # a name may be broken where there is little room, a number never
        wraps = heading in ("system", "set", "device", "metric")
        table.add_column(heading, justify="left" if heading in words else "right", no_wrap=not wraps, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # a name may hold what rich takes for markup
    return table


def _or_dash(value: float, style: str) -> str:
    return "-" if value != value else f"{value:{style}}"
