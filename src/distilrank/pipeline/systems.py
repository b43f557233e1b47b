"""The systems that an evaluation compares, as scores on the same groups: BM25, students, the teacher."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.data import bm25_scores
from distilrank.errors import UserError
from distilrank.evidence import System
from distilrank.evidence.evaluate import Role
from distilrank.pipeline.ask import resolve_model
from distilrank.progress import bar
from distilrank.records import Group, read_groups, read_scored
from distilrank.rows import BadLines


def given_systems(
    test: Path, models: Sequence[str], scored: Path | None, *, max_length: int, offline: bool, skip: BadLines | None
) -> tuple[list[Group], list[System], dict[str, Any]]:
    """The groups of a test file, the systems to compare on them, and what is known of them.

    BM25 always; the teacher where its scored pairs are given; one model, or two as before and after, or more by name.
    """
    groups = list(read_groups(test, skip))
    systems = [System("bm25", "baseline", bm25_scores(groups))]
    settings: dict[str, Any] = {"title": test.name, "models": list(models)}
    for number, source in enumerate(models):
        folder = resolve_model(source, offline=offline)
        roles: tuple[Role, Role] = ("before", "after")
        role: Role = roles[number] if len(models) == 2 else "model"
        systems.append(student_system(role if len(models) == 2 else source, role, folder, groups, max_length=max_length))
        if record := training_record(folder):
            settings["training"] = record
    if scored:
        systems.append(System("teacher", "teacher", scores_of(scored, groups, skip)))
    return groups, systems, settings


def student_system(
    name: str, role: Role, folder: Path, groups: list[Group], *, max_length: int, trust_remote_code: bool = False
) -> System:
    """A student by its raw logits on the groups."""
    from distilrank.engines.classifier import Reranker

    with bar(name, sum(len(group.passages) for group in groups), "pairs") as advance:
        more: dict[str, Any] = {"trust_remote_code": trust_remote_code, "fresh_head": role == "before"}
        reranker = Reranker(folder, max_length=max_length, **more)
        return System(name, role, reranker.score(groups, advance))


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
    from distilrank.students.train import RECORD

    path = folder / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
