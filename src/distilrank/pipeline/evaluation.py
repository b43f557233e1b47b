"""An evaluation of plain files: a test set, models, score files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distilrank.evidence import Evaluation, System, evaluate
from distilrank.evidence.evaluate import Role, refuse_twins
from distilrank.evidence.trec import with_qrels
from distilrank.pipeline.ask import resolve_model
from distilrank.pipeline.systems import (
    Student,
    baselines,
    measure_students,
    other_systems,
    published_name,
    scores_of,
    training_record,
)
from distilrank.recipe import EvaluateSpec
from distilrank.records import read_groups
from distilrank.rows import BadLines


def evaluate_files(
    test: Path,
    models: Sequence[str],
    spec: EvaluateSpec,
    *,
    scored: Path | None = None,
    others: Mapping[str, Path] | None = None,
    qrels: Path | None = None,
    max_length: int = 512,
    offline: bool = False,
    skip: BadLines | None = None,
) -> Evaluation:
    """Measure models on a test set beside its baselines, the teacher's scored pairs and other systems' score files.

    With two models the first is before and the second after; one model, or more than two, go by their names. `qrels`, a
    TREC file, takes the place of the set's own labels.
    """
    groups = list(read_groups(test, skip))
    if qrels:
        groups = with_qrels(groups, qrels)
    roles: list[Role] = ["before", "after"] if len(models) == 2 else ["model"] * len(models)
    students = [
        Student(role if len(models) == 2 else source, role, resolve_model(source, offline=offline), max_length)
        for source, role in zip(models, roles, strict=True)
    ]
    # Said now, and not after hours of scoring.
    refuse_twins(["teacher", *spec.baselines, *(student.name for student in students), *(others or {})])
    settings: dict[str, Any] = {"title": test.name, "models": list(map(published_name, models))}
    for student in students:
        if record := training_record(student.folder):
            settings["training"] = record
    measured, costs, forgetting = measure_students(students, groups, spec, offline=offline, skip=skip)
    systems = [*baselines(groups, spec, offline=offline), *measured, *other_systems(others or {}, groups, skip)]
    if scored:
        systems.append(System("teacher", "teacher", scores_of(scored, groups, skip)))
    return evaluate(groups, systems, spec.metrics, settings, counting=spec.counting, costs=costs, forgetting=forgetting)
