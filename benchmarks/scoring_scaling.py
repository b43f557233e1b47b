"""Pairs a second of scoring by one process and by a process a GPU, from text to the store, in one run.

    python benchmarks/qwen_tokenizer.py /tmp/qwen
    python benchmarks/scoring_scaling.py --tokenizer /tmp/qwen                       # a host with several H100s, 3 minutes
    python benchmarks/scoring_scaling.py --tokenizer /tmp/qwen --tiny --processes 2  # on a CPU, to see that it runs

The teacher has Qwen3-8B's shape and random weights, as in teacher_throughput.py. Each process makes its own on its GPU and
compiles it, on groups that are not timed; then the same job is done by one of them and by all of them. Prints a JSON line an
arm, and one with the ratio. Which GPUs: CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from distilrank.engines.packing import make_ready
from distilrank.records import Group
from distilrank.scoring import ScoreStore, score
from distilrank.scoring.processes import Crew, crew, gpus
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


def timed(groups: Sequence[Group], teacher: CausalTeacher, workers: Crew) -> tuple[int, float, int]:
    """Pairs, seconds and parts of a job of these processes, from text to a store that is empty before."""
    with tempfile.TemporaryDirectory() as folder:
        store = ScoreStore(folder, teacher.identity)
        start = time.perf_counter()
        pairs = score(groups, teacher, store, drive=workers.drive)
        return pairs, time.perf_counter() - start, len(list(store.folder.glob("part-*.parquet")))


def main() -> None:
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float8"))
    parser.add_argument("--workload", default="short", choices=("short", "long"))
    parser.add_argument("--processes", type=int, help="default: all GPUs, or 2 with --tiny")
    parser.add_argument("--queries", type=int)
    options = parser.parse_args()
    devices = [""] * (options.processes or 2) if options.tiny else gpus(str(options.processes or "all"))
    here = teacher_of(options.tokenizer, None, "packed", options.dtype, "cpu" if options.tiny else "cuda")
    vocabulary = words(here.decoder.tokenizer)
    queries = options.queries or (40 if options.tiny else {"short": 4_000, "long": 440}[options.workload])
    groups = some_groups(vocabulary, queries, options.workload, 1)
    warm = 4 if options.tiny else {"short": 300, "long": 24}[options.workload]
    others = some_groups(vocabulary, warm * len(devices), options.workload, 2)
    rates = {}
    with crew(partial(build, options.tokenizer.resolve(), options.tiny, options.dtype), devices) as everyone:
        pairs, seconds, _ = timed(others, here, everyone)
        machine = "CPU" if options.tiny else torch.cuda.get_device_name()
        tell(machine=machine, torch=torch.__version__, processes=len(devices), ready_s=seconds, pairs=pairs)
        for number in (1, len(devices)):
            workers = Crew(everyone.build, devices[:number], everyone.workers[:number])
            pairs, seconds, parts = timed(groups, here, workers)
            rates[number] = pairs / seconds
            named = {"workload": options.workload, "dtype": options.dtype, "pairs_s": pairs / seconds}
            tell(arm=f"{number} processes", **named, pairs=pairs, seconds=seconds, parts=parts)
        tell(ratio=rates[len(devices)] / rates[1], processes=len(devices), wall_s=time.perf_counter() - began)


if __name__ == "__main__":
    main()
