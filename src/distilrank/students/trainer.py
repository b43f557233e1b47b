"""What sentence-transformers' trainer is given: our step, our optimiser, and checkpoints that survive kill -9."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.cross_encoder import CrossEncoderTrainer
from transformers import TrainerCallback

from distilrank.errors import UserError
from distilrank.progress import say
from distilrank.shards import write_text
from distilrank.students.batches import BalancedBatches
from distilrank.students.dataset import IDS
from distilrank.students.losses import WeightedSum
from distilrank.students.losses.within import sizes, sums
from distilrank.students.merge import RunningAverage
from distilrank.students.optimiser import GuardedAdamW, inner

WHOLE = "whole"
"""A file in a checkpoint that is written last: a checkpoint without it was cut off and is deleted."""
WEIGHTS = "model.safetensors"
CLIP = 1.0
SKIPPED_IN_A_ROW = 10
"""So many steps without a finite gradient end a training."""


class GroupLoss(torch.nn.Module):  # type: ignore[misc]
    """Forwards the passages of a piece once and hands logits, scores and groups to a loss of ours.

    It holds the model because sentence-transformers' trainer optimises the parameters of its loss, and sums up how the
    student's margins go with the teacher's.
    """

    def __init__(self, model: Any, loss: WeightedSum, dtype: str = "float32") -> None:
        super().__init__()
        self.model, self.loss, self.dtype = model, loss, dtype
        self.moments = torch.zeros(3, device=model.device)
        """Sums over margins: student * teacher, student^2, teacher^2."""

    def forward(self, piece: dict[str, Any], units: list[Any]) -> Any:
        # The trainer's autocast is on the outer model's forward, which this goes around.
        with torch.autocast(self.moments.device.type, dtype=torch.bfloat16, enabled=self.dtype == "bfloat16"):
            logits = self.model[0].model(**piece["inputs"]).logits.view(-1)
        targets = [piece.get(name) for name in ("teacher", "group", "pairs", "labels")]
        self._follow(logits.detach().float(), *targets[:2])
        return self.loss(logits, *targets, units=units)

    def _follow(self, student: Any, teacher: Any, group: Any) -> None:
        # The sum over a group's margins of (s_i - s_j)(t_i - t_j) is n * sum of centred s * centred t.
        count = sizes(group)
        student, teacher = (values - sums(values, group) / count for values in (student, teacher))
        moments = torch.stack([(count * a * b).sum() for a, b in ((student, teacher), (student,) * 2, (teacher,) * 2)])
        self.moments.add_(torch.where(torch.isfinite(moments), moments, 0.0))

    def margin_correlation(self) -> float:
        """Cosine of the student's and the teacher's margins since this was last asked; waits for the device."""
        both, student, teacher = self.moments.tolist()
        self.moments.zero_()
        return float(both / (student * teacher) ** 0.5) if student * teacher > 0 else float("nan")


class GroupTrainer(CrossEncoderTrainer):  # type: ignore[misc]
    """sentence-transformers' trainer with steps of whole groups. `max_grad_norm` of its arguments must be 0.

    Beside the library's: a step is computed in pieces that fit into memory; a step with a gradient that is not finite is
    skipped, and its group named at the next log; logs say how margins go with the teacher's.
    """

    loss: GroupLoss
    optimizer: Any

    def __init__(self, *, tokens: Any = None, average: RunningAverage | None = None, **settings: Any) -> None:
        """`tokens` of each row of the data set, int [rows], where steps are to cost alike."""
        self.tokens, self.average = tokens, average
        super().__init__(**settings)
        self.recent: list[list[dict[str, Any]]] = []
        """The rows of each step since the last log."""
        self.skipped = self.in_a_row = 0

    def get_batch_sampler(self, dataset: Any, batch_size: int, *more: Any, seed: int = 0, **named: Any) -> Any:
        """Steps that cost alike, or the library's own random ones."""
        if self.tokens is not None:
            return BalancedBatches(self.tokens, batch_size, seed)
        return super().get_batch_sampler(dataset, batch_size, *more, seed=seed, **named)

    def create_optimizer(self, model: Any = None) -> Any:
        """Fused AdamW on what is to be trained, without decay where the library puts none."""
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.model))
            named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
            groups = [
                {"params": [p for name, p in named if (name in decayed) == decay], "weight_decay": weight}
                for decay, weight in ((True, self.args.weight_decay), (False, 0.0))
            ]
            kept = [group for group in groups if group["params"]]
            self.optimizer = GuardedAdamW(kept, self.args.learning_rate, CLIP, self.args.device)
        return self.optimizer

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """Forward and backward of a step, in smaller pieces when memory runs out."""
        model.train()
        step, moments = inputs["step"], self.loss.moments.clone()
        self.recent.append(step["rows"].of)
        while True:
            try:
                return self.computed(step)
            except torch.OutOfMemoryError:
                pass  # what is raised holds the memory of the frames that it came through
            self.optimizer.zero_grad(set_to_none=True)
            self.loss.moments.copy_(moments)
            torch.cuda.empty_cache()
            step = self._smaller(step)

    def computed(self, step: dict[str, Any]) -> Any:
        """The loss of a step, its gradients added up over the pieces; 0 where it is not finite, since it is then skipped."""
        device = self.args.device
        units = [unit.to(device, non_blocking=True) for unit in step["units"]]
        total = torch.zeros((), device=device)
        for piece in step["pieces"]:
            loss = self.loss(self._prepare_inputs(piece), units)
            loss.backward()
            total = total + loss.detach()
        return torch.where(torch.isfinite(total), total, 0.0)

    def _smaller(self, step: dict[str, Any]) -> dict[str, Any]:
        """The same step in more pieces, and those to come in pieces as small."""
        collate, rows = self.data_collator, step["rows"].of
        collate.size = None
        smaller: dict[str, Any] = collate(rows)["step"]
        while len(smaller["pieces"]) <= len(step["pieces"]):
            if collate.budget <= 1:
                most = max(len(row["scores"]) for row in rows)
                raise UserError(
                    f"out of memory with the {most} passages of a single query: set gradient_checkpointing, mine fewer "
                    "passages, or lower max_length"
                )
            collate.budget //= 2
            smaller = collate(rows)["step"]
        say(f"  out of memory: steps are now computed in pieces of {collate.budget:,} tokens")
        return smaller

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The library's log with the margins' correlation; names what was skipped since the last one."""
        if "loss" in logs:
            logs["margin_correlation"] = self.loss.margin_correlation()
            if count := inner(self.optimizer).skipped_since():
                self._explain(count)
            self.recent = []
        super().log(logs, start_time)

    def _explain(self, count: int) -> None:
        """Say whose gradient is not finite. Raises `UserError` when no step is left that is."""
        culprit = next(filter(None, map(self._not_finite, [row for rows in self.recent for row in rows])), None)
        self.loss.moments.zero_()
        self.skipped += count
        self.in_a_row = self.in_a_row + count if count == len(self.recent) else 0
        reason = culprit or "none of its queries alone is at fault"
        if self.in_a_row >= SKIPPED_IN_A_ROW:
            raise UserError(f"no step gives finite gradients any more ({reason}): lower the learning rate")
        say(f"  {count} of {len(self.recent)} steps skipped, their gradients were not finite: {reason}")

    def _not_finite(self, row: dict[str, Any]) -> str | None:
        step = self.data_collator([row])["step"]
        self.optimizer.zero_grad(set_to_none=True)
        self.computed(step)
        norm = torch.nn.utils.get_total_norm([p.grad for p in inner(self.optimizer).parameters() if p.grad is not None])
        self.optimizer.zero_grad(set_to_none=True)
        if torch.isfinite(norm):
            return None
        start = self.model.tokenizer.decode(row[f"shared_{IDS}"], skip_special_tokens=True)
        return f"the group of the query {start[:80]!r}"

    def evaluate(self, *arguments: Any, **settings: Any) -> Any:
        """Of the running average, where one is kept: it is what will be written."""
        with self.average.in_place() if self.average else nullcontext():
            return super().evaluate(*arguments, **settings)

    def _get_learning_rate(self) -> float:
        """The rate as a number, from the schedule: reading it off the device would wait for the step."""
        factor = self.lr_scheduler.lr_lambdas[0](self.state.global_step)
        return float(self.args.learning_rate * factor)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The weights alone: the rest of a checkpoint's folder would be written anew each time, model card included."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.model[0].model.state_dict(), folder / WEIGHTS)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        """Weights into the model as it stands: its embedding table may be compact, its layers may have adapters."""
        body = self.model[0].model
        body.load_state_dict(load_file(Path(checkpoint_path) / WEIGHTS, device=str(self.args.device)))
        if self.average:
            self.average.load(Path(checkpoint_path))


class Steps(TrainerCallback):  # type: ignore[misc]
    """Tells the progress, and seals each checkpoint once all of it is on disk."""

    def __init__(self, advance: Callable[[int], None], watch: Callable[[int, float], None] | None = None) -> None:
        """`watch` is called at each validation with the step and the agreement."""
        self.advance, self.watch = advance, watch

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.advance(1)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **more: Any) -> None:
        last: dict[str, Any] = next((entry for entry in reversed(state.log_history) if "loss" in entry), {})
        told = {"loss": last.get("loss"), "margins with the teacher's": last.get("margin_correlation")}
        told["agreement"] = metrics.get("eval_agreement")
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in told.items() if value is not None)
        say(f"  step {state.global_step:,} of {state.max_steps:,}: {numbers}")
        if self.watch and told["agreement"] is not None:
            self.watch(state.global_step, told["agreement"])

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
