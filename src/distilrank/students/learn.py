"""Two ways to learn, each sentence-transformers' trainer with its data: a row a query, or the published row a triplet."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import MarginMSELoss

from distilrank.engines.flat import can_compile, compile_layers, is_flat
from distilrank.errors import UserError, did_you_mean
from distilrank.progress import say
from distilrank.students.batches import BalancedBatches, GroupCollator, Shares, StepSize, step_size
from distilrank.students.calibrate import loss_names
from distilrank.students.compact import compact, restore
from distilrank.students.dataset import Sizes, has_labels, has_pairs, sizes_of, used_tokens
from distilrank.students.follow import Patience
from distilrank.students.graph import GraphTrainer
from distilrank.students.losses import WeightedSum
from distilrank.students.merge import RunningAverage, copied, interpolate
from distilrank.students.ranks import ALONE, Ranks
from distilrank.students.trainer import GroupLoss, GroupTrainer

TOKENS_A_PIECE = {"cpu": 4_096, "cuda": 16_384}
"""A step with more tokens is forwarded in pieces, but in a graph."""
TOKENS_A_GRAPH = 65_536
MOST_SLACK = 1.5
"""Steps of a fixed size that is more than so many times the mean are padding for the most part."""
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Of the way from the start to the end of a training, from which `interpolate: auto` chooses."""


@dataclass(frozen=True)
class Learner:
    """A trainer, the pairs of a step on average, and what is to be done once it has trained; that tells the share of the way
    that was kept.
    """

    trainer: Any
    pairs: float
    finish: Callable[[], float]


def triplet_learner(
    model: Any, data: Any, selector: Any, settings: Any, work: Path, device: str, dtype: str, ranks: Ranks = ALONE
) -> Learner:
    """The published way: sentence-transformers' own trainer and loss, in which a triplet forwards both of its passages.

    `data`: the triplets of `students.dataset`. Among several processes the library's own DDP; they share a step's forwards.
    """
    if settings.accumulation % ranks.count:
        raise UserError(f"{ranks.count} processes cannot share the {settings.accumulation} forwards of a step: accumulation")
    pairs = 2.0 * settings.batch_size * settings.accumulation
    settings = settings.model_copy(update={"accumulation": settings.accumulation // ranks.count})
    arguments = _arguments(settings, -(-len(data) // ranks.count), settings.batch_size, bool(selector), work, device, dtype)
    common = {"model": model, "args": arguments, "train_dataset": data, "evaluator": selector}
    return Learner(CrossEncoderTrainer(**common, loss=MarginMSELoss(model)), pairs, lambda: 1.0)


def group_learner(
    model: Any, data: Any, selector: Any, settings: Any, work: Path, device: str, dtype: str, ranks: Ranks = ALONE
) -> Learner:
    """Our way: each passage of a query forwarded once, in steps that cost alike and are shared by the processes.

    `data`: the tokenised rows of `students.dataset`.
    """
    if settings.queries_per_step < ranks.count:
        raise UserError(f"{ranks.count} processes cannot share {settings.queries_per_step} queries a step: queries_per_step")
    body, weights = model[0].model, loss_names(settings.loss)
    if "bce" in weights and not has_labels(data):
        raise UserError("the loss bce needs labels, and no training group has any")
    sizes = sizes_of(data)
    start = None if settings.interpolate == 1 else copied(body)
    adapters = _adapted(body, settings.lora) if settings.lora else None
    ranks.same(body)
    # Weight decay moves rows of tokens that do not occur, too.
    pad = model.tokenizer.pad_token_id or 0
    if not adapters and not settings.weight_decay:
        compact(body, np.union1d(used_tokens(data), [*(selector.tokens() if selector else []), pad]))
    average = RunningAverage(body, settings.average) if settings.average else None
    arguments = _arguments(settings, len(data), settings.queries_per_step, bool(selector), work, device, dtype)
    # The optimiser clips by itself, and a look at each loss would wait for the device.
    arguments.max_grad_norm, arguments.logging_nan_inf_filter = 0.0, False
    # Ours keeps an epoch's last step: it may leave a process without a query.
    arguments.dataloader_drop_last = False
    size = _fixed_size(body, sizes, settings, device, ranks.count)
    if size:
        compile_layers(body, any_size=False)
    loss = WeightedSum(weights)
    budget = TOKENS_A_PIECE[device.split(":")[0]]
    trainer = (GraphTrainer if size else GroupTrainer)(
        model=model,
        args=arguments,
        train_dataset=data,
        evaluator=selector,
        loss=GroupLoss(model, loss, dtype),
        data_collator=GroupCollator(body.config, pad, loss, budget, margins=has_pairs(data), size=size),
        tokens=sizes.tokens,
        # Only a graph needs steps of one size; any other step is cut into pieces.
        alike=bool(size),
        average=average,
        ranks=ranks,
    )
    if average:
        trainer.add_callback(average)
    if settings.patience and selector:
        trainer.add_callback(Patience(settings.patience))

    def finish() -> float:
        if average:
            average.use()
        restore(body)
        if adapters:
            adapters.merge_and_unload()  # first, since half of each adapter is a quarter of the way
        if not start or (settings.interpolate == "auto" and not selector):
            return 1.0
        return _interpolated(body, start, settings.interpolate, lambda: float(selector(model)["agreement"]))

    return Learner(trainer, sizes.passages.mean() * min(settings.queries_per_step, len(data)), finish)


def _arguments(settings: Any, rows: int, batch: int, validated: bool, work: Path, device: str, dtype: str) -> Any:
    per_epoch = max(1, math.ceil(math.ceil(rows / batch) / settings.accumulation))
    steps = max(1, math.ceil(per_epoch * settings.epochs))
    every = max(1, math.ceil(steps / settings.evaluations))
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup * steps),
        weight_decay=settings.weight_decay,
        bf16=dtype == "bfloat16",
        use_cpu=device == "cpu",
        seed=settings.seed,
        eval_strategy="steps" if validated else "no",
        eval_steps=every if validated else None,
        save_strategy="steps",
        save_steps=every,
        # The library would delete older ones before the newest is whole; `Steps` does it.
        save_total_limit=None,
        load_best_model_at_end=validated,
        metric_for_best_model="agreement",
        greater_is_better=True,
        logging_steps=max(1, steps // 100),
        disable_tqdm=True,
        report_to=_reporters(settings.report_to),
        dataloader_num_workers=0,
        dataloader_pin_memory=device != "cpu",
        # What the library does by itself under torchrun, and warns of.
        dataloader_drop_last="LOCAL_RANK" in os.environ,
        # Else each batch would wait for the step before it, and the device for the next batch.
        accelerator_config={"non_blocking": True},
        # Every parameter is used, and a triplet's two forwards would each be searched for those that are not.
        ddp_find_unused_parameters=False,
    )
    # Without torchrun the library would split each batch over all visible GPUs (DataParallel); one is used instead.
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def _reporters(names: Iterable[str]) -> list[str]:
    """The library's own among the names (TensorBoard's logs are ours). Raises `UserError` on one that cannot be used."""
    from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

    asked = [name for name in names if name != "tensorboard"]
    for name in asked:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(f"train.report_to: no such tracker: {did_you_mean(name, INTEGRATION_TO_CALLBACK)}")
        if name not in get_available_reporting_integrations():
            raise UserError(f"train.report_to: {name} is not installed, or is switched off: pip install {name}")
    return asked


def _fixed_size(body: Any, sizes: Sizes, settings: Any, device: str, processes: int) -> StepSize | None:
    """The size of steps for the fast path, where it can be taken; which path it is, is said once."""
    if not device.startswith("cuda"):
        return None
    batches = BalancedBatches(sizes.tokens, settings.queries_per_step, settings.seed)
    size = step_size(sizes, Shares(batches, sizes.tokens, processes))
    mean = sizes.tokens.mean() * min(settings.queries_per_step, len(sizes.tokens)) / processes
    if not is_flat(body.config):
        reason = "the encoder is not flat"
    elif not can_compile():
        reason = "compiling them takes a C compiler (gcc), and there is none"
    elif settings.gradient_checkpointing:
        reason = "activations are computed again"
    elif size.batch.tokens > TOKENS_A_GRAPH:
        reason = "a step has too many tokens"
    elif size.batch.tokens > MOST_SLACK * mean:
        reason = "steps differ too much in size"
    else:
        say(f"  steps are CUDA graphs of {size.batch.tokens:,} tokens and {size.batch.pairs} passages")
        return size
    say(f"  steps are computed in the ordinary way: {reason}")
    return None


def _adapted(body: Any, rank: int) -> Any:
    """Low-rank adapters on every linear layer of the encoder; they and the head are trained, nothing else.

    Hu et al. 2021, LoRA (arXiv 2106.09685). Raises `UserError` when peft is not installed.
    """
    import torch

    try:
        from peft import LoraConfig, LoraModel
    except ImportError:
        raise UserError("train.lora needs peft: pip install 'distilrank[lora]'") from None
    inside = {id(module) for module in body.base_model.modules()}
    names = [name for name, module in body.named_modules() if isinstance(module, torch.nn.Linear) and id(module) in inside]
    head = [p for module in body.modules() if id(module) not in inside for p in module.parameters(recurse=False)]
    adapters = LoraModel(body, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), "default")
    for parameter in head:
        parameter.requires_grad_(True)
    return adapters


def _interpolated(body: Any, start: dict[str, Any], share: float | str, measured: Callable[[], float]) -> float:
    """Take the weights a share of the way from the start, `auto` the one that validation likes best; tells which."""
    end = copied(body)
    if share == "auto":
        found = {}
        for tried in SHARES:
            interpolate(body, start, end, tried)
            found[tried] = measured()
        share = max(found, key=lambda tried: found[tried])
        say(f"  interpolation: {share:.0%} of the way from the student's own weights is best on validation")
    interpolate(body, start, end, float(share))
    return float(share)
