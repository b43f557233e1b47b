"""What sentence-transformers' trainer is given: our step, our optimiser, and weights that are saved alone."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.cross_encoder import CrossEncoderTrainer

from distilrank.errors import UserError
from distilrank.progress import say
from distilrank.students.batches import BalancedBatches, Shares
from distilrank.students.dataset import IDS
from distilrank.students.losses import WeightedSum
from distilrank.students.losses.within import sizes, sums
from distilrank.students.merge import RunningAverage
from distilrank.students.optimiser import GuardedAdamW, inner
from distilrank.students.ranks import ALONE, Ranks

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
    skipped, and its group named at the next log; logs say how margins go with the teacher's. Among several processes each
    computes a share of every step, and all of this is said and decided for the whole step.
    """

    loss: GroupLoss
    optimizer: Any
    evaluator: Any

    def __init__(
        self,
        *,
        tokens: Any,
        alike: bool = False,
        average: RunningAverage | None = None,
        ranks: Ranks = ALONE,
        **settings: Any,
    ) -> None:
        """`tokens` of each row of the data set, int [rows]; `alike` where steps are to cost alike."""
        self.tokens, self.alike, self.average, self.ranks = tokens, alike, average, ranks
        super().__init__(**settings)
        # Gradients are added up by `summed`: no DDP, whose reducer waits for a forward that our loss goes around, and which
        # the library makes for a single process of torchrun, too.
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        self.trained: list[Any] = []
        """The parameters that have gradients, found at the first step."""
        self.recent: list[list[int]] = []
        """The numbers of the rows of each step since the last log."""
        self.in_a_row = 0

    def get_batch_sampler(self, dataset: Any, batch_size: int, *more: Any, seed: int = 0, **named: Any) -> Any:
        """Steps that cost alike, or the library's own random ones."""
        if self.alike:
            batches: Any = BalancedBatches(self.tokens, batch_size, seed)
        else:
            batches = super().get_batch_sampler(dataset, batch_size, *more, seed=seed, **named)
        return Shares(batches, self.tokens, self.ranks.count) if self.ranks.count > 1 else batches

    def get_train_dataloader(self) -> Any:
        """The library's; among several processes one that tells its sampler the epoch after batches were skipped, too."""
        loader = super().get_train_dataloader()
        if self.ranks.count > 1:
            loader.set_sampler(loader.batch_sampler.batch_sampler.sampler)
        return loader

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
        self.remember(step)
        units = self.units(step)
        while True:
            loss = None
            # The error is held no longer: with it goes the memory of the frames that it came through.
            with suppress(torch.OutOfMemoryError):
                loss = self.computed(step, units)
            if self.ranks.all(loss is not None):
                return self.summed(loss)
            self.optimizer.zero_grad(set_to_none=True)
            self.loss.moments.copy_(moments)
            torch.cuda.empty_cache()
            step = self._smaller(step, loss is None)

    def remember(self, step: dict[str, Any]) -> None:
        """Which rows a step is of, in case its gradient is not finite: a log may be thousands of steps away."""
        self.recent.append([row["number"] for row in step["rows"].of])

    def units(self, step: dict[str, Any]) -> list[Any]:
        """What the losses of a step divide by: the units of all processes."""
        units = torch.stack([unit.to(self.args.device, non_blocking=True) for unit in step["units"]])
        self.ranks.add_up([units])
        return list(units.unbind())

    def computed(self, step: dict[str, Any], units: list[Any]) -> Any:
        """The loss of this process's share of a step, its gradients added up over the pieces."""
        total = torch.zeros((), device=self.args.device)
        for piece in step["pieces"]:
            loss = self.loss(self._prepare_inputs(piece), units)
            loss.backward()
            total = total + loss.detach()
        return total

    def summed(self, loss: Any) -> Any:
        """The loss of a step, and its gradients, over all processes; 0 where it is not finite, since it is then skipped."""
        if self.ranks.count > 1:
            parameters = inner(self.optimizer).parameters()
            if not self.trained:
                # A process without a group in this step has none, but some process has.
                without = self.ranks.least(*(p.grad is None for p in parameters))
                self.trained = [p for p, none in zip(parameters, without, strict=True) if not none]
            for parameter in self.trained:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            self.ranks.add_up([loss, *(parameter.grad for parameter in self.trained)])
        return torch.where(torch.isfinite(loss), loss, 0.0)

    def _smaller(self, step: dict[str, Any], short: bool) -> dict[str, Any]:
        """The same step in more pieces on the processes that are short of memory, and on all those to come as small."""
        collate, rows = self.data_collator, step["rows"].of
        collate.size = None
        wanted = self._budget(step) if short else collate.budget
        budget, most = self.ranks.least(wanted, -max((len(row["scores"]) for row in rows if short), default=0))
        if not budget:
            raise UserError(
                f"out of memory with the {-most} passages of a single query: set gradient_checkpointing, mine fewer "
                "passages, or lower max_length"
            )
        collate.budget = budget
        say(f"  out of memory: steps are now computed in pieces of {budget:,} tokens")
        smaller: dict[str, Any] = collate(rows)["step"]
        return smaller

    def _budget(self, step: dict[str, Any]) -> int:
        """The largest number of tokens, halved and halved again, that gives a step more pieces; 0 where none does."""
        collate, rows = self.data_collator, step["rows"].of
        while len(collate(rows)["step"]["pieces"]) <= len(step["pieces"]):
            if collate.budget <= 1:
                return 0
            collate.budget //= 2
        return int(collate.budget)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The library's log with the margins' correlation; names what was skipped since the last one."""
        if "loss" in logs:
            self.ranks.add_up([self.loss.moments])
            logs["margin_correlation"] = self.loss.margin_correlation()
            if count := inner(self.optimizer).skipped_since():
                logs["skipped"] = count
                device = [torch.cuda.current_device()] if self.args.device.type == "cuda" else []
                with torch.random.fork_rng(device):  # a training that was killed in between draws the same numbers
                    self._explain(count)
            self.recent = []
        super().log(logs, start_time)

    def _explain(self, count: int) -> None:
        """Say whose gradient is not finite. Raises `UserError` when no step is left that is."""
        culprit = next(filter(None, map(self._not_finite, [number for rows in self.recent for number in rows])), None)
        culprit = next(filter(None, self.ranks.gathered(culprit)), None)
        self.loss.moments.zero_()
        self.in_a_row = self.in_a_row + count if count == len(self.recent) else 0
        reason = culprit or "none of its queries alone is at fault"
        if self.in_a_row >= SKIPPED_IN_A_ROW:
            raise UserError(f"no step gives finite gradients any more ({reason}): lower the learning rate")
        say(f"  {count} of {len(self.recent)} steps skipped, their gradients were not finite: {reason}")

    def _not_finite(self, number: int) -> str | None:
        row = self.train_dataset[number]
        step = self.data_collator([row])["step"]
        self.optimizer.zero_grad(set_to_none=True)
        self.computed(step, [unit.to(self.args.device) for unit in step["units"]])
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

    def evaluation_loop(self, *arguments: Any, **settings: Any) -> Any:
        """Every process scores its share of the validation queries; the library would have the first one score all."""
        selector, self.evaluator = self.evaluator, None
        try:
            output = super().evaluation_loop(*arguments, **settings)
        finally:
            self.evaluator = selector
        if selector:
            output.metrics.update({f"eval_{name}": value for name, value in selector(self.model).items()})
        return output

    def _load_best_model(self) -> None:
        """From where the work folder lies now; the library goes on with the last weights where it cannot read the best."""
        self._load_from_checkpoint(str(Path(self.args.output_dir) / Path(self.state.best_model_checkpoint).name))

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
        body, device = self.model[0].model, self.args.device
        # Among several processes torch calls a CPU cpu:0, which safetensors does not know.
        where = "cpu" if device.type == "cpu" else str(device)
        body.load_state_dict(load_file(Path(checkpoint_path) / WEIGHTS, device=where))
        if self.average:
            self.average.load(Path(checkpoint_path))
