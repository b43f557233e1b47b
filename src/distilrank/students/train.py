"""Training a student on triplets or training groups, from a model folder to a model folder."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.engines.classifier import fp32_head
from distilrank.engines.flat import can_be_flat, compile_layers, flatten, is_flat
from distilrank.engines.load import device_of, dtype_of, has_head, weights_digest
from distilrank.engines.quiet import quiet_transformers
from distilrank.errors import UserError
from distilrank.progress import bar, say
from distilrank.recipe import TrainSpec
from distilrank.records import (
    TrainingGroup,
    holds_triplets,
    read_training_groups,
    read_triplets,
)
from distilrank.rows import BadLines
from distilrank.shards import digest, refuse_foreign, whole_folder, write_text
from distilrank.students.batches import (
    TOKENS_A_FORWARD,
    GroupCollator,
    RowSize,
    StepSize,
    groups_of_triplets,
    measured,
    query_hash,
    step_size,
    tokenised_groups,
    validation_threshold,
)
from distilrank.students.calibrate import CALIBRATION_GROUPS, Affine, calibration, loss_names
from distilrank.students.losses import weighted_sum

GRAPH_LOSSES = {"margin_mse", "weighted_margin_mse", "rank_net"}
"""Losses of margins: missing passages are groups of their own and change none of these."""
GRAPH_FORWARDS = 4
RECORD = "distilrank.json"
"""The file in a model folder that says how it was trained."""


class TrainSettings(TrainSpec):
    """How a student is trained: the recipe's `train` section, and what the rest of the recipe adds to it."""

    max_length: int = 512
    seed: int = 0
    device: str = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True)
class TrainResult:
    """What a training did: agreement is nDCG@10 against the teacher's scores on validation queries (NaN without)."""

    agreement_before: float
    agreement_after: float
    steps: int
    seconds: float
    scale: float
    """What the teacher's scores were multiplied by."""
    shift: float
    """What was then added to them; only `mse` sees it."""


def train(
    data: str | Path,
    student: str | Path,
    output: str | Path,
    settings: TrainSettings | None = None,
    *,
    work: str | Path | None = None,
    skip: BadLines | None = None,
) -> TrainResult:
    """Train the model in folder `student` on a file of triplets or training groups and write folder `output`.

    The written model has one output and Identity activation, so that its scores are raw logits in every tool. `work`
    (default: beside the output) holds checkpoints; a killed training goes on from the last whole one.

    Raises `UserError` when the data are malformed, the teacher's scores look like probabilities or are constant, or
    the student's output is constant after training.
    """
    settings = settings or TrainSettings()
    student, output = Path(student), Path(output)
    if not (student / "config.json").is_file():
        raise UserError(f"{student}: no model folder: it has no config.json")
    work = Path(work) if work else output.with_name(f".{output.name}.training")
    refuse_foreign(output, RECORD)
    if holds_triplets(data, skip) != (settings.mode == "triplets"):
        held = "triplets" if settings.mode == "groups" else "training groups"
        raise UserError(f"{data}: holds {held}, but the training mode is {settings.mode}: use --mode, or mine anew")
    with quiet_transformers():
        return _Training(Path(data), student, output, settings, work, skip).run()


class _Training:
    """One training: what its steps share."""

    def __init__(
        self, data: Path, student: Path, output: Path, settings: TrainSettings, work: Path, skip: BadLines | None
    ) -> None:
        self.data, self.student, self.output, self.settings = data, student, output, settings
        self.work, self.skip = work, skip
        self.device = device_of(settings.device)
        self.dtype = dtype_of(settings.precision, self.device)
        self.threshold = validation_threshold((row.query for row in self.rows()), settings.validation, settings.seed)

    def rows(self) -> Iterator[Any]:
        read = read_triplets if self.settings.mode == "triplets" else read_training_groups
        return read(self.data, self.skip)

    def part(self, *, validation: bool) -> Iterator[Any]:
        seed = self.settings.seed
        return (row for row in self.rows() if (query_hash(row.query, seed) < self.threshold) == validation)

    def run(self) -> TrainResult:
        from transformers import set_seed

        from distilrank.students.trainer import Agreement, last_whole_checkpoint

        start = time.monotonic()
        self.forget_other_training()
        set_seed(self.settings.seed)
        affine = calibration(self.rows, self.student, self.data, self.settings, self.dtype, self.device)
        model = self.load()
        validation = self.validation_groups()
        selector = Agreement(validation, model.tokenizer, self.settings.max_length, self.dtype) if validation else None
        before = selector(model)["agreement"] if selector else math.nan
        trainer, steps = self.trainer(model, selector, affine)
        with bar("train", steps, "steps") as advance:
            self.follow(trainer, advance)
            checkpoint = last_whole_checkpoint(self.work)
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        after = selector(model)["agreement"] if selector else math.nan
        self.refuse_constant(model, validation)
        if selector and after <= before:
            seen = f"{before:.4f} -> {after:.4f} nDCG@10 on {len(validation)} validation queries"
            why = "there was nothing to gain" if before > 1 - 1e-6 else "this run did not help: evaluate it before using it"
            say(f"  the trained student agrees with the teacher no better than before ({seen}): {why}")
        result = TrainResult(before, after, steps, time.monotonic() - start, *astuple(affine))
        self.save(model, trainer.state.log_history, result)
        return result

    def forget_other_training(self) -> None:
        """Checkpoints go on only under the data, the student and the settings that made them."""
        asked = json.dumps([self.settings.model_dump(), self.dtype, digest(self.data), weights_digest(self.student)])
        sealed = self.work / "training.json"
        if not sealed.exists() or sealed.read_text(encoding="utf-8") != asked:
            for checkpoint in self.work.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
            write_text(sealed, asked)

    def load(self) -> Any:
        """The student with fp32 weights, one output, Identity activation and an fp32 head."""
        import torch
        from safetensors import SafetensorError
        from sentence_transformers.cross_encoder import CrossEncoder

        if not has_head(self.student):
            say("  the student has no head yet: it gets a new one, so before training its order is chance")
        dropout = self.settings.dropout
        names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
        try:
            model = CrossEncoder(
                str(self.student),
                num_labels=1,
                max_length=self.settings.max_length,
                activation_fn=torch.nn.Identity(),
                device=self.device,
                local_files_only=True,
                trust_remote_code=self.settings.trust_remote_code,
                model_kwargs={"dtype": torch.float32, "use_safetensors": True},
                config_kwargs={} if dropout is None else dict.fromkeys(names, dropout),
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{self.student}: not a cross-encoder that transformers opens: {reason}") from error
        fp32_head(model[0].model)
        # The published way stays as it is, but on a CPU, where SDPA's backward is slow.
        if can_be_flat(model[0].model) and (self.settings.mode == "groups" or self.device == "cpu"):
            flatten(model[0].model)
        elif self.settings.mode == "groups":
            say(f"  {model[0].model.config.model_type} is trained on padded batches: how to lay it flat is not known here")
        return model

    def validation_groups(self) -> list[TrainingGroup]:
        """The held-out queries as groups with the teacher's scores."""
        if not self.threshold:
            if self.settings.validation:
                say("  too few training queries to keep some for validation: the last checkpoint is the model")
            return []
        rows = self.part(validation=True)
        groups = groups_of_triplets(rows) if self.settings.mode == "triplets" else list(rows)
        return [group for group in groups if len(set(group.scores)) > 1]

    def trainer(self, model: Any, selector: Any, affine: Affine) -> tuple[Any, int]:
        """The trainer with its data set, and how many optimiser steps it will take."""
        from datasets import Dataset, Features, List, Value
        from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
        from sentence_transformers.cross_encoder.losses import MarginMSELoss

        from distilrank.students.trainer import GroupLoss

        settings = self.settings
        groups = settings.mode == "groups"
        sizes: list[RowSize] = []
        if groups:
            ids = List(List(Value("int32")))
            names = (
                "input_ids",
                *(("token_type_ids",) if "token_type_ids" in model.tokenizer.model_input_names else ()),
            )
            columns = dict.fromkeys(names, ids) | {"scores": List(Value("float32")), "pairs": ids}
            scaled = (
                TrainingGroup(row.query, row.passages, tuple(map(affine, row.scores)), row.pairs)
                for row in self.part(validation=False)
            )
            rows = measured(tokenised_groups(scaled, model.tokenizer, settings.max_length), sizes)
        else:
            columns = dict.fromkeys(("query", "positive", "negative"), Value("string")) | {"score": Value("float32")}
            rows = map(asdict, self.part(validation=False))
        shutil.rmtree(self.work / "cache", ignore_errors=True)
        dataset = _arrow(rows, Features(columns), self.work / "cache", Dataset)
        batch = settings.queries_per_step if groups else settings.batch_size
        size = self.fixed_size(model, sizes, batch) if groups else None
        per_epoch = max(1, math.ceil(math.ceil(len(dataset) / batch) / settings.accumulation))
        steps = max(1, math.ceil(per_epoch * settings.epochs))
        every = max(1, math.ceil(steps / settings.evaluations))
        arguments = CrossEncoderTrainingArguments(
            output_dir=str(self.work),
            max_steps=steps,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=settings.accumulation,
            learning_rate=settings.learning_rate,
            warmup_steps=round(settings.warmup * steps),
            # The graph clips by itself, and a look at each loss would wait for the device.
            max_grad_norm=0.0 if size else 1.0,
            logging_nan_inf_filter=not size,
            weight_decay=settings.weight_decay,
            bf16=self.dtype == "bfloat16",
            use_cpu=self.device == "cpu",
            seed=settings.seed,
            eval_strategy="steps" if selector else "no",
            eval_steps=every if selector else None,
            save_strategy="steps",
            save_steps=every,
            save_total_limit=2,
            load_best_model_at_end=bool(selector),
            metric_for_best_model="agreement",
            greater_is_better=True,
            logging_steps=max(1, steps // 100),
            disable_tqdm=True,
            report_to=[],
            dataloader_num_workers=0,
            dataloader_pin_memory=self.device != "cpu",
        )
        # Without torchrun the library would split each batch over all visible GPUs (DataParallel); one is used instead.
        if arguments.n_gpu > 1:
            arguments._n_gpu = 1
        common = {"model": model, "args": arguments, "train_dataset": dataset, "evaluator": selector}
        if groups:
            pad = model.tokenizer.pad_token_id or 0
            common["data_collator"] = GroupCollator(model[0].model.config, pad, self.device, size)
        loss = GroupLoss(model, weighted_sum(loss_names(settings.loss)), self.dtype) if groups else MarginMSELoss(model)
        if not size:
            return CrossEncoderTrainer(**common, loss=loss), steps
        from distilrank.students.graph import GraphTrainer

        compile_layers(model[0].model)
        return GraphTrainer(**common, loss=loss), steps

    def fixed_size(self, model: Any, rows: Sequence[RowSize], queries: int) -> StepSize | None:
        """The size of steps for the fast path, where it can be taken; which path it is, is said once."""
        device, settings = self.device.split(":")[0], self.settings
        if device != "cuda":
            return None
        reason = "steps differ too much in size"
        if not is_flat(model[0].model.config):
            reason = "the encoder is not flat"
        elif settings.accumulation > 1:
            reason = "steps are accumulated"
        elif other := set(loss_names(settings.loss)) - GRAPH_LOSSES:
            reason = f"the loss {sorted(other)[0]} is not one of margins"
        elif found := step_size(rows, queries, max(row.longest for row in rows)):
            if found.batch.tokens <= TOKENS_A_FORWARD[device] * GRAPH_FORWARDS:
                say(f"  steps are CUDA graphs of {found.batch.tokens:,} tokens and {found.batch.pairs} passages")
                return found
            reason = "a step has too many tokens"
        say(f"  steps are computed in the ordinary way: {reason}")
        return None

    def follow(self, trainer: Any, advance: Any) -> None:
        """Replace the library's printed logs by our progress."""
        from transformers.trainer_callback import PrinterCallback

        from distilrank.students.trainer import Steps

        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Steps(advance))

    def refuse_constant(self, model: Any, validation: Sequence[TrainingGroup]) -> None:
        """A student that gives every passage of a query the same score has collapsed."""
        from distilrank.students.trainer import Agreement

        rows = validation or list(islice(self._some_groups(), CALIBRATION_GROUPS))
        scores = Agreement(rows, model.tokenizer, self.settings.max_length, self.dtype).scores(model)
        if not all(np.isfinite(values).all() for values in scores):
            raise UserError("the student gives numbers that are not finite after training: lower the learning rate")
        if all(np.ptp(values) < 1e-6 for values in scores):
            raise UserError(
                "the student gives all passages of a query the same score after training (it collapsed): lower the "
                "learning rate or raise the warm-up"
            )

    def _some_groups(self) -> Iterator[TrainingGroup]:
        if self.settings.mode == "triplets":
            return iter(groups_of_triplets(islice(read_triplets(self.data, self.skip), 1_000)))
        return read_training_groups(self.data, self.skip)

    def save(self, model: Any, history: list[dict[str, Any]], result: TrainResult) -> None:
        """The model folder, whole or absent, with the record of its training; then the checkpoints go."""
        losses = [{"step": entry["step"], "loss": entry["loss"]} for entry in history if "loss" in entry]
        agreements = [
            {"step": entry["step"], "agreement": entry["eval_agreement"]} for entry in history if "eval_agreement" in entry
        ]
        record = {
            "settings": self.settings.model_dump() | {"precision": self.dtype, "device": self.device},
            "result": {key: None if value != value else value for key, value in asdict(result).items()},
            "loss": losses,
            "agreement": agreements,
            "versions": {name: version(name) for name in ("distilrank", "torch", "transformers", "sentence-transformers")},
        }
        with whole_folder(self.output, ours=RECORD) as folder:
            # The library's own card would quote training texts in a folder that people publish.
            model.save_pretrained(str(folder), create_model_card=False)
            write_text(folder / "README.md", _card(self.settings, self.student.name, result))
            write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
        shutil.rmtree(self.work, ignore_errors=True)


def _arrow(rows: Iterator[dict[str, Any]], features: Any, folder: Path, dataset: Any) -> Any:
    """Rows into a memory-mapped Arrow data set."""
    from datasets.arrow_writer import ArrowWriter

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rows.arrow"
    with ArrowWriter(path=str(path), features=features) as writer:
        for row in rows:
            writer.write(row)
        writer.finalize()
    return dataset.from_file(str(path))


def _card(settings: TrainSettings, student: str, result: TrainResult) -> str:
    """The model card: what it is and how it was taught, with no text of the training data."""
    names = " + ".join(loss_names(settings.loss))
    agreement = ""
    if result.agreement_after == result.agreement_after:
        agreement = (
            f"\nAgreement with the teacher (nDCG@10 on validation queries): {result.agreement_before:.4f} before, "
            f"{result.agreement_after:.4f} after.\n"
        )
    return f"""---
library_name: sentence-transformers
pipeline_tag: text-ranking
tags: [cross-encoder, reranker, distilrank]
---

# A reranker distilled with distilrank

Made from `{student}` by {names} in {result.steps:,} steps; its scores are raw logits (Identity activation), larger is more
relevant. `{RECORD}` holds every setting.
{agreement}
```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("path/to/this/folder", max_length={settings.max_length})
model.predict([("a query", "a passage")])
```
"""
