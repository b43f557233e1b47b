"""Several systems' scores on the same candidates, measured and compared: everything that follows from scores and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from distilrank.errors import UserError
from distilrank.evidence.agreement import NAMES, Agreement, agreement_with
from distilrank.evidence.cost import Cost
from distilrank.evidence.diagnostics import Diagnostics, Finding, diagnose
from distilrank.evidence.forgetting import Forgetting
from distilrank.evidence.numbers import Number
from distilrank.evidence.retrieval import Retrieval, retrieval_of
from distilrank.evidence.significance import Paired, corrected, paired_differences
from distilrank.evidence.threshold import Level, level_of
from distilrank.metrics import DEFAULT_MEASURES, Counting, Measured, Scores, is_judged, measure, parse_measures
from distilrank.records import Group

Role = Literal["baseline", "before", "after", "teacher", "member", "model"]


@dataclass(frozen=True)
class System:
    """Something that scores candidates, by its scores alone; `before` and `after` are the student's two states."""

    name: str
    role: Role
    scores: Scores
    source: str = ""
    """Where it comes from, as far as a published page may say it; the name is short."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured. Without labels there are no measures, only agreement with the teacher, costs and diagnostics."""

    groups: Sequence[Group]
    systems: Sequence[System]
    measured: Mapping[str, Measured]
    """System -> its measures; empty without labels."""
    measures: Sequence[str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    counting: Counting = "judged"
    reference: str | None = None
    """The system that the others are tested against: the student after training, else the first model."""
    against: Mapping[str, Mapping[str, Paired]] = field(default_factory=dict)
    """Other system -> measure -> reference minus other, Holm-corrected over the others within a measure."""
    agreement: Mapping[str, Agreement] = field(default_factory=dict)
    """Each system but the teacher -> its agreement with the teacher, which is not quality."""
    agreement_change: Mapping[str, Paired] = field(default_factory=dict)
    """By name of agreement: after minus before, Holm-corrected over the names."""
    levels: Mapping[str, Level] = field(default_factory=dict)
    """Students, models and teacher -> their scores as absolute numbers."""
    retrieval: Retrieval | None = None
    diagnostics: Diagnostics | None = None
    """Of the teacher's scores."""
    review: Sequence[Finding] = ()
    """Queries and passages that a person should look at."""
    costs: Mapping[str, Cost] = field(default_factory=dict)
    forgetting: Sequence[Forgetting] = ()

    def with_role(self, role: Role) -> System | None:
        """The first system with a role."""
        return next((system for system in self.systems if system.role == role), None)

    @property
    def judged(self) -> np.ndarray:
        """Bool [queries]: those in the means."""
        return next((one.judged for one in self.measured.values()), np.zeros(len(self.groups), dtype=bool))

    @property
    def left_out(self) -> dict[str, int]:
        """How many queries are in no mean, by reason."""
        out = [group for group, counts in zip(self.groups, self.judged, strict=True) if not counts]
        without = sum(not any(passage.label for passage in group.passages) for group in out)
        return {"no_positive": without, "only_positives": len(out) - without}

    @property
    def comparisons(self) -> Mapping[str, Paired]:
        """Measure -> after minus before; empty when the evaluation lacks one of the two."""
        before, after = self.with_role("before"), self.with_role("after")
        return self.against.get(before.name, {}) if before and after else {}

    @property
    def gap_closed(self) -> dict[str, Number]:
        """Measure -> (after - before) / (teacher - before); NaN where the teacher is not above before. Empty when the
        evaluation lacks one of the three.
        """
        before, after, teacher = (self.with_role(role) for role in ("before", "after", "teacher"))
        if not (before and after and teacher):
            return {}
        means = self.means()
        gaps = {}
        for name in self.measures:
            first, last, best = (means[system.name][name] for system in (before, after, teacher))
            gaps[name] = (last - first) / (best - first) if best > first else float("nan")
        return gaps

    def means(self) -> dict[str, dict[str, float]]:
        """System -> measure -> mean over the queries that count; empty without labels."""
        return {system: {name: measured.mean(name) for name in self.measures} for system, measured in self.measured.items()}


def evaluate(
    groups: Sequence[Group],
    systems: Sequence[System],
    measures: Sequence[str] = DEFAULT_MEASURES,
    settings: Mapping[str, Any] | None = None,
    *,
    counting: Counting = "judged",
    costs: Mapping[str, Cost] | None = None,
    forgetting: Sequence[Forgetting] = (),
) -> Evaluation:
    """Measure every system on the same groups, and compare them.

    Raises `UserError` when two systems share a name, when a measure is unknown, or when there are neither labels nor a
    teacher, so that there is nothing to measure.
    """
    if not systems:
        raise UserError("there is no system to measure")
    refuse_twins([system.name for system in systems])
    parse_measures(measures)
    by_role = {system.role: system for system in reversed(systems)}
    teacher = by_role.get("teacher")
    labelled = any(map(is_judged, groups))
    if not labelled and teacher is not None and len(systems) > 1:
        measures = ()
    measured = {system.name: measure(groups, system.scores, measures, counting) for system in systems} if measures else {}
    reference = by_role.get("after") or by_role.get("model")
    agreement = {
        system.name: agreement_with(groups, teacher.scores, system.scores)
        for system in systems
        if teacher is not None and system is not teacher
    }
    ranked = [system for system in systems if system.role in ("before", "after", "teacher", "model")]
    levels = {system.name: level_of(groups, system.scores) for system in ranked} if labelled else {}
    by_name = {system.name: system.scores for system in ranked}
    diagnostics, review = diagnose(groups, teacher.scores) if teacher else (None, [])
    return Evaluation(
        groups,
        systems,
        measured,
        tuple(measures),
        settings or {},
        counting,
        reference.name if reference else None,
        _against(reference.name, measured, measures) if reference and measured else {},
        agreement,
        _agreement_change(by_role, agreement),
        {name: level for name, level in levels.items() if level},
        retrieval_of(groups, by_name, measures[0]) if measures else None,
        diagnostics,
        review,
        costs or {},
        tuple(forgetting),
    )


def refuse_twins(names: Sequence[str]) -> None:
    """Raise `UserError` when two systems would have one name."""
    if len(set(names)) < len(names):
        raise UserError(f"two systems have one name: {', '.join(names)}")


def _against(reference: str, measured: Mapping[str, Measured], measures: Sequence[str]) -> dict[str, dict[str, Paired]]:
    """The reference minus every other system, tested on the same resamples and corrected over the systems."""
    others = [name for name in measured if name != reference]
    if not others:
        return {}
    columns = [measured[reference].values[key] - measured[other].values[key] for key in measures for other in others]
    differences = np.stack(columns, axis=1)
    tests = paired_differences(differences[~np.isnan(differences).any(axis=1)])
    result: dict[str, dict[str, Paired]] = {other: {} for other in others}
    for number, key in enumerate(measures):
        family = corrected(tests[number * len(others) : (number + 1) * len(others)])
        for other, test in zip(others, family, strict=True):
            result[other][key] = test
    return result


def _agreement_change(by_role: Mapping[Role, System], agreement: Mapping[str, Agreement]) -> dict[str, Paired]:
    before, after = by_role.get("before"), by_role.get("after")
    if not (before and after and agreement):
        return {}
    first, last = agreement[before.name], agreement[after.name]
    columns = np.stack([last.values[name] - first.values[name] for name in NAMES], axis=1)
    columns = columns[~np.isnan(columns).any(axis=1)]
    return dict(zip(NAMES, corrected(paired_differences(columns)), strict=True)) if len(columns) else {}
