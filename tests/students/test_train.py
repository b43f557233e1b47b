"""Training learns, is the same under one seed, goes on after a kill, and refuses what cannot teach."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import tiny
from distilrank.engines import classifier
from distilrank.engines.classifier import Reranker
from distilrank.errors import UserError
from distilrank.metrics import agreement
from distilrank.mining.triplets import triplets_of
from distilrank.progress import bar
from distilrank.records import (
    Group,
    Passage,
    TrainingGroup,
    Triplet,
    read_training_groups,
    write_training_groups,
    write_triplets,
)
from distilrank.students import TrainSettings, dataset, learn, train
from distilrank.students.agreement import Agreement
from distilrank.students.calibrate import LEAST_SPREAD
from distilrank.students.folder import open_student, settled
from distilrank.students.follow import WHOLE, Steps, _mean, last_whole_checkpoint
from distilrank.students.trainer import GroupLoss
from distilrank.students.validation import query_hash, validation_threshold

module = sys.modules["distilrank.students.train"]  # `distilrank.students.train` is the function


def with_(settings: TrainSettings, **changes: Any) -> TrainSettings:
    return settings.model_copy(update=changes)


SETTINGS = TrainSettings(
    loss="margin_mse",
    warmup=0.05,
    epochs=2,
    learning_rate=1e-2,
    queries_per_step=4,
    validation=0.2,
    calibrate="none",
    precision="float32",
    max_length=48,
    device="cpu",
)
OF_MODE = {"groups": SETTINGS, "triplets": with_(SETTINGS, mode="triplets", batch_size=8)}
modes = pytest.mark.parametrize("mode", OF_MODE)


def taught(count: int = 60, passages: int = 4) -> Iterator[TrainingGroup]:
    """Groups of a teacher that likes the first words of the list: something that a tiny model learns in a few steps."""
    rng = random.Random(0)
    for number in range(count):
        texts, scores = [], []
        for place in range(passages):
            liked = rng.randint(0, 6)
            words = rng.choices(tiny.WORDS[:16], k=liked) + rng.choices(tiny.WORDS[16:], k=6 - liked)
            texts.append(f"{' '.join(words)} {place}")
            scores.append(2.0 * liked - 5)
        yield TrainingGroup(f"query {number}", tuple(texts), tuple(scores))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("training")
    files = {"groups": folder / "groups.jsonl", "triplets": folder / "triplets.jsonl"}
    write_training_groups(files["groups"], taught())
    paired = (replace(group, pairs=((0, 1), (1, 2), (2, 3))) for group in taught())
    write_triplets(files["triplets"], triplets_of(paired))
    return files


@pytest.fixture(scope="module", params=OF_MODE)
def trained(request: pytest.FixtureRequest, data: dict[str, Path], bert: Path, tmp_path_factory: Any) -> Any:
    """The mode, the model folder and the result of one whole training."""
    output = tmp_path_factory.mktemp("trained") / "model"
    return request.param, output, train(data[request.param], bert, output, OF_MODE[request.param])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- what comes out


def test_the_loss_falls_and_the_student_agrees_more(trained: Any) -> None:
    _, folder, result = trained
    losses = [entry["loss"] for entry in json.loads((folder / "distilrank.json").read_text())["loss"]]
    third = len(losses) // 3
    assert np.mean(losses[-third:]) < 0.7 * np.mean(losses[:third])
    assert result.agreement_after > result.agreement_before + 0.1


def test_every_weight_matrix_moves_and_stays_float32(trained: Any, bert: Path) -> None:
    before, after = weights(bert), weights(trained[1])
    assert before.keys() == after.keys()
    assert all(tensor.dtype == torch.float32 for tensor in after.values())
    matrices = [name for name in before if name.endswith("layer.0.output.dense.weight") or name == "classifier.weight"]
    assert len(matrices) == 2
    assert not any(torch.equal(before[name], after[name]) for name in matrices)


def test_the_model_gives_the_same_raw_logits_in_every_tool(trained: Any) -> None:
    from sentence_transformers import CrossEncoder

    folder = trained[1]
    group = tiny.groups(1, 6)[0]
    pairs = [(group.query, passage.text) for passage in group.passages]
    theirs = CrossEncoder(str(folder), device="cpu")
    assert isinstance(theirs.activation_fn, torch.nn.Identity)
    assert theirs.max_length == 48
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        logits = [
            plain(**tokenizer(*pair, truncation=True, max_length=48, return_tensors="pt")).logits.item() for pair in pairs
        ]
    ours = Reranker(folder, max_length=48, dtype="float32", device="cpu").score([group])[0]
    np.testing.assert_allclose(theirs.predict(pairs), ours, atol=1e-5)
    np.testing.assert_allclose(logits, ours, atol=1e-5)


def test_a_graph_that_does_not_fit_ends_no_training_of_single_queries(
    data: dict[str, Path], xlmr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One query is a step here: an ordinary step was computed, so there is memory, and nothing to be cut."""
    from distilrank.students.batches import BalancedBatches, step_size
    from distilrank.students.graph import GraphTrainer

    def size(body: Any, sizes: Any, settings: Any, *_: Any) -> Any:
        return step_size(sizes, BalancedBatches(sizes.tokens, settings.queries_per_step, settings.seed))

    captures = []

    def full(self: Any, *_: Any) -> None:
        captures.append(1)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(learn, "_fixed_size", size)
    monkeypatch.setattr(learn, "compile_layers", lambda *_, **named: None)
    monkeypatch.setattr(GraphTrainer, "_capture", full)
    result = train(data["groups"], xlmr, tmp_path / "model", with_(SETTINGS, queries_per_step=1, epochs=1))
    assert len(captures) == 1
    assert capfd.readouterr().err.count("out of memory") == 1
    assert result.agreement_after > result.agreement_before


def test_pairs_a_second_are_those_whose_steps_have_ended(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A log waits for the steps that were launched; validations and checkpoints between them are not counted."""
    from transformers import TrainerControl, TrainerState

    from distilrank.students import follow

    now, notes = 0.0, list[str]()
    monkeypatch.setattr(follow.time, "monotonic", lambda: now)
    steps, state = Steps(lambda done, note="": notes.append(note), pairs=48.0), TrainerState(max_steps=20)
    call = {"args": SimpleNamespace(), "state": state, "control": TrainerControl()}
    steps.on_train_begin(**call)
    for _ in range(2):
        for _ in range(10):
            steps.on_step_begin(**call)
            state.global_step += 1
            steps.on_step_end(**call)
        now += 2.0  # of waiting for the ten
        steps.on_log(**call, logs={"loss": 1.0})
        now += 30.0  # of validation
        steps.on_log(**call, logs={"eval_agreement": 0.5})
        steps.on_evaluate(**call, metrics={"eval_agreement": 0.5})
        now += 7.0  # of a checkpoint
    steps.on_train_end(**call)
    assert [note for note in notes if note] == ["loss 1.000"] * 2
    told = capfd.readouterr().err
    assert told.count(" 240 pairs a second") == 2
    assert told.endswith("  74 of 78 s of training were start, validations and checkpoints\n")


def test_each_validation_is_told_with_loss_and_margins(
    data: dict[str, Path], bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(data["groups"], bert, tmp_path / "model", SETTINGS)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("  step ")]
    assert len(told) == SETTINGS.evaluations
    record = json.loads((tmp_path / "model/distilrank.json").read_text())
    since = 0
    for line, entry in zip(told, record["agreement"], strict=True):
        logs = [each for each in record["loss"] if since < each["step"] <= entry["step"]]
        assert [each["step"] for each in logs] == list(range(since + 1, entry["step"] + 1))  # a log a step
        loss, margins = (np.mean([each[name] for each in logs]) for name in ("loss", "margin_correlation"))
        told_of, _, rate = line.rpartition(", ")
        assert re.fullmatch(r"[\d,]+ pairs a second", rate)
        assert told_of == (
            f"  step {entry['step']} of 24: loss {loss:.3f}, margin correlation "
            f"{margins:.3f}, agreement {entry['agreement']:.3f}"
        )
        since = entry["step"]


@pytest.mark.parametrize("mode", ["groups", "triplets"])
def test_without_validation_each_checkpoint_is_told(
    mode: str, data: dict[str, Path], bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(data[mode], bert, tmp_path / "model", SETTINGS.model_copy(update={"mode": mode, "validation": 0.0}))
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("  step ")]
    assert len(told) == SETTINGS.evaluations
    margins = r", margin correlation -?[\d.]+" if mode == "groups" else ""
    for line in told:
        assert re.fullmatch(rf"  step [\d,]+ of [\d,]+: loss [\d.]+{margins}, [\d,]+ pairs a second", line)


@modes
def test_the_bar_of_what_is_read_ends_at_its_end(
    mode: str, data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    totals, dones = {}, dict[str, int]()

    @contextmanager
    def counted(title: str, total: int, unit: str, **more: Any) -> Iterator[Any]:
        def advance(done: int, note: str = "") -> None:
            dones[title] = dones.get(title, 0) + done

        totals[title] = total
        yield advance

    monkeypatch.setattr(module, "bar", counted)
    train(data[mode], bert, tmp_path / "model", with_(OF_MODE[mode], epochs=0.1))
    assert len(totals) == 2
    assert dones == totals


def test_a_log_counts_by_its_steps_and_one_that_is_no_number_not_at_all() -> None:
    history = [{"step": step, "loss": value} for step, value in ((4, 9.0), (8, 1.0), (9, 6.0), (12, math.nan))]
    assert _mean(history, "loss", 4) == pytest.approx((4 * 1 + 6) / 5)
    assert _mean(history, "loss", 0) == pytest.approx((4 * 9 + 4 * 1 + 6) / 9)
    assert _mean(history, "loss", 9) is None
    assert _mean(history, "margin_correlation", 0) is None


def test_the_record_says_how_it_was_trained(trained: Any) -> None:
    mode, folder, result = trained
    record = json.loads((folder / "distilrank.json").read_text())
    assert (record["settings"]["mode"], record["settings"]["learning_rate"]) == (mode, 1e-2)
    assert (record["settings"]["precision"], record["settings"]["device"]) == ("float32", "cpu")
    assert record["result"]["steps"] == result.steps == record["loss"][-1]["step"]
    assert [entry["step"] for entry in record["agreement"]] == sorted({entry["step"] for entry in record["agreement"]})
    assert {"distilrank", "torch", "transformers", "sentence-transformers"} == set(record["versions"])


def test_the_best_checkpoint_on_validation_is_the_model(trained: Any) -> None:
    _, folder, result = trained
    record = json.loads((folder / "distilrank.json").read_text())
    assert result.agreement_after == pytest.approx(max(entry["agreement"] for entry in record["agreement"]))


def test_nothing_but_the_model_is_left(trained: Any) -> None:
    assert [entry.name for entry in trained[1].parent.iterdir()] == ["model"]


def test_agreement_is_measured_on_queries_that_are_not_taught(
    data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[str]] = {}
    tokenise = module.tokenised

    def spy(groups: Any, *more: Any) -> Any:
        kept = list(groups)
        seen["taught"] = [group.query for group in kept]
        return tokenise(kept, *more)

    monkeypatch.setattr(module, "tokenised", spy)
    result = train(data["groups"], bert, tmp_path / "model", SETTINGS)
    queries = [group.query for group in read_training_groups(data["groups"])]
    threshold = validation_threshold(queries, 0.2, 0)
    held = [group for group in read_training_groups(data["groups"]) if query_hash(group.query, 0) < threshold]
    assert len(held) == 12
    assert sorted(seen["taught"]) == sorted(set(queries) - {group.query for group in held})
    asked = [tiny.group(group.query, *group.passages) for group in held]
    scores = Reranker(tmp_path / "model", max_length=48, dtype="float32", device="cpu").score(asked)
    assert result.agreement_after == pytest.approx(agreement([np.array(g.scores) for g in held], scores).mean(), abs=1e-6)


def test_a_run_that_does_not_help_says_so(
    data: dict[str, Path], bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(data["groups"], bert, tmp_path / "model", with_(SETTINGS, learning_rate=1e-12))
    assert "this run did not help" in capfd.readouterr().err


def test_a_folder_that_is_no_classifier_yet_gets_a_head(data: dict[str, Path], bert: Path, tmp_path: Path) -> None:
    body = transformers.AutoModel.from_pretrained(bert)
    body.save_pretrained(tmp_path / "body")
    transformers.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path / "body")
    result = train(data["groups"], tmp_path / "body", tmp_path / "model", with_(SETTINGS, calibrate="auto"))
    spread = np.sqrt(np.mean([np.var(group.scores) for group in taught()]))
    assert result.scale == pytest.approx(LEAST_SPREAD / spread)
    assert weights(tmp_path / "model")["classifier.weight"].shape == (1, 32)
    train(data["groups"], tmp_path / "body", tmp_path / "again", with_(SETTINGS, calibrate="auto"))
    assert same(tmp_path / "model", tmp_path / "again")  # the seed decides the head, too


def test_an_embedder_learns_to_rank_and_says_so_in_our_words_alone(
    data: dict[str, Path],
    embedder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(data["groups"], embedder, tmp_path / "model", with_(SETTINGS, learning_rate="auto", epochs=0.2))
    told = capfd.readouterr().err
    assert "the student has no head yet" in told
    assert "learning rate 0.0002: auto, by the student's width and 0.2 epochs" in told
    assert not [record.getMessage() for record in caplog.records]  # sentence-transformers says it, too


def test_an_xlm_roberta_learns_under_bfloat16_and_ties_nothing(data: dict[str, Path], xlmr: Path, tmp_path: Path) -> None:
    result = train(data["groups"], xlmr, tmp_path / "model", with_(SETTINGS, precision="bfloat16", learning_rate=3e-3))
    assert result.agreement_after > result.agreement_before
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path / "model").values())
    assert not torch.equal(
        weights(xlmr)["classifier.out_proj.weight"], weights(tmp_path / "model")["classifier.out_proj.weight"]
    )
    asked = [tiny.group(group.query, *group.passages) for group in taught()]
    scores = np.concatenate(Reranker(tmp_path / "model", max_length=48, dtype="bfloat16", device="cpu").score(asked))
    assert len(np.unique(scores)) > 0.95 * len(scores)


# ---- calibration


@pytest.mark.parametrize(("calibrate", "deviation"), [(2.5, 2.5), ("none", None), ("auto", LEAST_SPREAD)])
def test_the_scale_takes_the_scores_to_the_deviation_asked_for(
    calibrate: Any, deviation: float | None, data: dict[str, Path], bert: Path, tmp_path: Path
) -> None:
    spread = np.sqrt(np.mean([np.var(group.scores) for group in taught()]))
    settings = with_(SETTINGS, calibrate=calibrate, epochs=0.1)
    scale = train(data["groups"], bert, tmp_path / "model", settings).scale
    assert scale == pytest.approx(deviation / spread if deviation else 1.0, rel=1e-3)


def test_a_student_that_ranks_keeps_its_own_deviation(data: dict[str, Path], bert: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(bert)
    model.classifier.weight.data *= 200
    model.save_pretrained(tmp_path / "student")
    transformers.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path / "student")
    groups = [tiny.group(group.query, *group.passages) for group in taught()]
    own = Reranker(tmp_path / "student", max_length=48, dtype="float32", device="cpu").score(groups)
    deviation = np.sqrt(np.mean([np.var(values) for values in own]))
    assert deviation > LEAST_SPREAD
    spread = np.sqrt(np.mean([np.var(group.scores) for group in taught()]))
    settings = with_(SETTINGS, calibrate="auto", epochs=0.1)
    assert train(data["groups"], tmp_path / "student", tmp_path / "model", settings).scale == pytest.approx(
        deviation / spread, rel=1e-3
    )


def test_calibrated_scores_teach_as_scores_of_that_scale_do(data: dict[str, Path], bert: Path, tmp_path: Path) -> None:
    scaled = train(data["groups"], bert, tmp_path / "a", with_(SETTINGS, calibrate=2.0, epochs=0.3))
    multiplied = (replace(g, scores=tuple(score * scaled.scale for score in g.scores)) for g in taught())
    write_training_groups(tmp_path / "scaled.jsonl", multiplied)
    train(tmp_path / "scaled.jsonl", bert, tmp_path / "b", with_(SETTINGS, calibrate="none", epochs=0.3))
    assert same(tmp_path / "a", tmp_path / "b")


# ---- the same again, and after a kill


def test_one_seed_gives_one_model_bit_for_bit(trained: Any, data: dict[str, Path], bert: Path, tmp_path: Path) -> None:
    mode, first, _ = trained
    train(data[mode], bert, tmp_path / "again", OF_MODE[mode])
    assert same(first, tmp_path / "again")


def test_another_seed_gives_another_model(data: dict[str, Path], bert: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        train(data["groups"], bert, tmp_path / str(seed), with_(SETTINGS, epochs=0.3, validation=0.0, seed=seed))
    assert not same(tmp_path / "0", tmp_path / "1")


class Killed(BaseException):
    """As if the process had ended: nothing in the library catches it."""


def killed(monkeypatch: pytest.MonkeyPatch, event: str, step: int, *arguments: Any) -> None:
    """A training that ends at `event` of a step, before our callback has seen it."""

    def end(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == step:
            raise Killed
        return ours(self, args, state, control, **more)

    ours = getattr(Steps, event)
    with monkeypatch.context() as patch:
        patch.setattr(Steps, event, end)
        with pytest.raises(Killed):
            train(*arguments)


MOMENTS = {
    "before the first checkpoint": ("on_step_end", 0.2),
    "after the second": ("on_step_end", 0.6),
    "within the second": ("on_save", 0.5),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_training_ends_in_the_model_of_one_that_was_not(
    trained: Any, moment: str, data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode, uninterrupted, result = trained
    event, share = MOMENTS[moment]
    arguments = (data[mode], bert, tmp_path / "model", OF_MODE[mode])
    killed(monkeypatch, event, int(share * result.steps), *arguments)
    assert not (tmp_path / "model").exists()
    resumed = train(*arguments)
    assert same(uninterrupted, tmp_path / "model")
    assert (resumed.agreement_before, resumed.agreement_after) == (result.agreement_before, result.agreement_after)


@modes
def test_a_training_that_was_killed_before_its_model_was_written_makes_no_further_step(
    mode: str, data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"average": 0.9, "validation": 0.0} if mode == "groups" else {}
    settings = with_(OF_MODE[mode], epochs=0.6, **changes)
    result = train(data[mode], bert, tmp_path / "model", settings)

    def end(*_: Any) -> None:
        raise Killed

    arguments = (data[mode], bert, tmp_path / "again", settings)
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_student", end)
        with pytest.raises(Killed):
            train(*arguments)
    assert train(*arguments).steps == result.steps
    assert same(tmp_path / "model", tmp_path / "again")
    record, other = (json.loads((tmp_path / name / "distilrank.json").read_text()) for name in ("model", "again"))
    assert record["loss"] == other["loss"]


def test_a_killed_training_goes_on_from_its_last_checkpoint(
    data: dict[str, Path],
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (data["groups"], bert, tmp_path / "model", SETTINGS)
    killed(monkeypatch, "on_step_end", 13, *arguments)
    steps: list[int] = []
    monkeypatch.setattr(Steps, "on_step_end", lambda self, args, state, control, **more: steps.append(state.global_step))
    shown: dict[str, int] = {}
    monkeypatch.setattr(module, "bar", lambda *of, before=0: shown.update({of[0]: before}) or bar(*of, before=before))
    assert "earlier model" not in capsys.readouterr().err
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / module.RECORD).touch()
    train(*arguments)
    assert steps[0] == 13  # saved at 6, 12, 18 and 24
    assert shown["train"] == 12
    said = capsys.readouterr().err
    assert f"{tmp_path / 'model'} holds an earlier model of ours" in said
    assert "goes on from the checkpoint of step 12" in said


@pytest.mark.parametrize("change", ["settings", "data", "student"])
def test_checkpoints_of_another_training_are_not_gone_on_from(
    change: str, data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(monkeypatch, "on_step_end", 8, data["groups"], bert, tmp_path / "model", SETTINGS)
    asked = {"data": data["groups"], "student": bert, "settings": SETTINGS}
    if change == "settings":
        asked["settings"] = with_(SETTINGS, learning_rate=1e-3)
    elif change == "data":
        asked["data"] = tmp_path / "other.jsonl"
        write_training_groups(asked["data"], (replace(g, scores=tuple(-score for score in g.scores)) for g in taught()))
    else:
        asked["student"] = shutil.copytree(bert, tmp_path / "other")
        other = transformers.AutoModelForSequenceClassification.from_pretrained(bert)
        other.classifier.weight.data *= -1
        other.save_pretrained(tmp_path / "other")
    train(output=tmp_path / "model", **asked)
    train(output=tmp_path / "fresh", **asked)
    assert same(tmp_path / "model", tmp_path / "fresh")


def test_a_kill_while_older_checkpoints_are_deleted_costs_no_state(
    data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def falling(self: Any, model: Any, *of: Any, **more: Any) -> dict[str, float]:
        """The first checkpoint is the best, so that the one before the newest is the one to go."""
        return {"agreement": -float(sum(p.detach().square().sum() for p in model[0].model.parameters()))}

    def half(path: Any, *of: Any, **more: Any) -> None:
        if Path(path).name.startswith("checkpoint-"):
            (Path(path) / "optimizer.pt").unlink()
            raise Killed
        rmtree(path, *of, **more)

    rmtree = shutil.rmtree
    monkeypatch.setattr(Agreement, "__call__", falling)
    train(data["groups"], bert, tmp_path / "model", SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        with pytest.raises(Killed):
            train(data["groups"], bert, tmp_path / "again", SETTINGS)
    train(data["groups"], bert, tmp_path / "again", SETTINGS)
    record, other = (json.loads((tmp_path / name / "distilrank.json").read_text()) for name in ("model", "again"))
    assert record["loss"] == other["loss"]
    assert [entry["step"] for entry in record["agreement"]] == [6, 12, 18, 24]
    assert same(tmp_path / "model", tmp_path / "again")


def test_a_checkpoint_without_its_seal_is_deleted(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").touch()
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}" / WHOLE).touch()
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-9", "checkpoint-10"}


def test_a_new_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert last_whole_checkpoint(tmp_path / "none") is None


# ---- guards


def refused(match: str, groups: Any, bert: Path, tmp_path: Path, **changes: Any) -> None:
    write_training_groups(tmp_path / "bad.jsonl", groups)
    with pytest.raises(UserError, match=match):
        train(tmp_path / "bad.jsonl", bert, tmp_path / "model", with_(SETTINGS, **changes))
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / ".model.training").exists()


def test_scores_that_look_like_probabilities_are_refused(bert: Path, tmp_path: Path) -> None:
    likely = [replace(g, scores=tuple(1 / (1 + math.exp(-score)) for score in g.scores)) for g in taught()]
    refused("as probabilities do.*--bounded-scores", likely, bert, tmp_path)
    train(tmp_path / "bad.jsonl", bert, tmp_path / "model", with_(SETTINGS, bounded_scores=True, epochs=0.1))


def test_triplets_whose_margins_look_like_probabilities_are_refused(bert: Path, tmp_path: Path) -> None:
    write_triplets(tmp_path / "close.jsonl", [Triplet(f"query {n}", "good", "bad", n / 40) for n in range(1, 40)])
    with pytest.raises(UserError, match=r"no margin is larger than 1.*--bounded-scores"):
        train(tmp_path / "close.jsonl", bert, tmp_path / "model", with_(SETTINGS, mode="triplets", calibrate="none"))


def test_one_score_outside_the_unit_interval_is_no_probability(bert: Path, tmp_path: Path) -> None:
    rows = [replace(g, scores=(0.1, 0.5, 0.7, 1.25 if g.query == "query 3" else 0.9)) for g in taught()]
    write_training_groups(tmp_path / "raw.jsonl", rows)
    train(tmp_path / "raw.jsonl", bert, tmp_path / "model", with_(SETTINGS, epochs=0.1))


@pytest.mark.parametrize(("device", "match"), [("cuda:1", "CUDA_VISIBLE_DEVICES"), ("mps", "set device to cpu")])
def test_a_device_that_the_trainer_does_not_take_is_refused(
    device: str, match: str, data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "device_of", lambda _: device)  # as if it were here
    with pytest.raises(UserError, match=match):
        train(data["groups"], bert, tmp_path / "model", SETTINGS)


def test_a_constant_teacher_is_refused(bert: Path, tmp_path: Path) -> None:
    constant = [replace(g, scores=(float(n),) * 4) for n, g in enumerate(taught())]
    refused("same score: nothing to learn", constant, bert, tmp_path)


@pytest.mark.parametrize(("value", "match"), [(0.0, "collapsed"), (math.nan, "not finite")])
@modes
def test_a_student_without_an_order_after_training_is_refused(
    value: float, match: str, mode: str, data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(self: Agreement, model: Any) -> list[np.ndarray]:
        return [np.full(len(of_query), value, dtype=np.float32) for of_query in self.teacher]

    monkeypatch.setattr(Agreement, "scores", scores)
    with pytest.raises(UserError, match=match):
        train(data[mode], bert, tmp_path / "model", with_(OF_MODE[mode], validation=0.0, epochs=0.1))
    assert not (tmp_path / "model").exists()


@modes
def test_a_file_of_the_other_mode_is_refused(mode: str, data: dict[str, Path], bert: Path, tmp_path: Path) -> None:
    other = {"groups": "triplets", "triplets": "groups"}[mode]
    with pytest.raises(UserError, match=f"training mode is {mode}: say --mode {other}"):
        train(data[other], bert, tmp_path / "model", OF_MODE[mode])


def test_only_the_listed_pairs_are_taught_however_often_they_are_listed(
    data: dict[str, Path], bert: Path, tmp_path: Path
) -> None:
    settings, curves = with_(SETTINGS, validation=0.0, epochs=0.6, dropout=0.0), []
    for name, listed in {"once": [(0, 1)], "six times": [(0, 1)] * 6}.items():  # 4 passages have 6 pairs
        groups = [replace(group, pairs=tuple(listed)) for group in taught(20)]
        write_training_groups(tmp_path / f"{name}.jsonl", groups)
        train(tmp_path / f"{name}.jsonl", bert, tmp_path / name, settings)
        record = json.loads((tmp_path / name / "distilrank.json").read_text())
        curves.append([entry["loss"] for entry in record["loss"]])
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)


def test_margins_cannot_be_calibrated(data: dict[str, Path], bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be calibrated"):
        train(data["triplets"], bert, tmp_path / "model", with_(OF_MODE["triplets"], calibrate=4.0))


def test_too_few_queries_to_validate_are_all_taught_and_it_is_said(
    bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_training_groups(tmp_path / "few.jsonl", taught(8))
    result = train(tmp_path / "few.jsonl", bert, tmp_path / "model", SETTINGS)
    assert math.isnan(result.agreement_after)
    assert result.steps == 4
    assert "too few training queries" in capfd.readouterr().err
    assert json.loads((tmp_path / "model/distilrank.json").read_text())["result"]["agreement_after"] is None


@pytest.mark.parametrize("broken", ["no config", "cut weights", "pickled weights", "no folder"])
@pytest.mark.parametrize("calibrate", ["auto", "none"])
def test_a_student_that_cannot_be_opened_is_the_users_to_mend(
    broken: str, calibrate: str, data: dict[str, Path], bert: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(bert, tmp_path / "student")
    if broken == "no config":
        (folder / "config.json").unlink()
    elif broken == "cut weights":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:999])
    elif broken == "pickled weights":
        torch.save(weights(folder), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    else:
        shutil.rmtree(folder)
    with pytest.raises(UserError, match="student"):
        train(data["groups"], folder, tmp_path / "model", with_(SETTINGS, calibrate=calibrate))


def test_a_classifier_of_several_labels_is_no_student(data: dict[str, Path], tmp_path: Path) -> None:
    folder = tiny.bert_folder(tmp_path / "student", num_labels=3)
    with pytest.raises(UserError, match=r"student.*one output"):
        train(data["groups"], folder, tmp_path / "model", SETTINGS)


@pytest.mark.parametrize(("student", "room"), [("bert", 512), ("xlmr", 512)])
def test_pairs_are_cut_where_positions_end(
    student: str, room: int, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue(student)
    assert settled(folder, with_(SETTINGS, max_length=512)).max_length == 512
    assert settled(folder, with_(SETTINGS, max_length=1024)).max_length == room
    assert f"positions for {room} tokens" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["Data2VecText", "IBert", "MPNet", "RobertaPreLayerNorm", "Roberta", "DistilBert"])
def test_a_pair_of_the_length_that_is_left_has_a_position_for_each_token(name: str, tmp_path: Path) -> None:
    """Of encoders that are padded, too: past its end a position table is an error on a CPU, and other numbers on a GPU."""
    more: dict[str, Any] = {"dim": 32, "hidden_dim": 48} if name == "DistilBert" else {"pad_token_id": 1}
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 1, "vocab_size": 60}
    config = getattr(transformers, f"{name}Config")(**sizes | more, max_position_embeddings=66, num_labels=1)
    config.save_pretrained(tmp_path)
    room = settled(tmp_path, with_(SETTINGS, max_length=512)).max_length
    model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    model(input_ids=torch.full((1, room), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, room + 1), 5))


# ---- losses


@pytest.mark.parametrize("loss", ["weighted_margin_mse", "mse", "kl", "rank_net", "adr_mse", {"margin_mse": 1.0, "kl": 0.3}])
def test_every_loss_teaches(loss: Any, data: dict[str, Path], bert: Path, tmp_path: Path) -> None:
    result = train(
        data["groups"], bert, tmp_path / "model", with_(SETTINGS, loss=loss, calibrate="auto" if loss == "mse" else "none")
    )
    assert result.agreement_after > result.agreement_before + 0.02


def test_triplets_know_one_loss(data: dict[str, Path], bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="triplets are taught by margin_mse, not by kl"):
        train(data["triplets"], bert, tmp_path / "model", with_(OF_MODE["triplets"], loss="kl"))


def test_auto_calibration_takes_the_scores_to_the_students_own_level(
    data: dict[str, Path], bert: Path, tmp_path: Path
) -> None:
    result = train(data["groups"], bert, tmp_path / "model", with_(SETTINGS, calibrate="auto", loss="mse", epochs=0.1))
    groups = [Group(g.query, g.query, tuple(map(Passage, g.passages))) for g in taught()]
    own = np.concatenate(Reranker(bert, max_length=48, dtype="float32", device="cpu").score(groups))
    mapped = np.concatenate([np.array(g.scores) for g in taught()]) * result.scale + result.shift
    assert mapped.mean() == pytest.approx(own.mean(), abs=0.05)


# ---- the model folder


@modes
def test_a_model_folder_holds_no_text_of_the_training_data(
    mode: str, data: dict[str, Path], bert: Path, tmp_path: Path
) -> None:
    train(data[mode], bert, tmp_path / "model", with_(OF_MODE[mode], epochs=0.3))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "distilrank" in card
    assert "Agreement with the teacher" in card
    tokenizer_files = {"tokenizer.json", "vocab.txt"}  # a vocabulary is the student's own
    files = [f for f in (tmp_path / "model").rglob("*") if f.suffix in (".md", ".json") and f.name not in tokenizer_files]
    for group in taught():
        for text in (group.query, *group.passages):
            assert not any(text in file.read_text() for file in files)
    assert "input_ids" not in card


# ---- options


@pytest.mark.parametrize("name", ["Albert", "DebertaV2", "DistilBert"])
def test_dropout_is_set_whatever_a_configuration_calls_it(name: str, tmp_path: Path) -> None:
    sizes = {"dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64} if name == "DistilBert" else tiny.SIZES
    tokenizer = tiny.words_tokenizer()
    more = {"vocab_size": len(tokenizer), "num_labels": 1, "pooler_dropout": 0.1, "classifier_dropout_prob": 0.1}
    config = getattr(transformers, f"{name}Config")(**sizes | more)
    folder = tiny.saved(tmp_path / name, getattr(transformers, f"{name}ForSequenceClassification"), config, tokenizer)
    for dropout, ways in ((None, 4), (0.0, 1)):
        model = open_student(folder, with_(SETTINGS, dropout=dropout), "cpu")[0].model.train()
        assert len({model(torch.arange(5, 30)[None]).logits.item() for _ in range(4)}) == ways


def test_a_running_average_is_what_is_measured_and_written(
    data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_(SETTINGS, average=0.9)
    result = train(data["groups"], bert, tmp_path / "model", settings)
    record = json.loads((tmp_path / "model/distilrank.json").read_text())
    assert result.agreement_after == pytest.approx(max(entry["agreement"] for entry in record["agreement"]))
    arguments = (data["groups"], bert, tmp_path / "again", settings)
    killed(monkeypatch, "on_step_end", int(0.6 * result.steps), *arguments)
    train(*arguments)
    assert same(tmp_path / "model", tmp_path / "again")
    train(data["groups"], bert, tmp_path / "plain", SETTINGS)
    assert not same(tmp_path / "model", tmp_path / "plain")


def test_interpolation_is_recorded_and_its_choice_the_best_on_validation(
    data: dict[str, Path], bert: Path, tmp_path: Path
) -> None:
    found = {}
    for share in (0.2, 0.6, 1.0, "auto"):
        result = train(data["groups"], bert, tmp_path / str(share), with_(SETTINGS, interpolate=share))
        found[share] = result.agreement_after
        assert share == "auto" or result.share == share
    assert found["auto"] >= max(found[share] for share in (0.2, 0.6, 1.0))
    name = "bert.encoder.layer.0.output.dense.weight"
    start, end, part = (weights(folder)[name] for folder in (bert, tmp_path / "1.0", tmp_path / "0.6"))
    torch.testing.assert_close(part, torch.lerp(start, end, 0.6))


def test_a_training_stops_when_it_no_longer_gets_better(
    data: dict[str, Path], bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = with_(SETTINGS, learning_rate=1e-12, evaluations=8, patience=2, epochs=4)
    result = train(data["groups"], bert, tmp_path / "model", settings)
    assert result.steps == 3 * 6  # the first validation, and two that are no better, at every sixth of 48 steps
    assert capfd.readouterr().err.count("ends here: 2 validations without a better one (patience)") == 1


def test_patience_counts_on_after_a_kill(
    data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_(SETTINGS, learning_rate=1e-12, evaluations=8, patience=3, epochs=2)
    arguments = (data["groups"], bert, tmp_path / "model", settings)
    killed(monkeypatch, "on_step_end", 8, *arguments)  # after the second validation, the first that was no better
    assert train(*arguments).steps == 4 * 3


def test_validation_queries_that_the_teacher_does_not_order_are_said_to_be_of_no_use(
    bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = list(taught())
    threshold = validation_threshold((row.query for row in rows), SETTINGS.validation, SETTINGS.seed)
    held_out = [query_hash(row.query, SETTINGS.seed) < threshold for row in rows]
    flat = [replace(row, scores=(2.0,) * 4) if held else row for row, held in zip(rows, held_out, strict=True)]
    write_training_groups(tmp_path / "g.jsonl", flat)
    result = train(tmp_path / "g.jsonl", bert, tmp_path / "model", with_(SETTINGS, epochs=0.2, patience=1))
    assert math.isnan(result.agreement_after)
    told = "the teacher orders no validation query's passages: the last checkpoint is the model, without patience"
    assert told in capfd.readouterr().err


def test_without_queries_to_validate_on_patience_and_auto_are_said_to_do_nothing(
    bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_training_groups(tmp_path / "few.jsonl", taught(8))
    settings = with_(SETTINGS, epochs=1, patience=1, interpolate="auto")
    result = train(tmp_path / "few.jsonl", bert, tmp_path / "model", settings)
    assert (result.steps, result.share) == (2, 1.0)
    assert "the model, without patience, without interpolate: auto" in capfd.readouterr().err


def test_a_part_of_the_way_with_adapters_is_of_the_merged_weights(data: dict[str, Path], bert: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    for share in (0.5, 1.0):
        train(data["groups"], bert, tmp_path / str(share), with_(SETTINGS, lora=4, interpolate=share, epochs=0.5))
    start, half, end = (weights(folder) for folder in (bert, tmp_path / "0.5", tmp_path / "1.0"))
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(start[name], end[name])
    for name in start:
        torch.testing.assert_close(half[name], torch.lerp(start[name], end[name], 0.5))


@pytest.mark.parametrize(("name", "match"), [("wandbb", "did you mean 'wandb'"), ("mlflow", "pip install mlflow")])
def test_a_tracker_that_cannot_be_used_is_refused(
    name: str, match: str, data: dict[str, Path], bert: Path, tmp_path: Path
) -> None:
    if name in sys.modules or importlib.util.find_spec(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(UserError, match=match):
        train(data["groups"], bert, tmp_path / "model", with_(SETTINGS, report_to=("tensorboard", name)))


@pytest.mark.parametrize("name", ["bert", "xlmr"])
def test_adapters_are_trained_and_merged(
    name: str, data: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("peft")
    student = request.getfixturevalue(name)
    result = train(data["groups"], student, tmp_path / "model", with_(SETTINGS, lora=4))
    assert result.agreement_after > result.agreement_before
    before, after = weights(student), weights(tmp_path / "model")
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any("query.weight" in key for key in changed)
    assert any(key.startswith("classifier") for key in changed)
    assert not any("embeddings" in key or "LayerNorm" in key for key in changed)
    change = (after[next(key for key in changed if "query.weight" in key)]).double()
    change -= before[next(key for key in changed if "query.weight" in key)].double()
    assert torch.linalg.matrix_rank(change, atol=1e-5) <= 4


@pytest.mark.parametrize(
    ("width", "epochs", "rate"),
    [(32, 2, 1e-4), (512, 1.1, 1e-4), (32, 1, 2e-4), (512, 0.5, 2e-4), (768, 1, 2e-5), (1024, 2, 2e-5)],
)
def test_width_and_epochs_decide_the_learning_rate(
    width: int, epochs: float, rate: float, bert: Path, tmp_path: Path
) -> None:
    config = json.loads((bert / "config.json").read_text()) | {"hidden_size": width}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert settled(tmp_path, with_(SETTINGS, learning_rate="auto", epochs=epochs)).learning_rate == rate
    assert settled(tmp_path, with_(SETTINGS, learning_rate=3e-4, epochs=epochs)).learning_rate == 3e-4


def test_gradient_checkpointing_gives_the_same_model(data: dict[str, Path], bert: Path, tmp_path: Path) -> None:
    train(data["groups"], bert, tmp_path / "plain", with_(SETTINGS, epochs=0.3))
    train(data["groups"], bert, tmp_path / "again", with_(SETTINGS, epochs=0.3, gradient_checkpointing=True))
    for name, expected in weights(tmp_path / "plain").items():
        torch.testing.assert_close(weights(tmp_path / "again")[name], expected, rtol=1e-4, atol=1e-6)


def test_labels_teach_where_the_recipe_says_so(data: dict[str, Path], bert: Path, tmp_path: Path) -> None:
    settings = with_(SETTINGS, loss={"margin_mse": 1.0, "bce": 1.0})
    with pytest.raises(UserError, match="bce needs labels"):
        train(data["groups"], bert, tmp_path / "model", settings)
    write_training_groups(
        tmp_path / "labelled.jsonl", (replace(g, labels=tuple(int(s > 1) for s in g.scores)) for g in taught())
    )
    train(tmp_path / "labelled.jsonl", bert, tmp_path / "model", settings)
    groups = [tiny.group(g.query, *g.passages) for g in taught()]
    scores = np.concatenate(Reranker(tmp_path / "model", max_length=48, dtype="float32", device="cpu").score(groups))
    positive = np.concatenate([np.array(g.scores) > 1 for g in taught()])
    assert np.mean((scores > 0) == positive) > 0.75  # the level that margins alone do not teach


@pytest.mark.parametrize(
    "change",
    [
        {"accumulation": 2},
        {"batch_size": 32},
        {"loss": {}},
        {"mode": "triplets", "lora": 4},
        {"mode": "triplets", "queries_per_step": 16},
        {"validation": 0.0, "patience": 1},
    ],
)
def test_settings_that_do_not_go_together_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"mode|validation|no loss"):
        TrainSettings(**change)


def test_logs_for_tensorboard_are_kept_beside_a_run(data: dict[str, Path], bert: Path, tmp_path: Path) -> None:
    train(data["groups"], bert, tmp_path / "model", SETTINGS, work=tmp_path / "work")
    (file,) = (tmp_path / "work/tensorboard").iterdir()
    assert b"train/margin_correlation" in file.read_bytes()
    assert not list((tmp_path / "work").glob("checkpoint-*"))
    assert list((tmp_path / "work/tokens").glob("*.arrow"))


# ---- guards within a step


def broken(monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    """Scores of a query that become infinite on the way."""
    rows = dataset.training_rows

    def spoilt(groups: Any, *more: Any) -> Any:
        kept = list(groups)
        for group, row in zip(kept, rows(kept, *more), strict=True):
            if query in (group.query, "all"):
                row["scores"][0] = math.inf
            yield row

    monkeypatch.setattr(dataset, "training_rows", spoilt)


def test_a_group_whose_gradient_is_not_finite_is_named_and_the_rest_is_taught(
    data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken(monkeypatch, "query 7")
    result = train(data["groups"], bert, tmp_path / "model", with_(SETTINGS, validation=0.0, queries_per_step=2, epochs=4))
    assert result.skipped == 4
    said = capfd.readouterr().err
    assert "not finite: the group of the query 'query 7" in said
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "model").values())
    assert json.loads((tmp_path / "model/distilrank.json").read_text())["result"]["skipped"] == 4


def test_a_skipped_step_is_counted_and_changes_nothing_after_a_kill(
    data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, "query 7")
    settings = with_(SETTINGS, queries_per_step=10, epochs=4, dropout=0.2, validation=0.0)
    result = train(data["groups"], bert, tmp_path / "model", settings)
    assert result.skipped == 4
    arguments = (data["groups"], bert, tmp_path / "again", settings)
    killed(monkeypatch, "on_step_end", int(0.6 * result.steps), *arguments)
    assert train(*arguments).skipped == 4
    assert same(tmp_path / "model", tmp_path / "again")


def test_a_checkpoint_is_written_with_a_log_of_its_last_steps(
    data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def seldom(*given: Any) -> Any:
        arguments = made(*given)
        arguments.logging_steps = 1_000
        return arguments

    made = learn._arguments
    monkeypatch.setattr(learn, "_arguments", seldom)
    broken(monkeypatch, "query 7")
    result = train(data["groups"], bert, tmp_path / "model", with_(SETTINGS, validation=0.0, epochs=1))
    assert result.skipped == 1
    assert "the group of the query 'query 7" in capfd.readouterr().err
    record = json.loads((tmp_path / "model/distilrank.json").read_text())
    assert [entry["step"] for entry in record["loss"]] == [4, 8, 12, 15]
    assert result.steps == 15


def test_a_training_in_which_nothing_is_finite_ends(
    data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, "all")
    with pytest.raises(UserError, match=r"no step gives finite gradients.*the group of the query"):
        train(data["groups"], bert, tmp_path / "model", with_(SETTINGS, validation=0.0))
    assert not (tmp_path / "model").exists()


def test_a_step_that_runs_out_of_memory_is_made_in_smaller_pieces(
    data: dict[str, Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    forward = GroupLoss.forward
    sizes: list[int] = []

    def small(self: Any, piece: Any, units: Any) -> Any:
        tokens = piece["inputs"]["input_ids"].numel()
        loss = forward(self, piece, units)
        if tokens > 200:
            loss.backward()  # what is there of a gradient must not be counted twice
            raise torch.OutOfMemoryError
        sizes.append(tokens)
        return loss

    train(data["groups"], bert, tmp_path / "plain", with_(SETTINGS, epochs=0.3, dropout=0.0))
    monkeypatch.setattr(GroupLoss, "forward", small)
    train(data["groups"], bert, tmp_path / "model", with_(SETTINGS, epochs=0.3, dropout=0.0))
    assert "out of memory" in capfd.readouterr().err
    assert max(sizes) <= 200
    # Adam makes whole steps of gradients that are nothing but rounding, so losses are compared and not weights.
    curves = [json.loads((tmp_path / name / "distilrank.json").read_text())["loss"] for name in ("plain", "model")]
    for plain, pieces in zip(*curves, strict=True):
        assert pieces == pytest.approx(plain, rel=1e-3)
    monkeypatch.setattr(GroupLoss, "forward", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError))
    with pytest.raises(UserError, match="out of memory with the 4 passages of a single query"):
        train(data["groups"], bert, tmp_path / "none", with_(SETTINGS, epochs=0.3, dropout=0.0))


def test_a_validation_that_runs_out_of_memory_is_made_in_smaller_batches(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(config: Any, encoded: Any, pad: int, budget: int) -> Iterator[Any]:
        for rows, inputs in batches(config, encoded, pad, budget):
            if inputs["input_ids"].numel() > room:
                raise torch.OutOfMemoryError
            sizes.append(len(rows))
            yield rows, inputs

    room, sizes, batches = 300, list[int](), classifier.batches_of
    model = open_student(bert, SETTINGS, "cpu")
    selector = Agreement(list(taught(20)), model.tokenizer, 48, "float32")
    expected = selector.scores(model)
    monkeypatch.setattr(classifier, "batches_of", short)
    np.testing.assert_allclose(np.stack(selector.scores(model)), np.stack(expected), atol=1e-5)
    first, sizes = len(sizes), []
    selector.scores(model)
    assert len(sizes) == first  # it is known by now what fits
    room = 3
    with pytest.raises(UserError, match="out of memory with a single validation pair"):
        selector.scores(model)
