"""An evaluation of plain files: a test set, models, score files. Every input is read before the first model is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from distilrank.errors import UserError
from distilrank.evidence import Evaluation, System, evaluate
from distilrank.evidence.evaluate import refuse_twins
from distilrank.evidence.folder import FILE
from distilrank.evidence.trec import QRELS, positives_beyond, with_qrels
from distilrank.evidence.wording import counted
from distilrank.metrics import is_judged
from distilrank.pipeline.ask import resolve_model
from distilrank.pipeline.names import published_source
from distilrank.pipeline.systems import (
    baseline_names,
    baselines,
    measure_students,
    other_systems,
    refuse_broken,
    scores_of,
    sets_outside,
    students_of,
    training_record,
)
from distilrank.progress import say
from distilrank.recipe import EvaluateSpec
from distilrank.records import Group, read_groups
from distilrank.rows import BadLines
from distilrank.shards import refuse_foreign, refuse_unwritable

BEYOND = (
    "{count} of the qrels file not among the candidates: every measure, and recall, is of the candidates alone, and another "
    "tool's figures on the whole qrels file may be lower."
)


def evaluate_files(
    test: Path,
    models: Sequence[str],
    spec: EvaluateSpec,
    *,
    scored: Path | None = None,
    others: Mapping[str, Path] | None = None,
    qrels: Path | None = None,
    needs_labels: bool = False,
    max_length: int = 512,
    offline: bool = False,
    skip: BadLines | None = None,
) -> Evaluation:
    """Measure models on a test set beside its baselines, the teacher's scored pairs and other systems' score files.

    With two models the first is before and the second after; one model, or more than two, go by the last part of their
    sources, as far as it tells them apart. `qrels`, a TREC file, takes the place of the set's own labels. Raises
    `UserError` on any file or model that will not do, before a model is asked for more than a pair.
    """
    others = others or {}
    taken = ["teacher", *baseline_names(spec), *others]
    refuse_twins([*taken, *(["before", "after"] if len(models) == 2 else [])])
    groups = _labelled(test, qrels, scored, needs_labels=needs_labels, skip=skip)
    given = list(other_systems(others, groups, skip))
    if scored:
        given.append(System("teacher", "teacher", scores_of(scored, groups, skip), published_source(str(scored))))
    outside = sets_outside(spec, offline=offline, skip=skip)
    students = students_of(models, taken, partial(resolve_model, offline=offline), max_length)
    if len(students) == 2:
        before, after = students
        students = [replace(before, name="before", role="before"), replace(after, name="after", role="after")]
    refuse_broken(students, groups)
    first = list(baselines(groups, spec, offline=offline))
    measured, costs, forgetting = measure_students(students, groups, spec, outside)
    settings: dict[str, Any] = {"title": test.name}
    if qrels and (beyond := positives_beyond(groups, qrels)):
        settings["notes"] = [BEYOND.format(count=counted(beyond, "positive"))]
        say(f"  {settings['notes'][0]}")
    for student in students:
        if record := training_record(student.folder):
            settings["training"] = record
    systems = [*first, *measured, *given]
    return evaluate(groups, systems, spec.metrics, settings, counting=spec.counting, costs=costs, forgetting=forgetting)


def refuse_outputs(evaluation: Path, trec: Path | None) -> None:
    """Raise `UserError` now where the folders of an evaluation and of its TREC files could not be written."""
    if trec:
        whole, other = evaluation.absolute(), trec.absolute()
        if whole.is_relative_to(other) or other.is_relative_to(whole):
            raise UserError(f"--trec {trec}: must lie apart from the evaluation folder {evaluation}: each is replaced whole")
    for folder, ours in ((evaluation, FILE), (trec, QRELS)):
        if folder:
            refuse_foreign(folder, ours)
            refuse_unwritable(folder.absolute().parent / f"{folder.name}.try")


def _labelled(
    test: Path, qrels: Path | None, scored: Path | None, *, needs_labels: bool, skip: BadLines | None
) -> list[Group]:
    groups = list(read_groups(test, skip))
    if qrels:
        groups = with_qrels(groups, qrels)
    if not groups:
        raise UserError(f"{test}: holds no query: there is nothing to measure")
    if not any(map(is_judged, groups)):
        without = f"{qrels or test}: no query has both a positive and a negative passage"
        if needs_labels:
            raise UserError(f"{without}: without labels there is nothing to write for --trec")
        if not scored:
            raise UserError(f"{without}: there is nothing to measure, unless --scores gives a teacher's to agree with")
    return groups
