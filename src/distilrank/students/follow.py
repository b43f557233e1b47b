"""What is told along a training, and kept: its lines, checkpoints that survive kill -9, and its end before the end."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from distilrank.progress import Noted, say
from distilrank.shards import write_text
from distilrank.students.ranks import ALONE, Ranks

WHOLE = "whole"
"""A file in a checkpoint that is written last: a checkpoint without it was cut off and is deleted."""
LEAST_ASIDE = 2.0
"""Seconds beside the steps from which on they are told."""


class Steps(TrainerCallback):  # type: ignore[misc]
    """Tells the progress, seals each checkpoint once all of it is on disk, and keeps the newest and the best."""

    def __init__(
        self,
        advance: Noted,
        watch: Callable[[int, float], None] | None = None,
        ranks: Ranks = ALONE,
        pairs: float = 0.0,
    ) -> None:
        """`watch` is called at each validation with the step and the agreement; `pairs` are those of a step, on average."""
        self.advance, self.watch, self.ranks, self.pairs = advance, watch, ranks, pairs

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.since: tuple[int, float] | None = None
        self.told, self.rate = state.global_step, 0.0
        self.began = self.waited = time.monotonic()
        self.aside = 0.0
        if self.ranks.rank:  # each process drops out other units; the sampler has been made, the same on all
            torch.manual_seed(args.seed + self.ranks.rank)

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if not self.since:
            self.since = state.global_step, time.monotonic()
            self.aside += self.since[1] - self.waited

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.advance(1)
        # A training may end at a checkpoint, or go on from it: what was lost or skipped since the last log is not in it.
        control.should_log |= control.should_save

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **more: Any) -> None:
        if "loss" in logs and self.since:  # which was waited for: a step's end is only its launch
            (step, began), self.waited = self.since, time.monotonic()
            self.rate = self.pairs * (state.global_step - step) / max(self.waited - began, 1e-9)
            self.advance(0, f"loss {logs['loss']:.3f}")

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **more: Any) -> None:
        agreement = metrics.get("eval_agreement")
        self._tell(state, agreement)
        if self.watch and agreement is not None:
            self.watch(state.global_step, agreement)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        now = time.monotonic()
        self.aside += now - self.waited
        if self.aside >= LEAST_ASIDE:
            say(f"  {self.aside:,.0f} of {now - self.began:,.0f} s of training were start, validations and checkpoints")

    def _tell(self, state: Any, agreement: float | None) -> None:
        """One line of the steps since the last one: a log may be of a single step, whose loss says little."""
        names = {"loss": "loss", "margin_correlation": "margin correlation"}
        told = {shown: _mean(state.log_history, name, self.told) for name, shown in names.items()} | {"agreement": agreement}
        numbers = "".join(f"{name} {value:.3f}, " for name, value in told.items() if value is not None)
        say(f"  step {state.global_step:,} of {state.max_steps:,}: {numbers}{self.rate:,.0f} pairs a second")
        self.told, self.since = state.global_step, None  # neither validation nor a checkpoint is timed

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if args.eval_strategy == "no":
            self._tell(state, None)
        self.ranks.wait()  # each process has written its random state
        if self.ranks.rank:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for file in folder.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        write_text(folder / WHOLE, "")
        # Not before: until it is whole, a killed training goes on from an older one.
        kept = {folder.name, Path(state.best_model_checkpoint or folder).name}
        for older in folder.parent.glob("checkpoint-*"):
            if older.name not in kept:
                forget(older)


def _mean(history: list[dict[str, Any]], name: str, step: int) -> float | None:
    """Of what was logged after a step, each log by the steps that it is of; none where nothing was."""
    logs = [(0, math.nan), *((entry["step"], entry[name]) for entry in history if name in entry)]
    found = [(at - last, value) for (last, _), (at, value) in pairwise(logs) if at > step and math.isfinite(value)]
    return sum(count * value for count, value in found) / sum(count for count, _ in found) if found else None


class Patience(TrainerCallback):  # type: ignore[misc]
    """Ends a training after so many validations without a better one: counted in the log, which a resume has, too."""

    def __init__(self, patience: int) -> None:
        self.patience, self.ended = patience, False

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.on_evaluate(args, state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        seen = [entry["eval_agreement"] for entry in state.log_history if "eval_agreement" in entry]
        if seen and len(seen) - 1 - seen.index(max(seen)) >= self.patience:
            control.should_training_stop = True
            self.ended = True

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if self.ended:  # told here, after the last validation's own line
            say(f"  ends here: {self.patience} validation{'s' * (self.patience != 1)} without a better one (patience)")


def forget(checkpoint: Path) -> None:
    """Delete a checkpoint, its seal first: what a kill leaves of it is not taken for whole."""
    (checkpoint / WHOLE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest sealed checkpoint of a training folder; the unsealed ones are deleted."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for checkpoint in found:
        if not (checkpoint / WHOLE).exists():
            shutil.rmtree(checkpoint)
    whole = [checkpoint for checkpoint in found if checkpoint.exists()]
    return whole[-1] if whole else None
