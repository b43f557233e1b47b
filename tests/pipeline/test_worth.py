"""A teacher that is no better than its student is told before the training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import transformers

import tiny
from distilrank.engines.classifier import Reranker
from distilrank.metrics import measure
from distilrank.pipeline import worth
from distilrank.pipeline.systems import Student
from distilrank.records import Group, Passage

GROUPS = [
    Group(
        f"q{number}",
        f"query {number}",
        tuple(Passage(f"text {number} {place}", label=int(place == 2)) for place in range(5)),
    )
    for number in range(20)
]
LABELS = [np.array([0, 0, 1, 0, 0], dtype=np.float32) for _ in GROUPS]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    return Student("before", "before", tiny.bert_folder(tmp_path_factory.mktemp("student") / "bert"), 32)


def test_a_teacher_without_an_order_is_told_and_how_it_compares(
    student: Student, capsys: pytest.CaptureFixture[str]
) -> None:
    worst = [-labels for labels in LABELS]
    worth.compare_with_teacher(student, GROUPS, worst)
    own = np.mean(measure(GROUPS, Reranker(student.folder, max_length=32).score(GROUPS), ("AP",)).values["AP"])
    assert (
        f"on 20 labelled test queries the teacher (MAP 0.200) is no better than the student before training ({own:.3f})"
        in (capsys.readouterr().err)
    )


def test_a_better_teacher_is_no_matter(student: Student, capsys: pytest.CaptureFixture[str]) -> None:
    worth.compare_with_teacher(student, GROUPS, LABELS)
    assert capsys.readouterr().err == ""


def test_without_labels_or_a_head_nothing_is_said(
    student: Student, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unlabelled = [Group(g.query_id, g.query, tuple(Passage(p.text) for p in g.passages)) for g in GROUPS]
    worth.compare_with_teacher(student, unlabelled, LABELS)
    transformers.AutoModel.from_pretrained(student.folder).save_pretrained(tmp_path / "body")
    worth.compare_with_teacher(Student("before", "before", tmp_path / "body", 32), GROUPS, [-labels for labels in LABELS])
    assert "no better" not in capsys.readouterr().err


def test_it_looks_no_longer_than_it_may_and_says_nothing_of_a_few(
    student: Student, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worth, "SECONDS", -1.0)
    asked: list[int] = []
    monkeypatch.setattr(Reranker, "score", lambda self, groups: asked.append(1) or [-LABELS[0]])
    worth.compare_with_teacher(student, GROUPS, [-labels for labels in LABELS])
    assert asked == [1]
    assert capsys.readouterr().err == ""
