"""Which figures an evaluation gives: each function returns what can be drawn from what was measured, perhaps nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distilrank.evidence import plots
from distilrank.evidence.answers import machine
from distilrank.evidence.evaluate import Evaluation, System
from distilrank.evidence.table import first_measure
from distilrank.evidence.wording import shown

ROLES = {
    "baseline": "baseline",
    "before": "student before",
    "after": "student after",
    "teacher": "teacher, the ceiling",
    "member": "member of the teacher",
    "model": "model",
}


@dataclass(frozen=True)
class Figure:
    """A drawing with its visible title."""

    title: str
    svg: str


def difference_figure(evaluation: Evaluation) -> list[Figure]:
    """The reference system against each other one, by the first measure."""
    measure = first_measure(evaluation)
    tests = {name: by[measure] for name, by in evaluation.against.items()}
    rows = [plots.Interval(name, t.difference, t.low, t.high, t.shown) for name, t in tests.items() if math.isfinite(t.low)]
    if not rows:
        return []
    title = f"Difference in {shown(measure)} of {evaluation.reference} against each other system, with 95% intervals"
    label = f"difference in {shown(measure)}, {evaluation.reference} minus the other"
    return [Figure(title, plots.intervals(sorted(rows, key=lambda row: row.value), title, label))]


def score_figures(evaluation: Evaluation) -> list[Figure]:
    """Scores of positives against others, for the student before and after and for the teacher."""
    judged = np.flatnonzero(evaluation.judged).tolist()
    labels = [bool(passage.label) for index in judged for passage in evaluation.groups[index].passages]
    positive = np.asarray(labels, dtype=bool)
    figures = []
    for role in ("before", "after", "teacher"):
        system = evaluation.with_role(role)
        if system is None or not judged:
            continue
        scores = np.concatenate([np.asarray(system.scores[index], dtype=np.float64) for index in judged])
        title = f"Scores of {system.name}: {int(positive.sum())} positives and {int((~positive).sum())} others"
        figures.append(Figure(_role_and_name(system), plots.histogram(scores[positive], scores[~positive], title)))
    return figures


def latency_figures(evaluation: Evaluation) -> list[Figure]:
    """Quality against latency, a figure a device, where at least two systems were timed on it."""
    if not evaluation.measures:
        return []
    measure, means = first_measure(evaluation), evaluation.means()
    kinds = {system.name: system.role for system in evaluation.systems}
    devices: dict[str, list[plots.Series]] = {}
    for name, cost in evaluation.costs.items():
        for run in cost.runs:
            if name in means and run.p50_ms > 0:
                point = plots.Series(name, kinds[name], [run.p50_ms], [means[name][measure]])
                devices.setdefault(machine(run), []).append(point)
    figures = []
    for device, series in devices.items():
        if len(series) > 1:
            title = f"{shown(measure)} against latency on {device}"
            label = "median milliseconds a query"
            figures.append(Figure(title, plots.against_latency(series, title, label, shown(measure))))
    return figures


def retrieval_figures(evaluation: Evaluation) -> list[Figure]:
    """Recall of the candidates, and quality against the depth that is reranked."""
    found = evaluation.retrieval
    if found is None or len(found.depths) < 2:
        return []
    ks = sorted(found.recall)
    recall = plots.Series("recall", "after", ks, [found.recall[k] for k in ks])
    kinds = {system.name: system.role for system in evaluation.systems}
    series = [plots.Series(name, kinds.get(name, "model"), found.depths, values) for name, values in found.by_depth.items()]
    title = "Recall of the first k candidates"
    figures = [Figure(title, plots.lines([recall], title, "first k candidates", "recall", share=True))]
    if series:
        title, name = f"{shown(found.measure)} when only the first candidates are reranked", shown(found.measure)
        figures.append(Figure(title, plots.lines(series, title, "candidates reranked", name, share=True)))
    return figures


def teacher_figures(evaluation: Evaluation) -> list[Figure]:
    """The teacher's scores, and whether it likes long passages."""
    found = evaluation.diagnostics
    if found is None:
        return []
    title = "The teacher’s scores"
    figures = [Figure(title, plots.counts(found.edges, found.counts, title))]
    if len(found.length_bins) > 1:
        lengths = [part.characters for part in found.length_bins]
        scores = plots.Series("teacher", "teacher", lengths, [part.score for part in found.length_bins])
        title = "Scores by length of the passage, a point a fifth of the pairs"
        figures.append(Figure(title, plots.lines([scores], title, "characters", "score, in deviations")))
    return figures


def training_figures(training: Mapping[str, Any]) -> list[Figure]:
    """Loss, margins, and agreement from before the first step to the last, as far as they were recorded."""
    figures = []
    losses = _points(training.get("loss"), "loss")
    if losses:
        title = "Training loss by optimiser step"
        figures.append(Figure("Training loss", plots.curve(losses, title, "loss", smoothed=True)))
    margins = _points(training.get("loss"), "margin_correlation")
    if len(margins) > 1:
        title = "Margins of the student and of the teacher by optimiser step"
        svg = plots.curve(margins, title, "cosine", smoothed=True)
        figures.append(Figure("How the student’s margins go with the teacher’s", svg))
    before = (training.get("result") or {}).get("agreement_before")
    agreements = _points([{"step": 0, "agreement": before}, *(training.get("agreement") or [])], "agreement")
    if len(agreements) > 1:
        title = "Agreement with the teacher on validation queries by optimiser step"
        svg = plots.curve(agreements, title, "nDCG@10", smoothed=False, kept=kept_step(training))
        figures.append(Figure("Agreement with the teacher on validation queries", svg))
    return figures


def kept_step(training: Mapping[str, Any]) -> int | None:
    """The step of the model that was kept, where the record tells: the first with the agreement that the model has."""
    after = (training.get("result") or {}).get("agreement_after")
    for step, value in _points(training.get("agreement"), "agreement"):
        if after is not None and math.isclose(value, after, abs_tol=1e-6):
            return int(step)
    return None


def _points(entries: Iterable[Mapping[str, Any]] | None, key: str) -> list[tuple[float, float]]:
    """(step, value) of the entries that hold a finite number."""
    found = [(entry.get("step"), entry.get(key)) for entry in entries or []]
    return [
        (float(step), float(value))
        for step, value in found
        if step is not None and value is not None and math.isfinite(value)
    ]


def _role_and_name(system: System) -> str:
    return f"{ROLES[system.role].partition(',')[0].capitalize()}: {system.name}"
