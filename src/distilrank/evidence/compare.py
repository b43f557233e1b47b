"""Two evaluations of one test set side by side: the same system of both, with the paired test on the queries they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distilrank.errors import UserError
from distilrank.evidence.evaluate import Evaluation
from distilrank.evidence.significance import Paired, paired
from distilrank.evidence.table import as_table, interval, verdict
from distilrank.evidence.wording import p_value, shown


@dataclass(frozen=True)
class Comparison:
    """The second evaluation against the first."""

    systems: tuple[str, str]
    """The system of each that is compared."""
    shared: int
    """Queries with the same text, candidates and labels in both."""
    alone: tuple[int, int]
    """Queries of each that the other lacks; they are left out."""
    means: Mapping[str, tuple[float, float]]
    """Measure -> mean of each over the shared queries that count."""
    tests: Mapping[str, Paired]
    """Measure -> second minus first. Agreement with the teacher has a name that begins with `agreement: `."""
    one_teacher: bool = True
    """Whether the teacher scored the shared queries alike in both: else each agrees with a teacher of its own."""

    def as_json(self) -> dict[str, Any]:
        """The comparison for machines; NaN is null."""
        tests = {
            name: {key: None if value != value else value for key, value in asdict(test).items()} | {"shown": test.shown}
            for name, test in self.tests.items()
        }
        return asdict(self) | {"tests": tests}


def compare_evaluations(first: Evaluation, second: Evaluation, system: str | None = None) -> Comparison:
    """Compare `system` of both, by default the one that each tests the others against (the student after training).

    Raises `UserError` when an evaluation has no such system, or when the two share no query or no measure.
    """
    chosen = _named(first, system, "first"), _named(second, system, "second")
    places = [_places(evaluation) for evaluation in (first, second)]
    shared = [key for key in places[0] if key in places[1]]
    if not shared:
        raise UserError("the two evaluations share no query with the same candidates and labels")
    rows = [[of_one[key] for key in shared] for of_one in places]
    values = [_values(evaluation, name) for evaluation, name in zip((first, second), chosen, strict=True)]
    means, tests = {}, {}
    for measure in values[0]:
        if measure in values[1]:
            one, two = (of_one[measure][chosen_rows] for of_one, chosen_rows in zip(values, rows, strict=True))
            counts = ~np.isnan(one) & ~np.isnan(two)
            if counts.any():
                means[measure] = (float(one[counts].mean()), float(two[counts].mean()))
                tests[measure] = paired(two, one)
    if not tests:
        raise UserError("the two evaluations share no measure")
    alone = (len(places[0]) - len(shared), len(places[1]) - len(shared))
    agreed = chosen[0] in first.agreement and chosen[1] in second.agreement
    return Comparison(chosen, len(shared), alone, means, tests, not agreed or _one_teacher(first, second, rows))


def print_comparison(comparison: Comparison, first: str, second: str) -> None:
    """The comparison as a table; `first` and `second` name the evaluations."""
    from rich.console import Console

    console = Console()
    console.print(
        f"A: {comparison.systems[0]} of {first}\nB: {comparison.systems[1]} of {second}", highlight=False, markup=False
    )
    rows = []
    for name, test in comparison.tests.items():
        one, two = comparison.means[name]
        changes = [f"{one:z.4f}", f"{two:z.4f}", f"{test.difference:+z.4f}", interval(test), p_value(test.p_holm)]
        rows.append([shown(name).replace("kendall_", ""), *changes, verdict(test)])
    title = f"{comparison.shared} shared queries"
    console.print(as_table(title, ("metric", "A", "B", "B - A", "95% interval", "p (t-test)", "verdict"), rows))
    console.print("one pair of systems, each metric by itself: no p is corrected", highlight=False)
    if not comparison.one_teacher:
        console.print("agreement: the teachers' scores are not the same, each agrees with its own", highlight=False)
    if any(comparison.alone):
        console.print(f"left out: {comparison.alone[0]} queries of A and {comparison.alone[1]} of B that the other lacks")


def _named(evaluation: Evaluation, system: str | None, which: str) -> str:
    name = system or evaluation.reference
    known = [one.name for one in evaluation.systems]
    if name not in known:
        asked = f"no system {name!r}" if name else "no student after training and no model"
        raise UserError(f"the {which} evaluation has {asked}: name one with --system ({', '.join(known)})")
    return name


def _places(evaluation: Evaluation) -> dict[Any, int]:
    """Where each query stands, by its text, its candidates and their labels, and which of several alike it is."""
    places: dict[Any, int] = {}
    for number, group in enumerate(evaluation.groups):
        candidates = tuple(sorted((passage.text, passage.label or 0) for passage in group.passages))
        again = 0
        while (group.query, candidates, again) in places:
            again += 1
        places[group.query, candidates, again] = number
    return places


def _one_teacher(first: Evaluation, second: Evaluation, rows: Sequence[Sequence[int]]) -> bool:
    """Whether the teachers of both gave the passages of each shared query the same scores."""
    scored = []
    for evaluation, numbers in zip((first, second), rows, strict=True):
        teacher = evaluation.with_role("teacher")
        if teacher is None:
            return False
        texts = ([passage.text for passage in evaluation.groups[number].passages] for number in numbers)
        scored.append(
            [sorted(zip(of, teacher.scores[n].tolist(), strict=True)) for of, n in zip(texts, numbers, strict=True)]
        )
    return scored[0] == scored[1]


def _values(evaluation: Evaluation, system: str) -> dict[str, np.ndarray]:
    measured, agreement = evaluation.measured.get(system), evaluation.agreement.get(system)
    values = dict(measured.values) if measured else {}
    return values | ({f"agreement: {name}": of_one for name, of_one in agreement.values.items()} if agreement else {})
