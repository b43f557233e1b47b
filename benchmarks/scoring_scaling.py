"""Pairs a second of scoring by one process and by a process a GPU, from text to the store, in one run.

    python benchmarks/qwen_tokenizer.py /tmp/qwen
    python benchmarks/scoring_scaling.py --tokenizer /tmp/qwen                       # a host with several H100s, minutes
    python benchmarks/scoring_scaling.py --tokenizer /tmp/qwen --tiny --processes 2  # on a CPU, to see that it runs

The teacher has Qwen3-8B's shape and random weights, as in teacher_throughput.py; texts are the same for all arms. Each
process builds and compiles its own, on groups that are not timed. Prints a JSON line an arm, and one with the ratio.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from distilrank.engines.packing import make_ready
from distilrank.scoring import ScoreStore, score
from distilrank.scoring.processes import crew, gpus
from distilrank.teachers.causal import CausalTeacher
from teacher_throughput import SHAPE, TINY, random_model, some_groups, teacher_of, tell, words


def build(tokenizer: Path, tiny: bool, dtype: str) -> CausalTeacher:
    """In a process of its own, which sees one GPU (or none)."""
    from distilrank.engines.float8 import to_float8

    device = "cuda" if torch.cuda.is_available() and not tiny else "cpu"
    model = random_model(TINY if tiny else SHAPE, device)
    make_ready(model)
    if dtype == "float8":
        to_float8(model, 0)
    return teacher_of(tokenizer, model, "packed", dtype, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float8"))
    parser.add_argument("--workload", default="short", choices=("short", "long"))
    parser.add_argument("--processes", type=int, help="default: 1 and all GPUs")
    parser.add_argument("--queries", type=int)
    options = parser.parse_args()
    devices = [""] * (options.processes or 2) if options.tiny else gpus(str(options.processes or "all"))
    here = teacher_of(options.tokenizer, None, "packed", options.dtype, "cpu" if options.tiny else "cuda")
    vocabulary = words(here.decoder.tokenizer)
    queries = options.queries or (40 if options.tiny else {"short": 4_000, "long": 440}[options.workload])
    groups = some_groups(vocabulary, queries, options.workload, 1)
    rates = {}
    for devices_of_arm in (devices[:1], devices):
        warm = 4 if options.tiny else {"short": 300, "long": 24}[options.workload] * len(devices_of_arm)
        others = some_groups(vocabulary, warm, options.workload, 2)
        made = partial(build, options.tokenizer.resolve(), options.tiny, options.dtype)
        with tempfile.TemporaryDirectory() as folder, crew(made, devices_of_arm) as workers:
            store = ScoreStore(folder, here.identity)
            start = time.perf_counter()
            score(others, here, store, drive=workers.drive)
            warmed = time.perf_counter() - start
            start = time.perf_counter()
            pairs = score(groups, here, store, drive=workers.drive)
            seconds = time.perf_counter() - start
            rates[len(devices_of_arm)] = pairs / seconds
        tell(
            arm=f"{len(devices_of_arm)} processes",
            workload=options.workload,
            dtype=options.dtype,
            pairs_s=pairs / seconds,
            pairs=pairs,
            seconds=seconds,
            warm_s=warmed,
            machine="CPU" if options.tiny else torch.cuda.get_device_name(),
        )
    tell(ratio=rates[len(devices)] / rates[1], processes=len(devices), workload=options.workload, dtype=options.dtype)


if __name__ == "__main__":
    main()
