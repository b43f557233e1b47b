"""What the student lost on sets outside the domain: before against after, and the gate that says no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distilrank.errors import GateError
from distilrank.evidence.numbers import Number
from distilrank.evidence.significance import Paired, paired
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
    """After - before."""
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


def demand_memory(lines: Sequence[Forgetting], most: float) -> None:
    """Raise `GateError` when the loss in the first measure is above `most` on any set."""
    first = [line for line in lines if line.measure == lines[0].measure]
    if over := [
        f"{line.name} {line.before:.4f} -> {line.after:.4f} (lost {line.loss:.4f})" for line in first if line.loss > most
    ]:
        raise GateError(f"the student forgot more than {most:g} in {first[0].measure}: {'; '.join(over)}")
