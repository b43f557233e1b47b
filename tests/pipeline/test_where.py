"""A recipe says nothing of where: what scores its teachers is chosen beside it, and the scores are the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distilrank.errors import UserError
from distilrank.pipeline import run_recipe
from distilrank.pipeline.where import Where
from distilrank.recipe import teacher_spec
from distilrank.scoring import processes
from pipeline.test_plan import recipe


def test_what_cannot_be_is_told_before_anything_is_done(bert: Path, tmp_path: Path) -> None:
    planned = recipe(tmp_path, bert, bert)
    for where, told in ((Where("mars"), "local or ray"), (Where(gpus="99"), "this machine has")):
        with pytest.raises(UserError, match=told):
            run_recipe(planned, where=where)
    assert not (tmp_path / "run/data").exists()


def test_a_server_is_asked_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "gpus", lambda asked, each: ["0", "1"][: int(asked)])
    server, model = teacher_spec("http", "http://localhost:1", api="tei", scores="logits"), teacher_spec("causal", "a-model")
    with pytest.raises(UserError, match="leave --on and --gpus out"):
        Where(gpus="2").check([server])
    Where(gpus="2").check([server, model])
    with Where(gpus="2").drive(server, server, offline=True) as drive:
        assert drive is None
    with Where().drive(model, model, offline=True) as drive:
        assert drive is None
    with Where(gpus="2").drive(model, model, offline=True) as drive:
        assert drive is not None


def test_a_model_on_several_gpus_takes_them_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(processes, "gpus", lambda number, each: asked.append((number, each)))
    Where(gpus="4").check([teacher_spec("causal", "a-model", engine="vllm", vllm={"tensor_parallel_size": 2})])
    assert asked == [("4", 2)]


@pytest.mark.slow
def test_a_run_in_two_processes_has_the_scores_of_a_run_in_one(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "gpus", lambda asked, each: ["", ""])
    found = {}
    for name, where in (("one", Where()), ("two", Where(gpus="2"))):
        (tmp_path / name).mkdir()
        folder = run_recipe(recipe(tmp_path / name, bert, bert), where=where)
        found[name] = json.loads((folder / "manifest.json").read_text())["stages"].keys()
        found[f"{name} scores"] = _scores(folder)
    assert found["one"] == found["two"]
    assert found["one scores"] == pytest.approx(found["two scores"], abs=1e-4)


def _scores(folder: Path) -> list[float]:
    from distilrank.records import read_scored

    return [pair.score for pair in read_scored(folder / "data/train.scored.parquet")]
