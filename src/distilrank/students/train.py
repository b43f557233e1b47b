"""Training a student on triplets or training groups, from a model folder to a model folder."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from distilrank.engines.load import device_of, dtype_of, weights_digest
from distilrank.engines.quiet import quiet_transformers
from distilrank.errors import UserError
from distilrank.progress import Noted, bar, say
from distilrank.recipe import TrainSpec
from distilrank.records import TrainingGroup, holds_triplets, read_training_groups, read_triplets
from distilrank.rows import BadLines
from distilrank.shards import digest, refuse_foreign, write_text
from distilrank.students.calibrate import CALIBRATION_GROUPS, Affine, calibration, loss_names
from distilrank.students.dataset import as_they_are, tokenised
from distilrank.students.folder import RECORD, card, open_student, save_student, settled
from distilrank.students.ranks import ALONE, Ranks, joined
from distilrank.students.validation import groups_of_triplets, query_hash, validation_threshold

CURVE = ("step", "loss", "margin_correlation")
Watch = Callable[[int, float], None]


class TrainSettings(TrainSpec):
    """How a student is trained: the recipe's `train` section, and what the rest of the recipe adds to it."""

    max_length: int = Field(512, ge=16)
    seed: int = Field(0, ge=0, lt=2**32)
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
    share: float = 1.0
    """How far the weights went from the student's own to those at the end of the training (`interpolate`)."""
    skipped: int = 0
    """Steps without an update, because a gradient was not finite."""


def train(
    data: str | Path,
    student: str | Path,
    output: str | Path,
    settings: TrainSettings | None = None,
    *,
    work: str | Path | None = None,
    skip: BadLines | None = None,
    watch: Watch | None = None,
    origin: dict[str, Any] | None = None,
) -> TrainResult:
    """Train the model in folder `student` on a file of triplets or training groups and write folder `output`.

    The written model has one output and Identity activation, so that its scores are raw logits in every tool. `work`
    (default: beside the output) holds checkpoints; a killed training goes on from the last whole one. `watch` is called at
    each validation with the step and the agreement; what it raises ends the training. `origin` is kept in the model's
    record: what it goes on from (`students.replay`).

    Among the processes that torchrun starts, each does its share of every step, and only the first one writes; the folders
    are to be the same for all of them. The number of processes decides nothing but how long it takes.

    Raises `UserError` when the data are malformed, the teacher's scores look like probabilities or are constant, or
    the student's output is constant after training.
    """
    settings = settings or TrainSettings()
    student, output = Path(student), Path(output)
    if not (student / "config.json").is_file():
        raise UserError(f"{student}: no model folder: it has no config.json")
    work = Path(work) if work else None
    ranks = joined(settings.device)
    refuse_foreign(output, RECORD)
    if holds_triplets(data, skip) != (settings.mode == "triplets"):
        other, held = ("triplets", "triplets") if settings.mode == "groups" else ("groups", "training groups")
        raise UserError(f"{data}: holds {held}, but the training mode is {settings.mode}: say --mode {other}, or mine anew")
    if (output / RECORD).exists():
        say(f"  {output} holds an earlier model of ours, which the new one replaces once it is whole")
    with quiet_transformers():
        result = _Training(Path(data), student, output, settings, work, skip, watch, origin or {}, ranks).run()
    ranks.leave()
    return result


def train_together(ranks: Ranks, *asked: Any, **named: Any) -> TrainResult:
    """The same where the other processes do not know yet what is to be trained: they have called `join_training`."""
    ranks.first(lambda: (asked, named))
    result = train(*asked, **named)
    ranks.leave()
    return result


def join_training(ranks: Ranks) -> None:
    """Train what the first process says, if anything; not for the first process itself."""
    told: tuple[Any, ...] = ranks.first(tuple)
    if told:
        asked, named = told
        train(*asked, **named)
        ranks.leave()


class _Training:
    """One training: what its steps share."""

    def __init__(
        self,
        data: Path,
        student: Path,
        output: Path,
        settings: TrainSettings,
        work: Path | None,
        skip: BadLines | None,
        watch: Watch | None,
        origin: dict[str, Any],
        ranks: Ranks = ALONE,
    ) -> None:
        self.data, self.student, self.output, self.settings, self.watch = data, student, output, settings, watch
        self.origin = origin
        self.work, self.keep, self.skip = work or output.with_name(f".{output.name}.training"), work is not None, skip
        self.device = device_of(settings.device)
        if self.device == "mps":
            # The optimiser leaves it to the fused kernel to skip an update, which nobody has seen Metal's do.
            raise UserError("training on Apple's GPU has not been tried: set device to cpu")
        if self.device not in ("cpu", "cuda", "cuda:0"):
            # The library's trainer takes the first GPU, whichever the model is on.
            raise UserError(f"training takes the first GPU that is seen, not {self.device}: set CUDA_VISIBLE_DEVICES")
        self.dtype = dtype_of(settings.precision, self.device)
        self.ranks = ranks
        self.threshold, self.count, self.identity = ranks.first(self.looked_over)

    def looked_over(self) -> tuple[int, int, list[str]]:
        """Which queries are for validation, how many rows there are, and which data and student these are."""
        seen = count()
        queries = (row.query for row, _ in zip(self.rows(), seen, strict=False))
        threshold = validation_threshold(queries, self.settings.validation, self.settings.seed)
        return threshold, next(seen), [digest(self.data), weights_digest(self.student)]

    def rows(self) -> Iterator[Any]:
        read = read_triplets if self.settings.mode == "triplets" else read_training_groups
        return read(self.data, self.skip)

    def part(self, *, validation: bool) -> Iterator[Any]:
        seed = self.settings.seed
        return (row for row in self.rows() if (query_hash(row.query, seed) < self.threshold) == validation)

    def run(self) -> TrainResult:
        from transformers import set_seed

        from distilrank.students.follow import last_whole_checkpoint

        start = time.monotonic()
        asked, self.settings = self.settings, settled(self.student, self.settings)
        if asked.learning_rate == "auto":
            say(f"  learning rate {self.settings.learning_rate}: auto, by the student's width and {asked.times}")
        set_seed(self.settings.seed)
        affine = self.ranks.first(self.calibrated)  # first, since what it refuses is to leave nothing behind
        self.ranks.first(self.forget_other_training)
        model = open_student(self.student, self.settings, self.device)
        self.ranks.same(model)
        validation = self.ranks.first(self.validation_groups)
        selector = self.agreement(validation, model) if validation else None
        before = selector(model)["agreement"] if selector else math.nan
        learner = self.learner(model, selector, affine)
        checkpoint = self.ranks.first(lambda: last_whole_checkpoint(self.work))
        done = int(checkpoint.name.split("-")[1]) if checkpoint else 0
        if checkpoint:
            say(f"  goes on from the checkpoint of step {done:,}")
        with bar("train", learner.trainer.args.max_steps, "steps", before=done) as advance:
            self.follow(learner.trainer, learner.pairs, advance)
            if checkpoint and done >= learner.trainer.args.max_steps:
                self.take_up(learner.trainer, checkpoint)
            else:
                with self.ranks.talking():
                    learner.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        share = learner.finish()
        after = selector(model)["agreement"] if selector else math.nan
        self.refuse_constant(model, validation)
        if selector and after <= before:
            queries = len({group.query for group in validation})
            seen = f"{before:.4f} -> {after:.4f} nDCG@10 on {queries} validation queries"
            why = "there was nothing to gain" if before > 1 - 1e-6 else "this run did not help: evaluate it before using it"
            say(f"  the trained student agrees with the teacher no better than before ({seen}): {why}")
        state, seconds = learner.trainer.state, time.monotonic() - start
        skipped = int(sum(entry.get("skipped", 0) for entry in state.log_history))
        result = TrainResult(before, after, state.global_step, seconds, affine.scale, affine.shift, share, skipped)
        if not self.ranks.rank:
            self.save(model, state.log_history, result)
        return result

    def calibrated(self) -> Affine:
        """How the teacher's scores are mapped."""
        return calibration(self.rows, self.student, self.data, self.settings, self.dtype, self.device)

    def agreement(self, groups: Sequence[TrainingGroup], model: Any) -> Any:
        """What measures the student on groups; for triplets the library decides which processes ask it."""
        from distilrank.students.agreement import Agreement

        ranks = self.ranks if self.settings.mode == "groups" else ALONE
        return Agreement(groups, model.tokenizer, self.settings.max_length, self.dtype, ranks)

    def learner(self, model: Any, selector: Any, affine: Affine) -> Any:
        """The trainer of the mode, with its data."""
        from distilrank.students import learn

        rows, settings, folder = self.part(validation=False), self.settings, self.work / "tokens"
        decides = [settings.mode, *self.identity, settings.max_length, settings.seed, settings.validation, *astuple(affine)]
        if self.ranks.rank:
            self.ranks.wait()  # for the first process to write them
        if settings.mode == "triplets":
            with bar("read", self.count, "triplets") as advance:
                data = as_they_are(rows, folder, decides, advance)
        else:
            scaled = (replace(row, scores=tuple(map(affine, row.scores))) for row in rows)
            with bar("tokenise", self.count, "groups") as advance:
                data = tokenised(scaled, model.tokenizer, settings.max_length, folder, decides, advance)
        if not self.ranks.rank:
            self.ranks.wait()
        make = learn.triplet_learner if settings.mode == "triplets" else learn.group_learner
        return make(model, data, selector, settings, self.work, self.device, self.dtype, self.ranks)

    def take_up(self, trainer: Any, checkpoint: Path) -> None:
        """What came out of a training that was killed after its last step: the library would make one more."""
        from transformers import TrainerState

        trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        best = trainer.state.best_model_checkpoint
        trainer._load_from_checkpoint(str(checkpoint.with_name(Path(best).name) if best else checkpoint))

    def forget_other_training(self) -> None:
        """Checkpoints go on only under the data, the student and the settings that made them."""
        from distilrank.students.follow import forget

        asked = json.dumps([self.settings.model_dump(), self.dtype, self.identity])
        sealed = self.work / "training.json"
        if not sealed.exists() or sealed.read_text(encoding="utf-8") != asked:
            for checkpoint in self.work.glob("checkpoint-*"):
                forget(checkpoint)
            write_text(sealed, asked)

    def validation_groups(self) -> list[TrainingGroup]:
        """The held-out queries as groups with the teacher's scores."""
        rows = list(self.part(validation=True))
        self.count -= len(rows)  # those that are left are taught
        groups = groups_of_triplets(rows) if self.settings.mode == "triplets" else rows
        ordered = [group for group in groups if len(set(group.scores)) > 1]
        if self.settings.validation and not ordered:
            few = "too few training queries to keep some for validation"
            reason = "the teacher orders no validation query's passages" if groups else few
            asked = {"patience": self.settings.patience, "interpolate: auto": self.settings.interpolate == "auto"}
            without = "".join(f", without {name}" for name, wanted in asked.items() if wanted)
            say(f"  {reason}: the last checkpoint is the model{without}")
        return ordered

    def follow(self, trainer: Any, pairs: float, advance: Noted) -> None:
        """Replace the library's printed logs by our progress, and keep TensorBoard's beside the checkpoints."""
        from transformers.integrations import TensorBoardCallback
        from transformers.trainer_callback import PrinterCallback

        from distilrank.students.follow import Steps

        trainer.remove_callback(PrinterCallback)
        if "tensorboard" in self.settings.report_to:
            from tensorboardX import SummaryWriter

            if not self.ranks.rank:
                trainer.add_callback(TensorBoardCallback(SummaryWriter(str(self.work / "tensorboard"))))
        trainer.add_callback(Steps(advance, self.watch, self.ranks, pairs))

    def refuse_constant(self, model: Any, validation: Sequence[TrainingGroup]) -> None:
        """A student that gives every passage of a query the same score has collapsed."""
        rows = validation or list(islice(self.some_groups(), CALIBRATION_GROUPS))
        scores = self.agreement(rows, model).scores(model)
        if not all(np.isfinite(values).all() for values in scores):
            raise UserError("the student gives numbers that are not finite after training: lower the learning rate")
        if all(np.ptp(values) < 1e-6 for values in scores):
            raise UserError(
                "the student gives all passages of a query the same score after training (it collapsed): lower the "
                "learning rate or raise the warm-up"
            )

    def some_groups(self) -> Iterator[TrainingGroup]:
        if self.settings.mode == "triplets":
            return iter(groups_of_triplets(islice(read_triplets(self.data, self.skip), 1_000)))
        return read_training_groups(self.data, self.skip)

    def save(self, model: Any, history: Sequence[dict[str, Any]], result: TrainResult) -> None:
        """The model folder with the record of its training; then the checkpoints go, and all of a work folder of our own."""
        from distilrank.students.follow import forget

        curves = {
            "loss": [{key: entry[key] for key in CURVE if key in entry} for entry in history if "loss" in entry],
            "agreement": [
                {"step": entry["step"], "agreement": entry["eval_agreement"]}
                for entry in history
                if "eval_agreement" in entry
            ],
        }
        record = {
            "settings": self.settings.model_dump() | {"precision": self.dtype, "device": self.device},
            "result": {key: None if value != value else value for key, value in asdict(result).items()},
        }
        if self.origin:
            record["origin"] = self.origin
        losses = " + ".join(loss_names(self.settings.loss))
        agreements = (result.agreement_before, result.agreement_after)
        text = card(self.student.name, losses, result.steps, self.settings.max_length, agreements)
        save_student(model, self.output, record | curves, text)
        for checkpoint in self.work.glob("checkpoint-*"):
            forget(checkpoint)
        if not self.keep:
            shutil.rmtree(self.work, ignore_errors=True)
