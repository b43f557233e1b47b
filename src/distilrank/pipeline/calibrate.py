"""The rates of this machine, measured in about 30 seconds on a recipe's own models and texts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from distilrank.progress import say
from distilrank.records import Group, TrainingGroup

if TYPE_CHECKING:
    from distilrank.pipeline.estimate import Estimator
    from distilrank.pipeline.hardware import Hardware

SECONDS = 10.0
"""For all teachers, for the student's scoring, and for training."""
STEPS = 400


def calibrated(found: Estimator, members: Sequence[tuple[Any, Any, Path | None]], on: Hardware) -> Hardware:
    """The hardware with the rates measured here; what could not be measured keeps its rate, and that is noted."""
    from distilrank.pipeline.hardware import hardware, with_rates

    here = hardware(None) if on.device != "cpu" else on
    rates: dict[str, float] = {}
    for member, teacher, folder in members:
        if teacher is None or member.kind == "http" or not found.folder(member.model)[1] or not found.train.sample:
            found.notes.append(f"not calibrated: {member.source}: its weights or the data are not here")
            continue
        kind, rate = _teacher(found, member, teacher, folder, SECONDS / len(members))
        rates[kind] = rate
    student, weights = found.folder(found.recipe.student.model)
    if student and weights and found.train.sample:
        rates["train"] = _training(found, student)
        rates.setdefault("encoder", _scoring(found, student))
    else:
        found.notes.append(f"not calibrated: {found.recipe.student.model}: its weights or the data are not here")
    return with_rates(here, rates, "measured here") if rates else on


def _teacher(found: Estimator, member: Any, teacher: Any, folder: Path | None, seconds: float) -> tuple[str, float]:
    """The kind of work of a teacher, and its FLOP/s from text to scores."""
    groups = found.train.sample
    if teacher.shares == "passage":
        alone = [Group(g.query_id, g.query, (passage,)) for g in groups for passage in g.passages]
        groups = sorted(alone, key=lambda group: group.passages[0].text)
    size = max(1, min(128, teacher.portion) // max(1, len(groups[0].passages)))
    pieces = [groups[start : start + size] for start in range(0, len(groups), size)]
    teacher.score(pieces[0][:2])  # loads the weights
    asked: list[Group] = []
    start = time.monotonic()
    for piece in pieces:
        teacher.score(piece)
        asked += piece
        if time.monotonic() - start > seconds:
            break
    took = time.monotonic() - start
    teacher.release()
    pairs = sum(len(group.passages) for group in asked)
    work = found.asked(member, teacher, folder, replace(found.train, sample=asked, pairs=pairs))
    assert work
    say(f"  {member.kind}: {pairs / took:,.1f} pairs/s, {work.flops / took / 1e12:.3f} TFLOP/s")
    return work.kind, work.flops / took


def _scoring(found: Estimator, student: Path) -> float:
    """FLOP/s of the student in scoring."""
    from distilrank.engines.classifier import Reranker
    from distilrank.pipeline.sizes import pair_tokens

    settings = found.recipe.student
    reranker = Reranker(student, max_length=settings.max_length, fresh_head=True)
    part = found.test if found.test.sample else found.train
    reranker.score(part.sample[:1])
    asked: list[Group] = []
    start = time.monotonic()
    for place in range(0, len(part.sample), 32):
        reranker.score(part.sample[place : place + 32])
        asked += part.sample[place : place + 32]
        if time.monotonic() - start > SECONDS / 2:
            break
    took, pairs = time.monotonic() - start, sum(len(group.passages) for group in asked)
    tokens = pair_tokens(replace(part, sample=asked), found.tokenizer, settings.max_length)
    flops = 2 * pairs * tokens * found.student.linear
    say(f"  student, scoring: {pairs / took:,.1f} pairs/s, {flops / took / 1e12:.3f} TFLOP/s")
    return flops / took


def _training(found: Estimator, student: Path) -> float:
    """FLOP/s of training, by the trainer itself, steps of groups, after a few steps to warm up."""
    from transformers import TrainerCallback

    from distilrank.engines.load import device_of, dtype_of
    from distilrank.engines.quiet import quiet_transformers
    from distilrank.pipeline.estimate import groups_taught
    from distilrank.pipeline.sizes import pair_tokens
    from distilrank.students import TrainSettings
    from distilrank.students.dataset import tokenised
    from distilrank.students.folder import open_student, settled
    from distilrank.students.learn import group_learner

    recipe, ends = found.recipe, []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            ends.append(time.monotonic())
            control.should_training_stop = len(ends) > 6 and ends[-1] - ends[0] > SECONDS

    left = {"batch_size", "accumulation", "bounded_scores", "validation", "patience", "evaluations", "report_to"}
    given = recipe.train.model_dump(exclude=left) | {"mode": "groups", "loss": "margin_mse", "interpolate": 1.0}
    asked = TrainSettings(**given, validation=0.0, evaluations=1, report_to=(), max_length=recipe.student.max_length)
    settings = settled(student, asked)
    device = device_of(settings.device)
    groups = [
        TrainingGroup(group.query, tuple(passage.text for passage in drawn), tuple(map(float, range(len(drawn)))))
        for group in found.train.sample
        if len(drawn := group.passages[: groups_taught(len(group.passages), recipe.mine)[1]]) > 1
    ]
    with TemporaryDirectory() as folder, quiet_transformers():
        data = tokenised(
            groups, found.tokenizer, settings.max_length, Path(folder) / "tokens", "calibrate", lambda done: None
        )
        settings = settings.model_copy(update={"epochs": max(1.0, STEPS * settings.queries_per_step / len(groups))})
        model = open_student(student, settings, device)
        learner = group_learner(model, data, None, settings, Path(folder), device, dtype_of(settings.precision, device))
        for callback in list(learner.trainer.callback_handler.callbacks):
            if type(callback).__name__ == "PrinterCallback":
                learner.trainer.remove_callback(callback)
        learner.trainer.add_callback(Clock())
        learner.trainer.train()
    warm = min(5, len(ends) // 2)
    pairs = settings.queries_per_step * sum(len(group.passages) for group in groups) / len(groups)
    tokens = pair_tokens(found.train, found.tokenizer, settings.max_length)
    flops = 6 * pairs * tokens * found.student.linear * (len(ends) - warm) / (ends[-1] - ends[warm - 1])
    say(f"  student, training: {flops / 6 / tokens / found.student.linear:,.1f} pairs/s, {flops / 1e12:.3f} TFLOP/s")
    return float(flops)
