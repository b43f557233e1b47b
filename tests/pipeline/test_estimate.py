"""A plan counts what a run then does, says what it could not reach, and reckons from defaults there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tiny
from distilrank.cli import run
from distilrank.cli.plan import table
from distilrank.data import cut_to_student
from distilrank.engines.decoder import TOKENS_A_ROW
from distilrank.engines.load import load_tokenizer
from distilrank.errors import UserError
from distilrank.mining import MiningSettings
from distilrank.mining import mine as mine_file
from distilrank.pipeline import hardware as module
from distilrank.pipeline.estimate import Estimator, estimate, groups_taught, passages_taught
from distilrank.pipeline.hardware import Hardware, hardware, throughputs, with_rates
from distilrank.pipeline.sizes import read_part, shape_of
from distilrank.recipe import MineSpec, Recipe, load_recipe
from distilrank.records import ScoredPair, read_training_groups, read_triplets, write_groups, write_scored
from distilrank.scoring import ScoreStore, score
from distilrank.teachers.build import build_pointwise

SLOW = Hardware(
    "slow",
    1,
    "cpu",
    dict.fromkeys(("decoder", "decoder_float8", "encoder", "embedder", "train"), 1e6),
    {},
    {"step": 0, "forward": 0},
    "test",
)


def recipe(folder: Path, student: Path, teacher: Path, kind: str = "cross-encoder", **more: Any) -> Recipe:
    write_groups(folder / "train.jsonl", tiny.groups(30, 4))
    write_groups(folder / "test.jsonl", tiny.groups(6, 4, seed=1))
    asked = {"kind": kind, "model": str(teacher), "dtype": "float32", "max_length": 256}
    return Recipe.model_validate(
        {
            "name": "planned",
            "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")},
            "teacher": asked,
            "student": {"model": str(student), "max_length": 48},
            "train": {"precision": "float32", "validation": 0.1, "evaluations": 1},
            "evaluate": {"latency": 0},
            "output": str(folder / "run"),
        }
        | more
    )


def by_stage(found: Any) -> dict[str, Any]:
    return {stage.stage: stage for stage in found.stages}


def test_pairs_and_tokens_are_those_that_are_then_read(bert: Path, tmp_path: Path) -> None:
    given = recipe(tmp_path, bert, bert)
    found = estimate(given, SLOW, offline=True)
    assert (found.queries, found.pairs, found.known) == ({"train": 30, "test": 6}, 144, 0)
    tokenizer = load_tokenizer(bert)
    groups = list(cut_to_student([*tiny.groups(30, 4), *tiny.groups(6, 4, seed=1)], tokenizer, 48))
    tokens = sum(len(tokenizer(g.query, p.text)["input_ids"]) for g in groups for p in g.passages)
    stages = by_stage(found)
    assert stages["score"].tokens == tokens
    linear = 2 * (4 * 32 * 32 + 2 * 32 * 64)  # two layers of the tiny model
    assert stages["score"].seconds == pytest.approx(2 * tokens * linear / 1e6)
    assert stages["train"].pairs == round(120 * 0.9), "one epoch, the balanced preset's"
    assert list(stages) == ["data", "score", "mine", "train", "evaluate", "report"]
    assert not found.notes


@pytest.mark.parametrize("kind", ["causal", "likelihood"])
def test_what_is_packed_together_is_counted_once(kind: str, qwen: Path, bert: Path, tmp_path: Path) -> None:
    packed = by_stage(estimate(recipe(tmp_path, bert, qwen, kind), SLOW, offline=True))["score"].tokens
    given = recipe(tmp_path, bert, qwen, kind)
    plain = given.model_copy(update={"teacher": given.teacher.model_copy(update={"engine": "plain"})})
    whole = by_stage(estimate(plain, SLOW, offline=True))["score"].tokens
    assert packed < whole
    if kind == "causal":  # the engine's own rows, of both parts
        teacher = build_pointwise(given.teacher)
        groups = [cut_to_student(part, load_tokenizer(bert), 48) for part in (tiny.groups(30, 4), tiny.groups(6, 4, seed=1))]
        laid = [teacher.decoder.lay_out(asked.sequences, asked.tails) for asked in map(teacher.prompts, map(list, groups))]
        rows = sum(len(row.ids) for part in laid for row in part.rows)
        assert packed == pytest.approx(rows, rel=0.1)  # parts and their order are not the same
    assert TOKENS_A_ROW["cpu"]


def test_pairs_in_the_store_are_not_paid_for_again(bert: Path, tmp_path: Path) -> None:
    given = recipe(tmp_path, bert, bert, score={"store": str(tmp_path / "scores")})
    teacher = build_pointwise(given.teacher)
    groups = list(cut_to_student(tiny.groups(30, 4), load_tokenizer(bert), 48))
    score(groups[:15], teacher, ScoreStore(tmp_path / "scores", teacher.identity))
    found = estimate(given, SLOW, offline=True)
    assert (found.pairs, found.known) == (144, 60)
    assert by_stage(found)["score"].pairs == 84


def test_a_plan_writes_nothing(bert: Path, tmp_path: Path) -> None:
    given = recipe(tmp_path, bert, bert)
    before = sorted(tmp_path.rglob("*"))
    estimate(given, SLOW, offline=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("strategy", "form", "samples"),
    [
        ("adjacent", "triplets", 2),
        ("adjacent", "groups", 2),
        ("all_pairs", "groups", 2),
        ("quantile", "groups", 2),
        ("quantile", "groups", "auto"),
    ],
)
def test_what_is_taught_is_what_mining_gives(strategy: str, form: str, samples: int | str, tmp_path: Path) -> None:
    groups = tiny.groups(20, 15)
    pairs = [ScoredPair(g.query, p.text, float(n)) for g in groups for n, p in enumerate(g.passages)]
    write_scored(tmp_path / "scored.jsonl", pairs)
    settings = {"strategy": strategy, "passages": 6, "samples": samples}
    mine_file(tmp_path / "scored.jsonl", tmp_path / "mined.jsonl", MiningSettings(**settings), triplets=form == "triplets")
    if form == "triplets":
        taught = 2 * sum(1 for _ in read_triplets(tmp_path / "mined.jsonl"))
    else:
        mined = list(read_training_groups(tmp_path / "mined.jsonl"))
        taught = sum(len(group.passages) for group in mined)
        groups, drawn = groups_taught(15, MineSpec(**settings, format=form))
        assert (groups * 20, {drawn}) == (len(mined), {len(group.passages) for group in mined})
    assert passages_taught(15, MineSpec(**settings, format=form)) * 20 == taught


def test_steps_are_of_training_groups(bert: Path, tmp_path: Path) -> None:
    """30 queries, a tenth of them held out, in 3 draws of 2 of their 4 passages: 81 groups an epoch, 4 a step."""
    given = recipe(tmp_path, bert, bert, mine={"passages": 2, "samples": 3})
    training, _ = Estimator(given, SLOW, offline=True).taught()
    assert training.passes == pytest.approx(30 * 0.9 * 3 / 4)
    assert training.pairs == pytest.approx(30 * 0.9 * 3 * 2)


def test_the_published_recipe_is_planned_without_a_hub() -> None:
    found = estimate(load_recipe("stackoverflow"), hardware("h100"), offline=True, price=2.0)
    stages = by_stage(found)
    assert found.queries == {"train": 19_847, "test": 2_992}
    assert found.pairs == pytest.approx(593_522 + 89_470, rel=0.01)
    # docs/performance.md: 1,962 pairs/s on such texts; the published training is 1,218 steps of 512 triplets.
    assert stages["score"].seconds == pytest.approx(found.pairs / 1_962 + 60, rel=0.1)
    assert stages["train"].pairs == pytest.approx(2 * 623_271 * 0.98, rel=0.05)
    assert found.money == pytest.approx(2.0 * found.seconds / 3600)
    assert found.memory_gb > 16
    assert found.disk_gb > 16
    told = " ".join(found.notes)
    assert "not reached: hf:Qwen/Qwen3-Reranker-8B" in told
    assert "its published numbers are taken: 19,847 queries" in told


def test_memory_is_that_of_the_passages_taught_and_of_pieces_where_a_step_does_not_fit() -> None:
    small = ["teacher.model=hf:Qwen/Qwen3-Reranker-0.6B", "mine.strategy=quantile", "mine.format=groups"]
    small += ["mine.passages=12", "train={mode: groups, queries_per_step: 128}"]
    # docs/performance.md, Training on a GPU: 46.7 GiB for a graph of 41,472 tokens, 21.5 GiB in pieces of 16,384.
    # A step is of training groups, so a query that gives four of them makes it no larger.
    for memory, measured, samples in ((80, 46.7, 1), (80, 46.7, 4), (24.5, 21.5, 1)):
        given = load_recipe("stackoverflow", [*small, f"mine.samples={samples}"])
        found = estimate(given, replace(hardware("h100"), memory=memory), offline=True)
        assert found.memory_gb == pytest.approx(measured * 2**30 / 1e9, rel=0.1)
        assert not any("do not fit" in note for note in found.notes)


def test_a_model_and_data_that_nobody_knows_are_guessed_and_it_is_said(bert: Path, tmp_path: Path) -> None:
    given = recipe(tmp_path, bert, bert, data={"train": "hf:no/where:train.jsonl"})
    given = given.model_copy(update={"teacher": given.teacher.model_copy(update={"model": "hf:some/Model-3B"})})
    found = estimate(given, hardware("l4"), offline=True)
    assert any("a guess is taken: 10,000 queries" in note for note in found.notes)
    assert any("reckoned as 3,000 million" in note for note in found.notes)
    assert "evaluate" not in by_stage(found)


def test_hardware_that_was_not_measured_is_scaled_by_its_peak_and_marked() -> None:
    known, other = hardware("h100"), hardware("NVIDIA L4")
    assert "not measured" not in known.basis
    assert "not measured" in other.basis
    assert other.rates["train"] / known.rates["train"] == pytest.approx(121 / 989)
    assert hardware("NVIDIA H100 80GB HBM3").rates == known.rates
    assert hardware("h100", 8).count == 8
    with pytest.raises(UserError, match="did you mean"):
        hardware("h10")
    with pytest.raises(UserError, match="is of GPUs"):
        hardware("cpu", 2)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-PCIE-40GB", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_a_gpu_is_known_by_what_its_driver_calls_it(name: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware(name).name == key
    monkeypatch.setattr(module, "_found", lambda: SimpleNamespace(name=name, total_memory=40e9, multi_processor_count=1))
    assert (hardware().name, hardware().memory) == (key, 40)


def test_a_gpu_that_is_not_in_the_table_is_guessed_and_can_be_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = SimpleNamespace(name="Tesla V100-SXM2-16GB", total_memory=16e9, multi_processor_count=80)
    monkeypatch.setattr(module, "_found", lambda: odd)
    found = hardware()
    assert (found.name, found.memory) == ("Tesla V100-SXM2-16GB", 16)
    assert found.rates["train"] < hardware("a100").rates["train"]
    assert "a guess by its multiprocessors: use --calibrate" in found.basis
    measured = with_rates(found, {"train": 1e12}, "measured here")
    assert measured.rates["train"] == 1e12
    assert measured.step == {"step": 0, "forward": found.step["forward"]}


def test_shapes_are_those_of_the_models() -> None:
    shapes = {name: shape_of(config) for name, config in throughputs()["models"].items()}
    assert shapes["hf:Qwen/Qwen3-Reranker-8B"].linear == pytest.approx(6.95e9, rel=0.01)
    assert shapes["hf:Qwen/Qwen3-Reranker-8B"].parameters == pytest.approx(8.19e9, rel=0.01)
    assert shapes["hf:Qwen/Qwen3-Reranker-0.6B"].parameters == pytest.approx(0.596e9, rel=0.01)
    assert shapes["hf:BAAI/bge-reranker-v2-m3"].parameters == pytest.approx(0.568e9, rel=0.03)


def test_the_table_reckons_what_was_measured() -> None:
    """The rates of the table give back the lines of docs/performance.md that they come from."""
    on, student = hardware("h100"), shape_of(throughputs()["models"]["hf:BAAI/bge-reranker-v2-m3"])
    for tokens, seconds in ((5_184, 0.0427), (41_472, 0.277)):
        assert 6 * tokens * student.linear / on.rates["train"] + on.step["step"] == pytest.approx(seconds, rel=0.03)
    triplets = 32 * (6 * 32 * 27 * student.linear / on.rates["train"] + on.step["forward"])
    assert triplets == pytest.approx(5.856, rel=0.03)
    assert on.rates["encoder"] / (2 * 50 * student.linear) == pytest.approx(13_950, rel=0.03)


def test_a_large_file_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    from distilrank.pipeline import sizes

    groups = tiny.groups(400, 5)
    bytes_ = sum(len(g.query) + sum(len(p.text) for p in g.passages) for g in groups)
    monkeypatch.setattr(sizes, "MOST_GROUPS", 100)
    monkeypatch.setattr(sizes, "KEPT_GROUPS", 50)
    part = read_part(iter(groups), bytes_, None)
    assert part.queries == pytest.approx(400, rel=0.1)
    assert part.pairs == 5 * part.queries
    assert len(part.sample) == 50
    assert len({group.query for group in part.sample}) == 50
    assert read_part(iter(groups), bytes_, 150).queries == 150


def test_the_command_tells_it_in_80_columns(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = recipe(tmp_path, bert, bert)
    (tmp_path / "recipe.yaml").write_text(given.to_yaml())
    arguments = ["plan", str(tmp_path / "recipe.yaml"), "--gpu", "a100", "--count", "2", "--price", "3", "--offline"]
    assert run(arguments) == 0
    told = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in told if not line.startswith(("rates:", "note:")))
    assert "2 x a100" in told[0]
    assert any("money" in line for line in told)
    assert run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"] == 144
    assert found["seconds"] == pytest.approx(sum(stage["seconds"] for stage in found["stages"]))
    assert run([*arguments, "--calibrate"]) == 2


def test_hours_and_minutes_are_told_in_their_words(bert: Path, tmp_path: Path) -> None:
    found = estimate(recipe(tmp_path, bert, bert), SLOW, offline=True)
    stages = [replace(found.stages[0], seconds=seconds) for seconds in (5, 1_200, 36_000)]
    told = table(replace(found, stages=stages))
    assert [line.split()[-2:] for line in told[4:7]] == [["5", "s"], ["20", "min"], ["10.0", "h"]]


def test_a_training_is_measured_with_the_defaults_of_a_recipe(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distilrank.pipeline import calibrate

    monkeypatch.setattr(calibrate, "SECONDS", 0.1)
    given = recipe(tmp_path, bert, bert)
    assert given.train.learning_rate == "auto"
    assert calibrate._training(Estimator(given, SLOW, offline=True), bert) > 0


@pytest.mark.slow
def test_rates_are_measured_on_the_recipes_own_models(
    bert: Path, qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distilrank.pipeline import calibrate

    monkeypatch.setattr(calibrate, "SECONDS", 0.5)
    found = estimate(recipe(tmp_path, bert, qwen, "causal"), hardware("cpu"), offline=True, calibrate=True)
    assert by_stage(found)["score"].basis == "measured here"
    assert not [note for note in found.notes if "not calibrated" in note]
    assert by_stage(found)["train"].seconds > 0


def test_a_gpu_elsewhere_has_a_cpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Students are timed on the CPU of the GPU's machine, which is not the laptop that plans."""
    from distilrank.pipeline import hardware as module

    monkeypatch.setattr(module, "_found", lambda: None)
    assert module.beside(hardware("h100")).rates["encoder"] == throughputs()["measured"]["cpu"]["encoder"] * 1e12
    here = hardware("cpu")
    assert module.beside(here).rates == here.rates
