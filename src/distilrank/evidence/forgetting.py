"""What the student lost on sets outside the domain: before against after, and the gate that says no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distilrank.errors import GateError
from distilrank.evidence.numbers import Number
from distilrank.evidence.significance import Paired, corrected, paired
from distilrank.evidence.wording import shown
from distilrank.metrics import DEFAULT_MEASURES, Scores, measure
from distilrank.records import Group


@dataclass(frozen=True)
class Forgetting:
    """One set and measure. `loss` is before - after: positive where the student forgot."""

    name: str
    measure: str
    before: Number
    after: Number
    loss: Number
    paired: Paired
    """After - before; its p is corrected by Holm over the sets: see `corrected_over_sets`."""
    queries: int


def forgetting_on(
    name: str, groups: Sequence[Group], before: Scores, after: Scores, measures: Sequence[str] = DEFAULT_MEASURES
) -> list[Forgetting]:
    """What was lost on a labelled set outside the domain, a line a measure.

    Raises `UserError` when no query of it has both a positive and a negative passage.
    """
    first, second = (measure(groups, scores, measures) for scores in (before, after))
    lines = []
    for key in measures:
        test = paired(second.values[key], first.values[key])
        lines.append(
            Forgetting(name, key, first.mean(key), second.mean(key), first.mean(key) - second.mean(key), test, test.queries)
        )
    return lines


def corrected_over_sets(lines: Sequence[Forgetting]) -> list[Forgetting]:
    """The lines of several sets with their p-values corrected by Holm over the sets, within each measure."""
    result = list(lines)
    for measure_name in dict.fromkeys(line.measure for line in lines):
        family = [number for number, line in enumerate(lines) if line.measure == measure_name]
        for number, test in zip(family, corrected([lines[n].paired for n in family]), strict=True):
            result[number] = replace(lines[number], paired=test)
    return result


def demand_memory(lines: Sequence[Forgetting], most: float) -> None:
    """Raise `GateError` when the loss in the measure listed first is above `most` on any set, shown or not."""
    first = [line for line in lines if line.measure == lines[0].measure]
    if over := [_lost(line) for line in first if line.loss > most]:
        raise GateError(f"the student forgot more than {most:g} in {shown(first[0].measure)}: {'; '.join(over)}")


def _lost(line: Forgetting) -> str:
    doubt = "" if line.paired.shown else " (not shown)"
    return f"{line.name} {line.before:.4f} -> {line.after:.4f} (lost {line.loss:.4f}){doubt}"
