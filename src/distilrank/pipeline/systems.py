"""The systems that an evaluation compares, as scores on the same groups: the first stage, BM25, students, the teacher."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.data import bm25_scores
from distilrank.errors import UserError
from distilrank.evidence import System
from distilrank.evidence.cost import Cost
from distilrank.evidence.evaluate import Role
from distilrank.evidence.forgetting import Forgetting, forgetting_on
from distilrank.evidence.retrieval import given_order
from distilrank.evidence.trec import run_scores
from distilrank.pipeline.ask import resolve_model
from distilrank.pipeline.costs import student_cost
from distilrank.progress import bar, say
from distilrank.recipe import EvaluateSpec
from distilrank.records import Group, read_groups, read_scored
from distilrank.rows import BadLines

TREC_SUFFIXES = (".run", ".trec", ".txt")


@dataclass(frozen=True)
class Student:
    """A cross-encoder to measure: the student in one of its states, or any other."""

    name: str
    role: Role
    folder: Path
    max_length: int
    trust_remote_code: bool = False

    def on(self, device: str = "auto") -> Any:
        """The model on a device, its weights not yet in memory."""
        from distilrank.engines.classifier import Reranker

        return Reranker(
            self.folder,
            max_length=self.max_length,
            device=device,
            trust_remote_code=self.trust_remote_code,
            fresh_head=self.role == "before",
        )


def baselines(groups: Sequence[Group], spec: EvaluateSpec, *, offline: bool) -> Iterator[System]:
    """The given order, BM25 and an embedder, as far as the settings name them."""
    if "given" in spec.baselines:
        if order := given_order(groups):
            yield System("given order", "baseline", order)
        else:
            say("  the candidates are listed positives first: that is no retriever's order, so it is no baseline")
    if "bm25" in spec.baselines:
        yield System("bm25", "baseline", bm25_scores(groups))
    if spec.embedder:
        from distilrank.teachers.embedder import EmbedderTeacher

        folder = resolve_model(spec.embedder, offline=offline)
        with bar("embedder", sum(len(group.passages) for group in groups), "pairs") as advance:
            yield System(f"embedder {folder.name}", "baseline", EmbedderTeacher(folder).score(groups, advance))


def measure_students(
    students: Sequence[Student], groups: Sequence[Group], spec: EvaluateSpec, *, offline: bool, skip: BadLines | None = None
) -> tuple[list[System], dict[str, Cost], list[Forgetting]]:
    """Each student's raw logits and cost and, with a before and an after, what was forgotten on the sets outside the
    domain. One model at a time is in memory.
    """
    from distilrank.data import fetch

    pair = {"before", "after"} <= {student.role for student in students}
    sources = spec.out_of_domain if pair else ()
    outside = {source: list(read_groups(fetch(source, dataset=True, offline=offline), skip)) for source in sources}
    systems, costs = [], {}
    scored: dict[tuple[str, str], list[np.ndarray]] = {}
    for student in students:
        reranker = student.on()
        systems.append(System(student.name, student.role, _scores(student.name, reranker, groups)))
        for source, asked in outside.items():
            if student.role in ("before", "after"):
                scored[source, student.role] = _scores(f"{student.name}, {Path(source).name}", reranker, asked)
        del reranker
        if spec.latency:
            costs[student.name] = student_cost(student.name, student.on, groups, spec.latency)
    forgetting = [
        line
        for source, asked in outside.items()
        for line in forgetting_on(
            published_name(source), asked, scored[source, "before"], scored[source, "after"], spec.metrics
        )
    ]
    return systems, costs, forgetting


def other_systems(files: Mapping[str, Path], groups: Sequence[Group], skip: BadLines | None = None) -> Iterator[System]:
    """Systems by files of their scores: scored pairs, or TREC runs (.run, .trec, .txt)."""
    for name, path in files.items():
        read = run_scores if path.suffix in TREC_SUFFIXES else partial(scores_of, skip=skip)
        yield System(name, "model", read(path, groups))


def member_systems(kinds: Sequence[str], files: Sequence[Path], groups: Sequence[Group]) -> Iterator[System]:
    """An ensemble's members by their kinds, numbered where a kind occurs again."""
    names: list[str] = []
    for kind, path in zip(kinds, files, strict=False):
        names.append(kind)
        suffix = f" {names.count(kind)}" if names.count(kind) > 1 else ""
        yield System(f"{kind}{suffix}", "member", scores_of(path, groups))


def scores_of(path: Path, groups: Sequence[Group], skip: BadLines | None = None) -> list[np.ndarray]:
    """Scored pairs looked up for groups by content. Raises `UserError` when a pair has no score."""
    known = {(pair.query, pair.passage): pair.score for pair in read_scored(path, skip)}
    result = []
    for group in groups:
        try:
            values = [known[group.query, passage.text] for passage in group.passages]
        except KeyError:
            raise UserError(f"{path}: no score for a passage of the query {group.query[:60]!r}") from None
        result.append(np.asarray(values, dtype=np.float32))
    return result


def training_record(folder: Path) -> dict[str, Any] | None:
    """How a model of ours was trained; none for any other model."""
    from distilrank.students.folder import RECORD

    path = folder / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def published_name(source: str) -> str:
    """A source as a published page may name it: a hub name without `hf:`, a path without its folders."""
    if source.startswith("hf:"):
        return source.removeprefix("hf:").removeprefix("datasets/").partition("@")[0].partition(":")[0]
    return Path(source).name if Path(source).exists() else source


def _scores(name: str, reranker: Any, groups: Sequence[Group]) -> list[np.ndarray]:
    with bar(name, sum(len(group.passages) for group in groups), "pairs") as advance:
        scores: list[np.ndarray] = reranker.score(groups, advance)
    return scores
