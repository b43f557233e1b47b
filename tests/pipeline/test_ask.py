"""Before a pair is paid for: queries that cannot be asked are found, and checks are passed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from distilrank.errors import UserError
from distilrank.pipeline.ask import ask, local_teacher
from distilrank.recipe import EnsembleSpec, HttpSpec, ScoreSpec, teacher_spec
from distilrank.records import Group
from distilrank.scoring import Aside, ScoreStore
from distilrank.teachers import build_pointwise


def test_a_query_that_is_too_long_is_found_before_the_first_pair(qwen: Path, tmp_path: Path) -> None:
    spec = teacher_spec("causal", str(qwen), max_length=300, device="cpu")
    teacher = build_pointwise(spec)
    store = ScoreStore(tmp_path, teacher.identity)
    groups = [*tiny.groups(20, 3), tiny.group("window " * 300, "stone")]
    with pytest.raises(UserError, match="the query 'window window"):
        ask(groups, spec, teacher, store, ScoreSpec(checks="skip"))
    assert not list(store.folder.glob("part-*"))
    assert "model" not in vars(teacher.decoder)  # type: ignore[attr-defined]


def test_a_query_that_is_set_aside_does_not_end_the_job_in_the_checks(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = teacher_spec("causal", str(qwen), max_length=300, device="cpu")
    teacher = build_pointwise(spec)
    store, aside = ScoreStore(tmp_path, teacher.identity), Aside(1)
    asked = list[Group]()
    monkeypatch.setattr("distilrank.teachers.checks.check_teacher", lambda spec, groups, teacher: asked.extend(groups) or [])
    groups = [tiny.group("window " * 300, "stone"), *tiny.groups(5, 3)]
    assert ask(groups, spec, teacher, store, ScoreSpec(), aside=aside) == 15
    assert asked == groups[1:]
    assert [refused.query for refused in aside.found] == ["window " * 300]


def test_nothing_is_checked_when_nothing_is_missing(qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = teacher_spec("causal", str(qwen), device="cpu")
    teacher = build_pointwise(spec)
    store, groups = ScoreStore(tmp_path, teacher.identity), tiny.groups(3, 3)
    assert ask(groups, spec, teacher, store, ScoreSpec(checks="skip")) == 9

    def never(*_: Any) -> None:
        raise AssertionError("checked")

    monkeypatch.setattr("distilrank.teachers.checks.check_teacher", never)
    assert ask(groups, spec, teacher, store, ScoreSpec()) == 0


def test_every_member_but_a_server_has_its_model_brought_here() -> None:
    members = (teacher_spec("causal", "hf:a/b"), HttpSpec(url="http://127.0.0.1:1"))
    found = local_teacher(EnsembleSpec(members=members), lambda source: Path("/models") / source.removeprefix("hf:"))
    assert found.members[0].model == "/models/a/b"
    assert found.members[1] == members[1]
