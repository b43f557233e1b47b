"""The whole path through the command line, on tiny models: a recipe, and the same file by file."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

import tiny
from distilrank.cli import run
from distilrank.engines.classifier import Reranker
from distilrank.records import read_groups, read_scored, read_training_groups, read_triplets, write_groups

STAGES = ["data", "score", "mine", "train", "evaluate", "report"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `train.jsonl`, `test.jsonl`; each query's first passage repeats its words and is labelled."""
    folder = tmp_path_factory.mktemp("whole-path")
    write_groups(folder / "train.jsonl", tiny.groups(40, 4, seed=1))
    write_groups(folder / "test.jsonl", tiny.groups(20, 5, seed=2))
    return folder


@pytest.fixture(scope="module")
def recipe(folder: Path, qwen: Path, embedder: Path, bert: Path) -> Path:
    members = [
        {"kind": "likelihood", "model": str(qwen), "max_length": 160, "dtype": "float32"},
        {"kind": "embedder", "model": str(embedder), "weight": 0.5, "dtype": "float32"},
    ]
    whole: dict[str, Any] = {
        "name": "tiny",
        "output": str(folder / "run"),
        "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")},
        "teacher": {"kind": "ensemble", "members": members},
        "score": {"checks": "warn"},  # a random model knows no answers
        "student": {"model": str(bert), "max_length": 48},
        "train": {"queries_per_step": 4, "learning_rate": 1e-3, "validation": 0.2, "precision": "float32"},
        "evaluate": {"latency": 0.01},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(whole))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def ran(recipe: Path) -> Path:
    """The folder of a finished run."""
    assert run(["run", str(recipe)]) == 0
    return recipe.parent / "run"


def states(text: str) -> dict[str, bool]:
    """Which stages a run said it skipped."""
    return {name: rest.endswith("done before") for name, rest in re.findall(r"^\[\d/\d\] (\w+): (.*)$", text, re.M)}


def test_a_run_folder_holds_all_that_the_design_lists(ran: Path) -> None:
    expected = {"recipe.yaml", "manifest.json", "data", "model", "evaluation", "report.html"}
    assert expected <= {entry.name for entry in ran.iterdir()}
    assert not list(ran.rglob("*.tmp"))
    assert (ran / "model/model.safetensors").exists()
    assert list((ran / "evaluation").glob("*.parquet"))


def test_the_models_card_holds_the_evidence_and_no_path(ran: Path) -> None:
    from huggingface_hub import ModelCard

    means = json.loads((ran / "evaluation/evaluation.json").read_text())["means"]["after"]
    card = ModelCard.load(ran / "model/README.md")
    assert {r.metric_name: r.metric_value for r in card.data.eval_results}["MAP"] == round(means["AP"], 4)
    assert "(1 margin_mse + 1 kl, 1 epoch, learning rate 0.001)" in card.content
    assert str(ran.parent) not in card.content
    assert not any(group.query in card.content for group in read_groups(ran / "data/train.parquet"))


def test_costs_are_those_of_before_after_and_all_of_the_teacher(ran: Path) -> None:
    costs = json.loads((ran / "evaluation/evaluation.json").read_text())["costs"]
    assert set(costs) == {"before", "after", "teacher"}
    assert costs["before"]["parameters"] == costs["after"]["parameters"]
    assert costs["teacher"]["parameters"] > 0
    assert all(run["p50_ms"] > 0 for cost in costs.values() for run in cost["runs"])


def test_a_run_that_forgets_too_much_ends_with_exit_code_3_and_keeps_everything(
    recipe: Path, ran: Path, folder: Path, bert: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outside = tiny.groups(20, 4, seed=7)
    # What the student before puts first is the answer: any change of the first place is a loss.
    best = [int(scores.argmax()) for scores in Reranker(bert, max_length=48).score(outside)]
    labelled = (
        replace(group, passages=tuple(replace(p, label=int(n == first)) for n, p in enumerate(group.passages)))
        for group, first in zip(outside, best, strict=True)
    )
    write_groups(folder / "outside.jsonl", labelled)
    changes = [f"evaluate.out_of_domain=[{folder / 'outside.jsonl'}]", "evaluate.latency=0", f"output={folder / 'gated'}"]
    options = [part for change in [*changes, "evaluate.max_forgetting=0"] for part in ("--set", change)]
    assert run(["run", str(recipe), *options]) == 3
    assert "the student forgot more than 0 in MAP: outside.jsonl 1.0000 ->" in capfd.readouterr().err
    assert (folder / "gated/report.html").exists()
    assert run(["run", str(recipe), *options[:-1], "evaluate.max_forgetting=1"]) == 0
    assert states(capfd.readouterr().err) == {name: name != "report" for name in STAGES}


def test_a_folder_that_is_no_run_of_ours_is_left_alone(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/recipe.yaml").write_text("mine")
    assert run(["run", str(recipe), "--set", f"output={tmp_path / 'theirs'}"]) == 2
    assert [(path.name, path.read_text()) for path in (tmp_path / "theirs").iterdir()] == [("recipe.yaml", "mine")]


def test_the_manifest_has_every_stage_with_its_fingerprint_and_cost(ran: Path) -> None:
    stages = json.loads((ran / "manifest.json").read_text())["stages"]
    assert list(stages) == STAGES
    for entry in stages.values():
        assert re.fullmatch("[0-9a-f]{64}", entry["fingerprint"])
        assert entry["seconds"] >= 0
        assert entry["peak_mb"] > 0
        assert {"torch", "transformers", "sentence-transformers", "python"} <= set(entry["versions"])
        assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in entry["inputs"].values())


def test_the_resolved_recipe_runs_as_the_same_run(ran: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(ran / "recipe.yaml")]) == 0
    assert states(capfd.readouterr().err) == dict.fromkeys(STAGES, True)


def test_a_second_run_does_nothing_and_changes_nothing(recipe: Path, ran: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in ran.rglob("*") if path.is_file()}
    assert run(["run", str(recipe)]) == 0
    assert states(capfd.readouterr().err) == dict.fromkeys(STAGES, True)
    assert {path: path.read_bytes() for path in ran.rglob("*") if path.is_file()} == before


def test_a_change_to_training_runs_training_and_the_stages_after_it(
    recipe: Path, ran: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = (ran / "model/model.safetensors").read_bytes()
    assert run(["run", str(recipe), "--set", "train.epochs=5"]) == 0
    assert states(capfd.readouterr().err) == {name: name in ("data", "score", "mine") for name in STAGES}
    assert (ran / "model/model.safetensors").read_bytes() != before
    assert yaml.safe_load((ran / "recipe.yaml").read_text())["train"]["epochs"] == 5
    # And back: the same recipe gives the same model again.
    assert run(["run", str(recipe)]) == 0
    assert (ran / "model/model.safetensors").read_bytes() == before


def test_a_dry_run_says_what_is_done_and_what_is_to_do(recipe: Path, ran: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(recipe), "--dry-run", "--json", "--set", "train.epochs=3"]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert [stage["stage"] for stage in plan["stages"]] == STAGES
    assert [stage["state"] for stage in plan["stages"]] == ["done before"] * 3 + ["to do"] * 3


def test_a_stage_asked_for_runs_anew_from_stored_scores(recipe: Path, ran: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(recipe), "--from", "score"]) == 0
    told = capfd.readouterr().err
    assert states(told)["data"]
    assert not states(told)["score"]
    assert re.findall(r"(\d+) pairs scored", told) == ["0"] * 4


def test_another_data_set_pays_for_new_pairs_only(
    recipe: Path, ran: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_groups(folder / "more.jsonl", [*tiny.groups(40, 4, seed=1), *tiny.groups(4, 4, seed=9)])
    changes = ["--set", f"data.train={folder / 'more.jsonl'}", "--set", f"output={folder / 'second'}"]
    assert run(["run", str(recipe), *changes]) == 0
    # Two members, each asked for train and then for test: 4 new queries of 4 passages each, and nothing new to test.
    assert re.findall(r"(\d+) pairs scored", capfd.readouterr().err) == ["16", "0", "16", "0"]


def test_the_evaluation_compares_every_system_on_the_same_queries(
    recipe: Path, ran: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", str(recipe), "--json"]) == 0
    means = json.loads(capfd.readouterr().out)["means"]
    assert set(means) == {"bm25", "likelihood", "embedder", "before", "after", "teacher"}
    # Each query's own words stand in its relevant passage, which BM25 finds.
    assert means["bm25"]["AP"] > 0.95
    assert all(0 <= value <= 1 for of_system in means.values() for value in of_system.values())


def test_the_report_is_one_page_without_a_network(ran: Path) -> None:
    page = (ran / "report.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    assert "tiny" in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


def test_the_teachers_scores_are_the_members_by_the_rule_on_record(ran: Path) -> None:
    record = json.loads((ran / "data/teacher.json").read_text())
    assert [member["kind"] for member in record["members"]] == ["likelihood", "embedder"]
    scored = [pq.read_table(ran / f"data/test.member-{n}.parquet")["score"].to_numpy() for n in (0, 1)]
    first, second = (
        scores * affine["scale"] + affine["shift"] for scores, affine in zip(scored, record["affines"], strict=True)
    )
    combined = pq.read_table(ran / "data/test.scored.parquet")["score"].to_numpy()
    np.testing.assert_allclose(combined, first + 0.5 * second, rtol=1e-4, atol=1e-4)


def test_a_trial_has_a_folder_of_its_own_and_shares_the_scores(
    recipe: Path, ran: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", str(recipe), "--sample", "10"]) == 0
    told = capfd.readouterr().err
    assert re.findall(r"(\d+) pairs scored", told) == ["0"] * 4
    assert len(list(read_groups(folder / "run-sample/data/train.parquet"))) == 10
    assert states(told) == dict.fromkeys(STAGES, False)


def test_labels_are_never_used_for_training(recipe: Path, ran: Path, folder: Path) -> None:
    flipped = (
        replace(group, passages=tuple(replace(passage, label=1 - passage.label) for passage in group.passages))
        for group in read_groups(folder / "train.jsonl")
    )
    write_groups(folder / "flipped.jsonl", flipped)
    changes = ["--set", f"data.train={folder / 'flipped.jsonl'}", "--set", f"output={folder / 'flipped'}"]
    assert run(["run", str(recipe), *changes]) == 0
    models = [path / "model/model.safetensors" for path in (ran, folder / "flipped")]
    assert models[0].read_bytes() == models[1].read_bytes()


# ---- file by file

MODES = {"groups": ["--format", "groups", "--strategy", "all_pairs"], "triplets": []}


@pytest.mark.parametrize("form", MODES)
def test_the_path_file_by_file_ends_in_a_report(
    form: str, folder: Path, qwen: Path, bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: object) -> dict[str, Any]:
        assert run([str(argument) for argument in arguments]) == 0
        told = capfd.readouterr().out
        return json.loads(told) if told.strip() else {}

    train, test, store = folder / "train.jsonl", folder / "test.jsonl", tmp_path / "store"
    teacher = ["--teacher", qwen, "--kind", "causal", "--dtype", "float32", "--checks", "warn", "--store", store, "--json"]
    scored = command("score", train, "-o", tmp_path / "train.scored.jsonl", *teacher)
    assert (scored["pairs"], scored["scored"]) == (160, 160)
    assert command("score", train, "-o", tmp_path / "again.jsonl", *teacher)["scored"] == 0
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "train.scored.jsonl").read_bytes()
    assert command("score", test, "-o", tmp_path / "test.scored.jsonl", *teacher)["scored"] == 100
    asked = [(group.query, passage.text) for group in read_groups(train) for passage in group.passages]
    assert [(pair.query, pair.passage) for pair in read_scored(tmp_path / "train.scored.jsonl")] == asked

    mined = tmp_path / "mined.jsonl"
    count = command("mine", tmp_path / "train.scored.jsonl", "-o", mined, *MODES[form], "--json")[form]
    assert len(list((read_triplets if form == "triplets" else read_training_groups)(mined))) == count

    options = ["--student", bert, "--max-length", 48, "--learning-rate", 1e-3, "--validation", 0.2, "--json"]
    step = ["--queries-per-step", 4] if form == "groups" else ["--batch-size", 16]
    trained = command("train", mined, "-o", tmp_path / "model", *options, *step, "--accumulation", 1)
    assert trained["steps"] > 1
    assert 0 < trained["agreement_after"] <= 1

    models = ["--model", bert, "--model", tmp_path / "model", "--scores", tmp_path / "test.scored.jsonl", "--max-length", 48]
    models += ["--latency", 0]
    evaluated = command("evaluate", test, *models, "-o", tmp_path / "evaluation", "--json")
    assert set(evaluated["means"]) == {"bm25", "before", "after", "teacher"}
    assert (evaluated["queries"], evaluated["judged"]) == (20, 20)
    command("report", tmp_path / "evaluation", "-o", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert len(Reranker(tmp_path / "model").score(list(read_groups(test)))) == 20


# ---- how a teacher is asked


@pytest.fixture
def few(tmp_path: Path) -> Path:
    write_groups(tmp_path / "few.jsonl", tiny.groups(4, 3, seed=3))
    return tmp_path / "few.jsonl"


def scored_by(capfd: pytest.CaptureFixture[str], few: Path, teacher: Path, *options: str) -> int:
    """How many pairs were asked for now."""
    out = few.with_name("scored.jsonl")
    command = ["score", str(few), "-o", str(out), "--teacher", str(teacher), "--dtype", "float32", "--json", *options]
    assert run(command) == 0
    return json.loads(capfd.readouterr().out)["scored"]


def test_another_engine_does_not_pay_again(few: Path, qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert scored_by(capfd, few, qwen, "--checks", "skip", "--engine", "packed") == 12
    assert scored_by(capfd, few, qwen, "--checks", "skip", "--engine", "plain") == 0


def test_another_template_does(few: Path, qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pieces = ["{query}? ", "{passage}", "\nyes or no: "]
    template = {"name": "own", "source": "me", "positive": "yes", "negative": "no", "pieces": pieces}
    (own := few.with_name("own.yaml")).write_text(yaml.safe_dump(template))
    assert scored_by(capfd, few, qwen, "--checks", "skip") == 12
    assert scored_by(capfd, few, qwen, "--checks", "skip", "--template", str(own)) == 12
    assert scored_by(capfd, few, qwen, "--checks", "skip", "--template", str(own)) == 0
    template["positive"], template["negative"] = "no", "yes"
    own.write_text(yaml.safe_dump(template))
    assert scored_by(capfd, few, qwen, "--checks", "skip", "--template", str(own)) == 12


def test_a_teacher_that_fails_a_check_is_not_paid_for(few: Path, qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["score", str(few), "-o", str(few.with_name("scored.jsonl")), "--teacher", str(qwen), "--dtype", "float32"]
    assert run(command) == 3
    assert "the teacher failed a check before scoring (canaries: " in capfd.readouterr().err
    assert not list(few.parent.rglob("*.parquet"))
    assert not few.with_name("scored.jsonl").exists()


def test_a_check_that_failed_under_warn_is_not_passed(few: Path, qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["score", str(few), "-o", str(few.with_name("scored.jsonl")), "--teacher", str(qwen), "--dtype", "float32"]
    assert run([*command, "--checks", "warn"]) == 0
    assert "check: canaries: failed" in capfd.readouterr().err
    write_groups(few, tiny.groups(6, 3, seed=3))
    assert run(command) == 3
