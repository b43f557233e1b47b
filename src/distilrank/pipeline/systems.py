"""The systems that an evaluation compares, as scores on the same groups: the first stage, BM25, students, the teacher."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.data import bm25_scores
from distilrank.errors import UserError
from distilrank.evidence import System
from distilrank.evidence.cost import Cost
from distilrank.evidence.evaluate import Role
from distilrank.evidence.forgetting import Forgetting, corrected_over_sets, forgetting_on
from distilrank.evidence.retrieval import given_order
from distilrank.evidence.trec import run_scores
from distilrank.metrics import float32_in_order, is_judged
from distilrank.pipeline.ask import resolve_model
from distilrank.pipeline.costs import student_cost
from distilrank.pipeline.names import published_source, short_names
from distilrank.progress import bar, say
from distilrank.recipe import EvaluateSpec
from distilrank.records import Group, read_groups, read_scored
from distilrank.rows import BadLines

GIVEN = "given order"
TREC_SUFFIXES = (".run", ".trec", ".txt")


@dataclass(frozen=True)
class Student:
    """A cross-encoder to measure: the student in one of its states, or any other."""

    name: str
    role: Role
    folder: Path
    max_length: int
    source: str = ""
    """Where it comes from, as a published page may say it."""
    trust_remote_code: bool = False

    def on(self, device: str = "auto", *, served: bool = False) -> Any:
        """The model on a device, its weights not yet in memory; `served`: by the engine of `distilrank serve`."""
        from distilrank.engines.classifier import Reranker
        from distilrank.engines.fast import FastReranker

        return (FastReranker if served else Reranker)(
            self.folder,
            max_length=self.max_length,
            device=device,
            trust_remote_code=self.trust_remote_code,
            fresh_head=self.role == "before",
        )


def students_of(
    sources: Sequence[str], taken: Sequence[str], resolve: Callable[[str], Path], max_length: int
) -> list[Student]:
    """Cross-encoders to compare with, under short names that are not `taken`."""
    names = short_names(sources, taken)
    return [
        Student(name, "model", resolve(source), max_length, published_source(source))
        for name, source in zip(names, sources, strict=True)
    ]


def baseline_names(spec: EvaluateSpec) -> list[str]:
    """What the baselines of the settings are called."""
    names = [GIVEN if name == "given" else name for name in spec.baselines]
    return [*names, f"embedder {short_names([spec.embedder])[0]}"] if spec.embedder else list(names)


def baselines(groups: Sequence[Group], spec: EvaluateSpec, *, offline: bool) -> Iterator[System]:
    """The given order, BM25 and an embedder, as far as the settings name them."""
    if "given" in spec.baselines:
        if order := given_order(groups):
            yield System(GIVEN, "baseline", order)
        else:
            say("  the candidates are listed positives first: that is no retriever's order, so it is no baseline")
    if "bm25" in spec.baselines:
        yield System("bm25", "baseline", bm25_scores(groups))
    if spec.embedder:
        from distilrank.teachers.embedder import EmbedderTeacher

        folder = resolve_model(spec.embedder, offline=offline)
        with bar("embedder", sum(len(group.passages) for group in groups), "pairs") as advance:
            scores = EmbedderTeacher(folder).score(groups, advance)
        yield System(baseline_names(spec)[-1], "baseline", scores, published_source(spec.embedder))


def sets_outside(spec: EvaluateSpec, *, offline: bool, skip: BadLines | None = None) -> dict[str, list[Group]]:
    """The sets outside the domain by their names. Raises `UserError` on one that cannot be read or has no labels, and when
    a loss is limited that no set would show.
    """
    if spec.max_forgetting is not None and not spec.out_of_domain:
        raise UserError("evaluate.max_forgetting: name a set in evaluate.out_of_domain, else nothing can say no")
    sources = list(dict.fromkeys(spec.out_of_domain))
    outside = {}
    for name, source in zip(short_names(sources), sources, strict=True):
        outside[name] = _set_outside(source, offline=offline, skip=skip)
        if not any(map(is_judged, outside[name])):
            why = "no query has both a positive and a negative passage, so that nothing can be said to be forgotten"
            raise UserError(f"{source}: {why}: name a labelled set")
    return outside


def _set_outside(source: str, *, offline: bool, skip: BadLines | None) -> list[Group]:
    if source.startswith("demo:"):
        from distilrank.demo import reference_groups

        if not (asked := re.fullmatch(r"demo:reference:(\d{1,3}):(\d{1,6})", source)):
            raise UserError(f"{source}: write it as demo:reference:8:100 (8 passages a query, 100 queries)")
        return reference_groups(queries=int(asked[2]), candidates=int(asked[1]))
    from distilrank.data import fetch

    return list(read_groups(fetch(source, dataset=True, offline=offline), skip))


def measure_students(
    students: Sequence[Student], groups: Sequence[Group], spec: EvaluateSpec, outside: Mapping[str, Sequence[Group]]
) -> tuple[list[System], dict[str, Cost], list[Forgetting]]:
    """Each student's raw logits and cost and, with a before and an after, what was forgotten on the sets `outside` the
    domain (by name). One model at a time is in memory.
    """
    pair = {"before", "after"} <= {student.role for student in students}
    systems, costs = [], {}
    scored: dict[tuple[str, str], list[np.ndarray]] = {}
    for student in students:
        reranker = student.on()
        systems.append(System(student.name, student.role, _scores(student.name, reranker, groups), student.source))
        for name, asked in outside.items():
            if pair and student.role in ("before", "after"):
                scored[name, student.role] = _scores(f"{student.name}, {name}", reranker, asked)
        del reranker
        if spec.latency:
            costs[student.name] = student_cost(student.name, partial(student.on, served=True), groups, spec.latency)
    forgetting = [
        line
        for name, asked in (outside if pair else {}).items()
        for line in forgetting_on(name, asked, scored[name, "before"], scored[name, "after"], spec.metrics)
    ]
    return systems, costs, corrected_over_sets(forgetting)


def refuse_broken(students: Sequence[Student], groups: Sequence[Group]) -> None:
    """Raise `UserError` where a model cannot be loaded or asked: each scores one pair, and is let go again."""
    one = [replace(group, passages=group.passages[:1]) for group in groups[:1]]
    for student in students:
        student.on().score(one)


def other_systems(files: Mapping[str, Path], groups: Sequence[Group], skip: BadLines | None = None) -> Iterator[System]:
    """Systems by files of their scores: scored pairs, or TREC runs (.run, .trec, .txt)."""
    for name, path in files.items():
        read = run_scores if path.suffix in TREC_SUFFIXES else partial(scores_of, skip=skip)
        yield System(name, "model", read(path, groups), published_source(str(path)))


def member_systems(members: Sequence[tuple[str, str]], files: Sequence[Path], groups: Sequence[Group]) -> Iterator[System]:
    """An ensemble's members (kind and source) by their kinds, numbered where a kind occurs again."""
    names: list[str] = []
    for (kind, source), path in zip(members, files, strict=False):
        names.append(kind)
        suffix = f" {names.count(kind)}" if names.count(kind) > 1 else ""
        yield System(f"{kind}{suffix}", "member", scores_of(path, groups), published_source(source))


def scores_of(path: Path, groups: Sequence[Group], skip: BadLines | None = None) -> list[np.ndarray]:
    """Scored pairs looked up for groups by content. Raises `UserError` when a pair has no score."""
    known = {(pair.query, pair.passage): pair.score for pair in read_scored(path, skip)}
    result = []
    for group in groups:
        try:
            values = [known[group.query, passage.text] for passage in group.passages]
        except KeyError:
            raise UserError(f"{path}: no score for a passage of the query {group.query[:60]!r}") from None
        result.append(float32_in_order(np.asarray(values, dtype=np.float64)))
    return result


def training_record(folder: Path) -> dict[str, Any] | None:
    """How a model of ours was trained; none for any other model."""
    from distilrank.students.folder import RECORD

    path = folder / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _scores(name: str, reranker: Any, groups: Sequence[Group]) -> list[np.ndarray]:
    with bar(name, sum(len(group.passages) for group in groups), "pairs") as advance:
        scores: list[np.ndarray] = reranker.score(groups, advance)
    return scores
