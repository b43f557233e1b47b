"""Loss curves of both training modes from one start, against tokens forwarded.

    distilrank demo -o demo                               # a run folder with training groups (data/training.parquet)
    python benchmarks/loss_curves.py demo -o curves       # minutes on a CPU: curves.jsonl and curves.svg

A fifth of the queries is held out. Both modes are taught every margin of the others, the demo's settings and as many tokens:
`groups` forwards a passage once for all of its margins, `triplets` once for each, so that it comes through fewer epochs.
A step is of the same number of margins in both (`--queries` groups' worth). The yardstick is the same, too: the mean
squared error of all margins of the held-out queries, and nDCG@10 of the student's order against the teacher's scores
(their deviation 4, about the student's). Tokens are those of texts and separators, padding left out, which favours triplets.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from distilrank.demo.models import demo_model
from distilrank.engines.classifier import encode_pairs
from distilrank.engines.load import load_tokenizer
from distilrank.evidence.plots import Series, lines
from distilrank.metrics import agreement
from distilrank.mining.triplets import triplets_of
from distilrank.records import TrainingGroup, read_training_groups, write_training_groups, write_triplets
from distilrank.students import TrainSettings, learn
from distilrank.students.agreement import Agreement
from distilrank.students.validation import query_hash, validation_threshold
from training_throughput import ours

SPREAD = 4.0
"""Of the teacher's scores: about the demo student's own."""
POINTS = 10
"""Measurements over a training, beside the one at its start."""


@dataclass(frozen=True)
class Point:
    """What the yardstick showed after so many tokens."""

    mode: str
    tokens: int
    steps: int
    margin_mse: float
    ndcg: float


class Yardstick(transformers.TrainerCallback):
    """Counts the tokens that a training forwards, and measures the student on the held-out queries every so many."""

    def __init__(self, mode: str, held: Sequence[TrainingGroup], settings: TrainSettings, total: int) -> None:
        self.mode, self.held, self.settings, self.every = mode, held, settings, total / POINTS
        self.tokens = 0
        self.points: list[Point] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        device = model.device.type
        self.agreement = Agreement(self.held, model.tokenizer, self.settings.max_length, precision(device))
        # The library calls the model's `forward` itself, past its hooks, but not the encoder's.
        model[0].model.base_model.register_forward_pre_hook(self._count, with_kwargs=True)
        self._measure(model, state.global_step)

    def _count(self, encoder: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if encoder.training:
            mask = kwargs.get("attention_mask")
            ids = args[0] if args else kwargs["input_ids"]
            self.tokens += int(ids.numel() if mask is None else mask.sum())

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        if self.tokens >= len(self.points) * self.every or state.global_step == state.max_steps:
            self._measure(model, state.global_step)

    def _measure(self, model: Any, steps: int) -> None:
        scores, teacher = self.agreement.scores(model), self.agreement.teacher
        errors = [
            ((s[i] - s[j]) - (t[i] - t[j])) ** 2
            for s, t in zip(scores, teacher, strict=True)
            for i, j in combinations(range(len(s)), 2)
        ]
        ndcg = float(np.nanmean(agreement(teacher, scores)))
        self.points.append(Point(self.mode, self.tokens, steps, float(np.mean(errors)), ndcg))
        print(json.dumps(asdict(self.points[-1])), flush=True)


def precision(device: str) -> str:
    """As the library's `auto` has it."""
    from distilrank.engines.load import dtype_of

    return dtype_of("auto", device)


def spread_out(groups: Sequence[TrainingGroup]) -> list[TrainingGroup]:
    """The groups with scores of the demo's within-query deviation: triplets cannot be calibrated in training."""
    scale = SPREAD / float(np.sqrt(np.mean([np.var(group.scores) for group in groups])))
    return [replace(group, scores=tuple(score * scale for score in group.scores), pairs=None) for group in groups]


def tokens_of(student: Path, pairs: Sequence[tuple[str, str]], max_length: int) -> int:
    """The tokens of some pairs."""
    encoded = encode_pairs(load_tokenizer(student), *map(list, zip(*pairs, strict=True)), max_length)
    return sum(map(len, encoded["input_ids"]))


def drawn(points: Sequence[Point]) -> str:
    """Both figures beside each other, in the report's colours, as one file."""
    names = {"groups": "after", "triplets": "teacher"}
    style = files("distilrank.evidence") / "templates" / "report.css"
    rules = re.findall(r"^(?::root \{.*?^\}|svg [^{]*[^{ ] \{.*?\})", style.read_text(encoding="utf-8"), re.M | re.S)
    panels = []
    for place, (key, label) in enumerate((("margin_mse", "mean squared error of margins"), ("ndcg", "nDCG@10"))):
        series = []
        for mode, kind in names.items():
            own = [point for point in points if point.mode == mode]
            xs = [point.tokens / 1000 for point in own]
            series.append(Series(mode, kind, xs, [getattr(point, key) for point in own]))
        panel = lines(series, f"{label}, held-out queries", "tokens forwarded, thousands", label, share=key == "ndcg")
        panels.append(panel.replace("<svg ", f'<svg x="{470 * place}" width="460" height="270" ', 1))
    whole = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 940 280" width="940" height="280">'
    paper = '<rect width="940" height="280" style="fill: var(--paper)"/>'
    css = "text { font-family: sans-serif; }\n" + "\n".join(rules)
    return "\n".join([whole, f"<style>{css}</style>", paper, *panels, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder, or a file of training groups")
    parser.add_argument("-o", "--output", type=Path, default=Path("loss_curves"), help="of .jsonl and .svg")
    parser.add_argument("--student", type=Path, help="a model folder instead of the demo's")
    parser.add_argument("--epochs", type=float, default=3.0, help="of groups")
    parser.add_argument("--queries", type=int, default=2, help="a step")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    student = options.student or demo_model("reranker")
    every = spread_out(
        list(read_training_groups(options.run / "data/training.parquet" if options.run.is_dir() else options.run))
    )
    threshold = validation_threshold((group.query for group in every), 0.2, options.seed)
    held = [group for group in every if query_hash(group.query, options.seed) < threshold]
    taught = [group for group in every if query_hash(group.query, options.seed) >= threshold]
    listed = [replace(g, pairs=tuple(combinations(range(len(g.passages)), 2))) for g in taught]
    triplets = list(triplets_of(listed))
    once = [(group.query, passage) for group in taught for passage in group.passages]
    anew = [(row.query, text) for row in triplets for text in (row.positive, row.negative)]
    costs = [tokens_of(student, pairs, options.max_length) for pairs in (once, anew)]
    margins = max(1, round(options.queries * len(triplets) / len(taught)))
    batch = max(size for size in range(1, 17) if margins % size == 0)
    common: dict[str, Any] = {
        "loss": "margin_mse",
        "calibrate": "none",
        "validation": 0.0,
        "evaluations": 1,
        "report_to": (),
        "warmup": 0.1,
    }
    # Without weight decay the embedding table would hold the taught queries' tokens alone.
    common |= {"weight_decay": 0.01, "dropout": 0.0, "seed": options.seed, "max_length": options.max_length}
    common |= {"learning_rate": options.learning_rate}
    as_many = {"epochs": options.epochs * costs[0] / costs[1], "batch_size": batch, "accumulation": margins // batch}
    settings = {
        "groups": TrainSettings(mode="groups", epochs=options.epochs, queries_per_step=options.queries, **common),
        "triplets": TrainSettings(mode="triplets", **as_many, **common),
    }
    cuda = torch.cuda.is_available()
    about = {"machine": torch.cuda.get_device_name() if cuda else "CPU", "torch": torch.__version__}
    about |= {"taught": len(taught), "held_out": len(held), "margins_a_step": margins, "tokens_an_epoch": costs}
    print(json.dumps(about), flush=True)
    learn._fixed_size = lambda *_: None  # nothing can count what a graph replays
    points: list[Point] = []
    with tempfile.TemporaryDirectory() as folder:
        files_of = {"groups": Path(folder) / "groups.parquet", "triplets": Path(folder) / "triplets.parquet"}
        write_training_groups(files_of["groups"], taught)
        write_triplets(files_of["triplets"], triplets)
        for mode, data in files_of.items():
            yardstick = Yardstick(mode, held, settings[mode], round(options.epochs * costs[0]))
            start = time.perf_counter()
            ours(data, student, settings[mode], yardstick)
            print(json.dumps({"mode": mode, "seconds": round(time.perf_counter() - start)}), file=sys.stderr, flush=True)
            points += yardstick.points
    text = "".join(json.dumps(row) + "\n" for row in (about, *map(asdict, points)))
    options.output.with_suffix(".jsonl").write_text(text, encoding="utf-8")
    options.output.with_suffix(".svg").write_text(drawn(points), encoding="utf-8")


if __name__ == "__main__":
    main()
