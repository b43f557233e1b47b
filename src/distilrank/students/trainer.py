"""What sentence-transformers' trainer is given: our step, our selection, and checkpoints that survive kill -9."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint
from sentence_transformers.base.evaluation import BaseEvaluator
from transformers import TrainerCallback

from distilrank.engines.batches import split_like
from distilrank.engines.classifier import encode_pairs, score_encoded
from distilrank.metrics import agreement
from distilrank.records import TrainingGroup
from distilrank.shards import write_text

WHOLE = "whole"
"""A file in a checkpoint that is written last: a checkpoint without it was cut off and is deleted."""

Loss = Callable[..., Any]


class GroupLoss(torch.nn.Module):  # type: ignore[misc]
    """Forwards each passage of a step once and hands logits, scores and groups to a loss of ours.

    It holds the model because sentence-transformers' trainer optimises the parameters of its loss.
    """

    def __init__(self, model: Any, loss: Loss, dtype: str = "float32") -> None:
        super().__init__()
        self.model, self.loss, self.dtype = model, loss, dtype

    def forward(self, features: list[dict[str, Any]], labels: None = None, prompt: None = None, task: None = None) -> Any:
        step = features[0]
        logits = torch.cat([self.logits(chunk, len(step["chunks"]) > 1) for chunk in step["chunks"]])[step["order"]]
        return self.loss(logits, step["teacher"], step["group"], step.get("pairs"))

    def logits(self, chunk: dict[str, Any], many: bool) -> Any:
        """Logits of a chunk. Of many chunks, activations are made again for the backward pass, so that memory holds one."""
        if many:
            return torch.utils.checkpoint.checkpoint(self._scores, chunk, use_reentrant=False)
        return self._scores(chunk)

    def _scores(self, chunk: dict[str, Any]) -> Any:
        # The trainer's autocast is on the outer model's forward, which this goes around.
        with torch.autocast(chunk["input_ids"].device.type, dtype=torch.bfloat16, enabled=self.dtype == "bfloat16"):
            return self.model[0].model(**chunk).logits.view(-1)


class Agreement(BaseEvaluator):  # type: ignore[misc]
    """nDCG@10 of the student's order against the teacher's scores on the validation queries."""

    def __init__(self, groups: Sequence[TrainingGroup], tokenizer: Any, max_length: int, dtype: str) -> None:
        super().__init__()
        self.primary_metric = "agreement"
        queries = [group.query for group in groups for _ in group.passages]
        passages = [passage for group in groups for passage in group.passages]
        self.encoded = encode_pairs(tokenizer, queries, passages, max_length)
        self.pad, self.dtype = tokenizer.pad_token_id or 0, dtype
        self.teacher = [np.asarray(group.scores) for group in groups]

    def scores(self, model: Any) -> list[np.ndarray]:
        """The student's raw logits, float32 [passages] a group."""
        body = getattr(model, "module", model)[0].model
        was_training = body.training
        body.eval()
        flat = score_encoded(body, self.encoded, self.pad, self.dtype)
        body.train(was_training)
        return split_like(flat, self.teacher)

    def __call__(self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1) -> dict[str, float]:
        return {self.primary_metric: float(np.nanmean(agreement(self.teacher, self.scores(model))))}


class Steps(TrainerCallback):  # type: ignore[misc]
    """Tells the progress, and seals each checkpoint once all of it is on disk."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.advance(1)

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for file in folder.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        write_text(folder / WHOLE, "")


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest sealed checkpoint of a training folder; the unsealed ones are deleted."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for checkpoint in found:
        if not (checkpoint / WHOLE).exists():
            shutil.rmtree(checkpoint)
    whole = [checkpoint for checkpoint in found if checkpoint.exists()]
    return whole[-1] if whole else None
