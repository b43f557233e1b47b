"""Tokens a second in training on one and on several GPUs of a host, each arm under torchrun.

    python benchmarks/training_scaling.py                       # a host with 2 H100s, minutes
    python benchmarks/training_scaling.py --gpus 1,2,4          # with 4
    python benchmarks/training_scaling.py --tiny                # two processes on a CPU, to see that it runs

Work as in `training_throughput.py`: bge-reranker-v2-m3's shape with random weights, queries of 12 passages, pairs of about
27 tokens (`--words`), 128 queries a step a GPU, from files through `distilrank.students.train`. A step is timed between the
trainer's own callbacks on the first process, after a few to warm up (they compile and capture). Arms: `graph-N` (a step in a
CUDA graph, gradients added up inside it) and `ordinary-N` (flat batches, launched one by one) on N GPUs. NCCL's NVLink
multicast is off (NCCL_NVLS_ENABLE=0). The last line compares each arm with `graph-1`, our fastest path on one GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]


def worker(options: argparse.Namespace) -> None:
    """One process of an arm."""
    import torch

    import training_throughput as shared
    from distilrank.progress import process_number
    from distilrank.records import read_training_groups
    from distilrank.students import TrainSettings, learn

    way, _, number = options.worker.partition("-")
    processes = int(number)
    folder, cuda = Path(options.folder), torch.cuda.is_available() and not options.tiny
    queries = options.queries * processes
    if way == "ordinary":
        learn._fixed_size = lambda *_: None
    settings = TrainSettings(
        queries_per_step=queries,
        max_length=512,
        validation=0.0,
        evaluations=1,
        device="cuda" if cuda else "cpu",
        precision="bfloat16",
        calibrate="none",
        report_to=(),
    )
    data = folder / f"groups-{processes}.parquet"
    groups = list(read_training_groups(data))
    clock = shared.Clock(False)
    # The trainer's own folder must be the same for all processes.
    with_clock(clock, data, folder / "student", folder / options.worker, settings)
    seconds, steps = clock.seconds(2 if options.tiny else 10)
    if process_number():
        return
    dataset = tokens_of(groups, folder / "student")
    print(
        json.dumps(
            {
                "arm": options.worker,
                "gpus": processes,
                "queries_a_step": queries,
                "words": options.words,
                "steps": steps,
                "ms": round(1e3 * seconds / steps, 3),
                "tokens_s": round(dataset / len(groups) * queries * steps / seconds, 1),
                "passages_s": round(shared.PASSAGES * queries * steps / seconds, 1),
                "gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else 0.0,
            }
        ),
        flush=True,
    )


def with_clock(clock: Any, data: Path, student: Path, output: Path, settings: Any) -> None:
    """A training with the clock among the trainer's callbacks."""
    from distilrank.students import learn, train

    made = learn.group_learner

    def make(*arguments: Any) -> Any:
        learner = made(*arguments)
        learner.trainer.add_callback(clock)
        return learner

    learn.group_learner = make
    train(data, student, output, settings)


def tokens_of(groups: list[Any], student: Path) -> int:
    """The tokens of all pairs of all groups."""
    from distilrank.engines.classifier import encode_pairs
    from distilrank.engines.load import load_tokenizer

    tokenizer = load_tokenizer(student)
    queries = [group.query for group in groups for _ in group.passages]
    passages = [passage for group in groups for passage in group.passages]
    return sum(map(len, encode_pairs(tokenizer, queries, passages, 512)["input_ids"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model and gloo on the CPU")
    parser.add_argument("--gpus", default="1,2", help="numbers of GPUs, as N,M")
    parser.add_argument("--ways", default="graph,ordinary")
    parser.add_argument("--queries", type=int, default=128, help="a step a GPU")
    parser.add_argument("--words", type=int, default=10, help="of a passage")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tiny:
        options.queries, options.steps = 4, 6
    if options.worker:
        return worker(options)

    import torch

    import tiny
    import training_throughput as shared
    from distilrank.records import write_training_groups

    cuda = torch.cuda.is_available() and not options.tiny
    name = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}" if cuda else "CPU"
    print(json.dumps({"machine": name, "torch": torch.__version__, "date": time.strftime("%d %B %Y")}), flush=True)
    environment = os.environ | {"NCCL_NVLS_ENABLE": "0", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        (shared.large_student if cuda else tiny.xlmr_folder)(Path(folder) / "student")
        for number in map(int, options.gpus.split(",")):
            groups = shared.some_groups(options.queries * number * options.steps, options.words)
            write_training_groups(Path(folder) / f"groups-{number}.parquet", groups)
            for way in options.ways.split(","):
                if way == "graph" and not cuda:
                    continue
                command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
                command += [__file__, *sys.argv[1:], "--worker", f"{way}-{number}", "--folder", folder]
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
                line = done.stdout.strip().splitlines()[-1:] if not done.returncode else []
                if not line:
                    print(json.dumps({"arm": f"{way}-{number}", "failed": done.returncode}), flush=True)
                    continue
                print(line[0], flush=True)
                rates[f"{way}-{number}"] = json.loads(line[0])["tokens_s"]
    first = rates.get("graph-1") or rates.get("ordinary-1")
    if first:
        print(json.dumps({"against_one_gpu": {arm: round(rate / first, 3) for arm, rate in rates.items()}}), flush=True)


if __name__ == "__main__":
    main()
