"""A dry run finds without a network what a real run would stop at."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from distilrank.errors import UserError
from distilrank.evidence import load_evaluation
from distilrank.pipeline import plan_recipe, run_recipe
from distilrank.recipe import Recipe
from distilrank.records import Group, Passage, write_groups


def recipe(folder: Path, student: Path, teacher: Path, **changes: str) -> Recipe:
    data = {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")} | changes
    write_groups(folder / "train.jsonl", tiny.groups(30, 4))
    write_groups(folder / "test.jsonl", tiny.groups(6, 4, seed=1))
    return Recipe.model_validate(
        {
            "name": "planned",
            "data": data,
            "teacher": {"kind": "cross-encoder", "model": str(teacher), "dtype": "float32"},
            "score": {"checks": "skip"},
            "student": {"model": str(student), "max_length": 48},
            "train": {"precision": "float32", "learning_rate": 1e-3},
            "evaluate": {"latency": 0},
            "output": str(folder / "run"),
        }
    )


def test_a_file_that_is_not_there_is_named(bert: Path, tmp_path: Path) -> None:
    (_, does, _), *_ = plan_recipe(recipe(tmp_path, bert, bert, train=str(tmp_path / "trian.jsonl")))
    assert does.endswith(f"(not there yet: {tmp_path / 'trian.jsonl'})")
    (_, does, _), *_ = plan_recipe(recipe(tmp_path, tmp_path / "student", tmp_path / "teacher"))
    assert does.endswith(f"(not there yet: {tmp_path / 'teacher'}, {tmp_path / 'student'})")
    (_, does, _), *_ = plan_recipe(recipe(tmp_path, bert, bert))
    assert "not there" not in does


def test_a_stage_that_is_not_there_is_refused_and_a_real_one_shown(bert: Path, tmp_path: Path) -> None:
    planned = recipe(tmp_path, bert, bert)
    run_recipe(planned)
    assert {state for *_, state in plan_recipe(planned)} == {"done before"}
    states = {name: state for name, _, state in plan_recipe(planned, restart_from="train")}
    assert (states["mine"], states["train"], states["report"]) == ("done before", "to do", "to do")
    with pytest.raises(UserError, match="did you mean 'train'"):
        plan_recipe(planned, restart_from="trian")


def test_a_test_set_without_labels_ends_in_agreement(
    bert: Path, xlmr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = recipe(tmp_path, bert, xlmr)
    bare = (Group(g.query_id, g.query, tuple(Passage(p.text) for p in g.passages)) for g in tiny.groups(6, 4, seed=1))
    write_groups(tmp_path / "test.jsonl", bare)
    folder = run_recipe(planned)
    assert "agreement with the teacher is measured" in capsys.readouterr().err
    found = load_evaluation(folder / "evaluation")
    assert (found.measures, set(found.agreement)) == ((), {"given order", "bm25", "before", "after"})
    assert "quality was not measured" in (folder / "model/README.md").read_text(encoding="utf-8")


def test_a_student_without_a_head_goes_the_whole_way(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoTokenizer, BertModel

    bare = tmp_path / "bare"
    BertModel.from_pretrained(bert).save_pretrained(bare)
    AutoTokenizer.from_pretrained(bert).save_pretrained(bare)
    folder = run_recipe(recipe(tmp_path, bare, bert))
    assert (folder / "report.html").exists()
    assert "has no head yet" in capsys.readouterr().err


def test_a_set_outside_that_will_not_do_is_told_before_the_teacher_is_asked(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bare.jsonl").write_text('{"query": "q", "passages": ["a", "b"]}')
    planned = recipe(tmp_path, bert, bert)
    for name, told in (("bare.jsonl", "no query has both"), ("absent.jsonl", "no such file")):
        outside = planned.evaluate.model_copy(update={"out_of_domain": (str(tmp_path / name),)})
        with pytest.raises(UserError, match=f"{name}: {told}"):
            run_recipe(planned.model_copy(update={"evaluate": outside}))
        assert "[2/6]" not in capsys.readouterr().err


def test_a_limit_without_a_set_is_no_gate(bert: Path, tmp_path: Path) -> None:
    planned = recipe(tmp_path, bert, bert)
    limited = planned.evaluate.model_copy(update={"max_forgetting": 0.02})
    with pytest.raises(UserError, match="max_forgetting: name a set"):
        run_recipe(planned.model_copy(update={"evaluate": limited}))


def test_what_others_may_read_of_a_run_names_no_folder_of_this_machine(bert: Path, xlmr: Path, tmp_path: Path) -> None:
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "model").symlink_to(xlmr)
    planned = recipe(tmp_path, bert, xlmr)
    models = tuple(str(tmp_path / part / "model") for part in ("one", "two"))
    folder = run_recipe(planned.model_copy(update={"evaluate": planned.evaluate.model_copy(update={"models": models})}))
    found = load_evaluation(folder / "evaluation")
    names = {system.name: system.source for system in found.systems}
    assert names["one/model"] == names["two/model"] == "model"
    assert (names["before"], names["after"], names["teacher"]) == (bert.name, bert.name, xlmr.name)
    for file in ("report.html", "model/README.md", "evaluation/evaluation.json"):
        text = (folder / file).read_text(encoding="utf-8")
        assert "one/model" in text
        assert str(tmp_path) not in text
        assert str(bert.parent) not in text
