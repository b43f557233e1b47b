"""Triplets a second in training a student of bge-reranker-v2-m3's shape (random weights): sentence-transformers and ours.

    python benchmarks/training_throughput.py            # one H100, minutes
    python benchmarks/training_throughput.py --tiny     # on a CPU, to see that it runs

Work: queries of 12 passages, 32 margins (the published rule, 8 x 4), pairs of about 27 tokens; all arms train on the same
queries, from files through `distilrank.students.train`, tokenising and loading before the first timed step. A step's time is
taken between the trainer's own callbacks, after a few steps to warm up. Arms:

    sentence-transformers     its trainer and MarginMSELoss, a row a triplet, 16 x 32 (as published)
    tuned-N                   the same with a row a passage and its 4 negatives, N rows a batch, sorted by length
    padded, flat, graph       ours with 16 queries a step: padded batches, flat ones, flat ones in a CUDA graph
    fixed                     the graph's steps of one size, compiled for it, but launched one by one
    graph-N, flat-N, ...      the same with N queries a step
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import tiny
from distilrank.engines.load import dtype_of
from distilrank.mining.triplets import triplets_of
from distilrank.records import TrainingGroup, read_training_groups, write_training_groups, write_triplets
from distilrank.students import TrainSettings, train
from large import large_model

PASSAGES, MARGINS = 12, tuple((i, j) for i in range(8) for j in range(i + 1, i + 5))
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
PROFILED = 5
"""Steps under the profiler."""


def tell(**values: Any) -> None:
    print(json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in values.items()}), flush=True)


def some_groups(queries: int, passage_words: int) -> list[TrainingGroup]:
    rng = random.Random(0)

    def text(mean: float, deviation: float) -> str:
        return " ".join(rng.choices(tiny.WORDS, k=max(3, min(round(3 * mean), round(rng.gauss(mean, deviation))))))

    groups = []
    for number in range(queries):
        passages = tuple(text(passage_words, passage_words / 3) + f" {place}" for place in range(PASSAGES))
        scores = tuple(sorted((rng.gauss(0, 3) for _ in range(PASSAGES)), reverse=True))
        groups.append(TrainingGroup(text(7, 2) + f" {number}", passages, scores, MARGINS))
    return groups


def large_student(folder: Path) -> Path:
    """The student of the measurement, made on the GPU."""
    return large_model(folder, "cuda", 0.02)


class Clock(transformers.TrainerCallback):
    """When each step ended, by the trainer's own callback; and, where asked for, what the last steps' kernels took."""

    def __init__(self, profile: bool) -> None:
        self.ends: list[float] = []
        self.wanted, self.profiler, self.kernels = profile, None, Counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        state.logging_steps = 10  # a log waits for the device; every step of so short a training would be logged

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        control.should_save = False  # a checkpoint is 7 GB
        left = state.max_steps - state.global_step
        if not self.profiler:
            if left == PROFILED * self.wanted and torch.cuda.is_available():
                torch.cuda.synchronize()  # the last step that is timed is not only launched
            self.ends.append(time.perf_counter())
        if self.wanted and left == PROFILED:
            self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self.profiler.__enter__()
        elif self.profiler and not left:
            torch.cuda.synchronize()
            self.profiler.__exit__(None, None, None)
            for event in self.profiler.key_averages():
                self.kernels[kind(event.key)] += event.self_device_time_total / 1e3 / PROFILED

    def seconds(self, warm: int) -> tuple[float, int]:
        """Of the steps after the first ones: seconds and number."""
        return self.ends[-1] - self.ends[warm - 1], len(self.ends) - warm


def kind(kernel: str) -> str:
    """What a kernel is for, by its name."""
    names = {
        "attention": ("fmha", "_attend_", "flash", "attention", "softmax"),
        "matrix products": ("gemm", "nvjet", "cutlass", "xmma", "splitK"),
        "optimiser": ("adam", "Adam", "multi_tensor", "lpnorm", "LpNorm"),
        "copies": ("Memcpy", "Memset", "memcpy", "memset"),
        "embedding": ("embedding", "indexSelect", "index_elementwise", "indexing_backward"),
        "fused elementwise (compiled)": ("triton",),
    }
    return next((what for what, parts in names.items() if any(part in kernel for part in parts)), "other elementwise")


def measured(clock: Clock, warm: int, passages: int, margins: int, start: float, **named: Any) -> None:
    """One line: margins and passages a second of the steps after the first `warm`."""
    seconds, steps = clock.seconds(warm)
    cuda = torch.cuda.is_available()
    tell(
        **named,
        triplets_s=margins * steps / seconds,
        passages_s=passages * steps / seconds,
        ms=1e3 * seconds / steps,
        steps=steps,
        gib=torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0,
        wall_s=time.perf_counter() - start,
    )
    if clock.kernels:
        tell(profile_ms={key: round(value, 2) for key, value in clock.kernels.most_common()})


def ours(data: Path, model: Path, settings: TrainSettings, clock: Clock) -> None:
    """A training through the library, with the clock among the trainer's callbacks."""
    from distilrank.students import learn

    made = learn.group_learner, learn.triplet_learner

    def with_clock(learner: Any) -> Any:
        def make(*arguments: Any) -> Any:
            result = learner(*arguments)
            result.trainer.add_callback(clock)
            return result

        return make

    learn.group_learner, learn.triplet_learner = map(with_clock, made)
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(data, model, Path(folder) / "model", settings)
    finally:
        learn.group_learner, learn.triplet_learner = made


def tuned(groups: list[TrainingGroup], folder: Path, batch: int, steps: int, common: dict[str, Any], clock: Clock) -> None:
    """sentence-transformers as well as it goes: a row a passage with its four negatives, sorted by length."""
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import MarginMSELoss
    from torch.utils.data import BatchSampler, SequentialSampler

    rows = []
    for group in groups:
        for i in range(8):
            below = range(i + 1, i + 5)
            row = {"query": group.query, "positive": group.passages[i]}
            row |= {f"negative_{n}": group.passages[j] for n, j in enumerate(below)}
            rows.append(row | {"label": [group.scores[i] - group.scores[j] for j in below]})
    rows.sort(key=lambda row: -sum(len(value.split()) for value in row.values() if isinstance(value, str)))
    rows = (rows * (1 + steps * batch // len(rows)))[: steps * batch]
    model = CrossEncoder(
        str(folder),
        num_labels=1,
        max_length=512,
        activation_fn=torch.nn.Identity(),
        device=common["device"],
        config_kwargs={} if common["dropout"] is None else dict.fromkeys(DROPOUTS, common["dropout"]),
    )
    with tempfile.TemporaryDirectory() as output:
        arguments = CrossEncoderTrainingArguments(
            output_dir=output,
            per_device_train_batch_size=batch,
            learning_rate=2e-5,
            bf16=common["precision"] == "bfloat16",
            use_cpu=common["device"] == "cpu",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            batch_sampler=lambda data, batch_size, **_: BatchSampler(SequentialSampler(data), batch_size, False),
        )
        if arguments.n_gpu > 1:
            arguments._n_gpu = 1  # else the library splits each batch over all visible GPUs
        data = Dataset.from_list(rows)
        trainer = CrossEncoderTrainer(
            model=model, args=arguments, train_dataset=data, loss=MarginMSELoss(model), callbacks=[clock]
        )
        trainer.train()


def arm(name: str, base: Path, model: Path, options: argparse.Namespace, given: list[TrainingGroup] | None) -> None:
    """Train for a while in the way of that name, and tell how fast."""
    from distilrank.students import folder as folder_module
    from distilrank.students import graph as graph_module
    from distilrank.students import learn

    cuda = torch.cuda.is_available() and not options.tiny
    way, _, number = name.partition("-") if name != "sentence-transformers" else (name, "", "")
    queries = int(number) if number and way != "tuned" else 16
    few = options.tiny or not cuda
    steps = {"sentence-transformers": 4, "tuned": 20}.get(way, max(20, options.steps * 16 // queries))
    steps = min(steps, 30) if way in ("padded", "flat") else steps
    steps = options.cpu_steps if few else steps
    groups = (given or some_groups(queries * steps, options.words))[: queries * steps]
    common: dict[str, Any] = {"max_length": 512, "validation": 0.0, "evaluations": 1, "learning_rate": 2e-5}
    common |= {
        "dropout": options.dropout,
        "device": "cuda" if cuda else "cpu",
        "precision": dtype_of("auto", "cuda" if cuda else "cpu"),
        "loss": "margin_mse",
        "calibrate": "none",
        "report_to": (),
    }
    clock, start = Clock(options.profile and cuda and way == "graph"), time.perf_counter()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    named = {"arm": name, "words": options.words, "queries_a_step": queries}
    margins = sum(len(group.pairs or ()) or len(group.passages) * (len(group.passages) - 1) // 2 for group in groups)
    passages = sum(len(group.passages) for group in groups)
    warm = 1 if few or way == "sentence-transformers" else 10
    if way == "tuned":
        tuned(groups, model, int(number), steps, common, clock)
        measured(clock, min(warm, 5), 5 * int(number), 4 * int(number), start, **named)
    elif way == "sentence-transformers":
        batch, accumulation = (16, 32) if cuda else (16, 2)
        triplets = list(triplets_of(groups))[: steps * batch * accumulation]
        write_triplets(base / "triplets.parquet", triplets)
        settings = TrainSettings(mode="triplets", batch_size=batch, accumulation=accumulation, **common)
        ours(base / "triplets.parquet", model, settings, clock)
        measured(clock, warm, 2 * batch * accumulation, batch * accumulation, start, **named)
    else:
        write_training_groups(base / "groups.parquet", groups)
        flat, fixed, ordinary = folder_module.can_be_flat, learn._fixed_size, graph_module.ORDINARY_STEPS
        folder_module.can_be_flat = flat if way != "padded" else lambda model: False
        learn._fixed_size = fixed if way in ("graph", "fixed") else lambda *_: None
        graph_module.ORDINARY_STEPS = steps if way == "fixed" else ordinary
        settings = TrainSettings(queries_per_step=queries, gradient_checkpointing=options.checkpointing, **common)
        try:
            ours(base / "groups.parquet", model, settings, clock)
        finally:
            folder_module.can_be_flat, learn._fixed_size, graph_module.ORDINARY_STEPS = flat, fixed, ordinary
        of_step = len(groups) / queries
        measured(clock, warm, round(passages / of_step), round(margins / of_step), start, **named)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU")
    parser.add_argument("--arms", default="sentence-transformers,tuned-32,tuned-64,tuned-128,padded,flat,graph,graph-128")
    parser.add_argument("--words", type=int, nargs="+", default=[10], help="of a passage")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--cpu-steps", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="where the time of the graph arms goes")
    parser.add_argument("--limit-gib", type=float, help="act as a GPU of so much memory")
    parser.add_argument("--dropout", type=float, help="default: the model's, .1")
    parser.add_argument("--checkpointing", action="store_true", help="ours with gradient_checkpointing")
    parser.add_argument("--student", type=Path, help="a model folder instead of the random one")
    parser.add_argument("--groups", type=Path, help="training groups instead of made-up ones")
    options = parser.parse_args()
    cuda = torch.cuda.is_available() and not options.tiny
    machine = torch.cuda.get_device_name() if cuda else "CPU"
    tell(machine=machine, torch=torch.__version__, transformers=transformers.__version__, limit_gib=options.limit_gib)
    if cuda and options.limit_gib:
        torch.cuda.set_per_process_memory_fraction(
            options.limit_gib * 2**30 / torch.cuda.get_device_properties(0).total_memory
        )
    given = list(read_training_groups(options.groups)) if options.groups else None
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        made = large_student if cuda else tiny.xlmr_folder
        model = options.student or made(base / "student")
        for words in options.words:
            for name in options.arms.split(","):
                arm(name, base, model, argparse.Namespace(**vars(options) | {"words": words}), given)


if __name__ == "__main__":
    main()
