"""Triplets a second in training a student of bge-reranker-v2-m3's shape (random weights): sentence-transformers and ours.

    python benchmarks/training_throughput.py            # one H100, minutes
    python benchmarks/training_throughput.py --tiny     # on a CPU, to see that it runs

Work: queries of 12 passages, 32 margins (the published rule, 8 x 4), pairs of about 27 tokens; all arms train on the same
queries, from files through `distilrank.students.train`, tokenising and loading before the first timed step. A step's time is
taken between the trainer's own callbacks, after a few steps to warm up.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import tiny
from distilrank.mining.triplets import triplets_of
from distilrank.records import TrainingGroup, write_training_groups, write_triplets
from distilrank.students import TrainSettings
from distilrank.students import trainer as trainer_module

train_module = sys.modules["distilrank.students.train"]
PASSAGES, MARGINS = 12, tuple((i, j) for i in range(8) for j in range(i + 1, i + 5))
LARGE = {
    "vocab_size": 250_002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 8194,
    "initializer_range": 0.02,
}


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


def student(folder: Path, large: bool) -> Path:
    """A folder with random weights and a tokenizer for which a word is a token."""
    tiny.xlmr_folder(folder)
    if large:
        config = transformers.AutoConfig.from_pretrained(folder)
        for key, value in LARGE.items():
            setattr(config, key, value)
        torch.manual_seed(0)
        with torch.device("cuda"):
            transformers.XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


class Clock:
    """When each step ended, by the trainer's own callback."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.before = trainer_module.Steps.on_step_end

        def on_step_end(steps: Any, *more: Any, **named: Any) -> None:
            self.ends.append(time.perf_counter())
            self.before(steps, *more, **named)

        trainer_module.Steps.on_step_end = on_step_end

    def seconds(self, warm: int) -> tuple[float, int]:
        """Of the steps after the first ones: seconds and number."""
        trainer_module.Steps.on_step_end = self.before
        return self.ends[-1] - self.ends[warm - 1], len(self.ends) - warm


def arm(name: str, data: Path, model: Path, settings: TrainSettings, warm: int, triplets_a_step: int, **named: Any) -> None:
    clock = Clock()
    start = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        train_module.train(data, model, Path(folder) / "model", settings)
    seconds, steps = clock.seconds(warm)
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    rate = steps * triplets_a_step / seconds
    tell(
        arm=name,
        triplets_s=rate,
        passages_s=rate * PASSAGES / len(MARGINS),
        ms=1e3 * seconds / steps,
        steps=steps,
        gib=memory,
        wall_s=time.perf_counter() - start,
        **named,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--arms", default="sentence-transformers,padded,flat,graph,graph-128")
    parser.add_argument("--words", type=int, default=10, help="of a passage")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    cuda = torch.cuda.is_available() and not options.tiny
    tell(
        machine=torch.cuda.get_device_name() if cuda else "CPU",
        torch=torch.__version__,
        transformers=transformers.__version__,
    )
    common: dict[str, Any] = {"max_length": 512, "validation": 0.0, "evaluations": 1, "learning_rate": 2e-5}
    common |= {"device": "cuda" if cuda else "cpu", "precision": "bfloat16"}
    flat, fixed = train_module.can_be_flat, train_module._Training.fixed_size
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        model = student(base / "student", cuda)
        for name in options.arms.split(","):
            queries = 128 if name.endswith("128") else 16
            steps = {"sentence-transformers": 4, "padded": 30, "flat": 30}.get(name, max(20, options.steps * 16 // queries))
            groups = some_groups(queries * (2 if options.tiny else steps), options.words)
            data = base / f"{name}.parquet"
            if name == "sentence-transformers":
                write_triplets(data, triplets_of(groups))
                settings = TrainSettings(mode="triplets", calibrate="none", batch_size=16, accumulation=32, **common)
                arm(name, data, model, settings, 1, 16 * 32, queries_a_step=16)
                continue
            write_training_groups(data, groups)
            train_module.can_be_flat = flat if name != "padded" else lambda model: False
            train_module._Training.fixed_size = fixed if name.startswith("graph") else lambda *_: None
            settings = TrainSettings(queries_per_step=queries, calibrate="none", **common)
            arm(name, data, model, settings, 1 if options.tiny else 10, queries * len(MARGINS), queries_a_step=queries)


if __name__ == "__main__":
    main()
