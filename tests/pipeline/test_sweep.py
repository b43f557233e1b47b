"""A sweep begins with the recipe, judges on validation queries, cuts short, goes on after a stop, and writes a recipe."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from distilrank.cli import run
from distilrank.errors import UserError
from distilrank.pipeline import sweep as module
from distilrank.recipe import load_recipe
from distilrank.records import write_groups
from distilrank.students import TrainResult

pytest.importorskip("optuna")


@pytest.fixture
def recipe(tmp_path: Path, embedder: Path, bert: Path) -> Path:
    write_groups(tmp_path / "train.jsonl", tiny.groups(60, 4, seed=1))
    whole: dict[str, Any] = {
        "name": "tiny",
        "output": str(tmp_path / "run"),
        "data": {"train": str(tmp_path / "train.jsonl")},
        "teacher": {"kind": "embedder", "model": str(embedder), "dtype": "float32"},
        "score": {"checks": "skip"},
        "student": {"model": str(bert), "max_length": 48},
        "train": {
            "learning_rate": 1e-3,
            "validation": 0.2,
            "precision": "float32",
            "loss": "rank_net",
            "queries_per_step": 16,
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(whole))
    return tmp_path / "recipe.yaml"


def fake(monkeypatch: pytest.MonkeyPatch, asked: list[Any], *, worse: bool = False) -> None:
    """A training whose agreement is best at a rate of 5e-5 and 8 queries a step."""

    def train(data: Path, student: Path, output: Path, settings: Any, *, work: Path, watch: Any) -> TrainResult:
        asked.append(settings)
        value = 1 - abs(math.log(settings.learning_rate / 5e-5)) / 10 - (settings.queries_per_step != 8) / 10
        for step in range(4):
            watch(step, value - (len(asked) * 0.1 if worse else 0))
        return TrainResult(0.5, value, 4, 1.0, 1.0, 0.0)

    monkeypatch.setattr("distilrank.students.train", train)


def test_the_first_trial_is_the_recipe_and_the_best_is_found(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    fake(monkeypatch, asked)
    loaded = load_recipe(recipe)
    found = module.sweep(loaded, 1, most=20)
    first = asked[0]
    # rank_net and 1e-3 are not among what is tried, and are tried all the same.
    assert (first.learning_rate, first.queries_per_step, first.loss, first.dropout) == (1e-3, 16, "rank_net", None)
    assert len(found.trials) == 20
    assert found.best.agreement == max(trial.agreement for trial in found.trials if trial.agreement is not None)
    assert found.best.changes["queries_per_step"] == 8
    assert 2e-5 < found.best.changes["learning_rate"] < 1.5e-4
    assert found.recipe.train == loaded.train.model_copy(update=found.best.changes)
    assert found.recipe.data == loaded.data


def test_a_sweep_goes_on_with_its_trials_and_not_with_those_of_other_settings(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    fake(monkeypatch, asked)
    module.sweep(load_recipe(recipe), 1, most=3)
    again = module.sweep(load_recipe(recipe), 1, most=2)
    assert (len(again.trials), len(asked)) == (5, 5)
    assert len(module.sweep(load_recipe(recipe, ["train.epochs=3"]), 1, most=1).trials) == 1


def test_what_falls_behind_is_cut_short(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, [], worse=True)
    found = module.sweep(load_recipe(recipe), 1, most=12)
    assert sum(trial.agreement is None for trial in found.trials) >= 6


def test_a_training_that_fails_does_not_end_the_sweep(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: Any, **__: Any) -> TrainResult:
        raise UserError("collapsed")

    monkeypatch.setattr("distilrank.students.train", train)
    with pytest.raises(UserError, match="no training was finished"):
        module.sweep(load_recipe(recipe), 1, most=2)


def test_without_validation_there_is_nothing_to_choose_by(recipe: Path) -> None:
    with pytest.raises(UserError, match="validation"):
        module.sweep(load_recipe(recipe, ["train.validation=0"]), 1)


def test_the_command_writes_a_recipe_that_runs(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", str(recipe), "-o", str(tmp_path / "best.yaml"), "--minutes", "5", "--trials", "2", "--json"]
    assert run(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["trials"]) == 2
    best = load_recipe(tmp_path / "best.yaml")
    assert best.train.learning_rate == told["best"]["changes"]["learning_rate"]
    assert not [entry for entry in (tmp_path / "run/sweep").iterdir() if entry.name != "study.db"]
