"""Tokens a second in training on one GPU and, under torchrun, on several of a host.

    python benchmarks/training_scaling.py                       # a host with 2 H100s, 3 minutes
    python benchmarks/training_scaling.py --gpus 1,2,4          # with 4
    python benchmarks/training_scaling.py --tiny                # two processes on a CPU, to see that it runs

Work as in `training_throughput.py`: bge-reranker-v2-m3's shape with random weights, queries of 12 passages, pairs of about
27 tokens (`--words`), 128 queries a step a GPU, from files through `distilrank.students.train`. A step is timed between the
trainer's own callbacks on the first process, after a few to warm up (they compile and capture); no checkpoint is written.
Arms: `graph-N` (a step in a CUDA graph, gradients added up inside it: our fastest path on one GPU) and, where asked for by
`--ways`, `ordinary-N` (flat batches, launched one by one) on N GPUs. NCCL's NVLink multicast is off (NCCL_NVLS_ENABLE=0).
A line as each arm ends; the last one compares each arm with the first way on the fewest GPUs. Which GPUs:
CUDA_VISIBLE_DEVICES.
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
    from distilrank.students import TrainSettings, learn, train

    way, _, number = options.worker.partition("-")
    folder, cuda = Path(options.folder), torch.cuda.is_available() and not options.tiny
    warm, queries = 2 if options.tiny else 10, options.queries * int(number)
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
    start, made = time.perf_counter(), learn.group_learner

    class Told(shared.Clock):
        """Prints the arm's line after the last step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            super().on_step_end(args, state, control, **more)
            control.should_save = False
            if state.global_step < state.max_steps or process_number():
                return
            seconds, steps = self.seconds(warm)
            tokens = learner[0].trainer.tokens.mean() * queries * steps
            shared.tell(
                arm=options.worker,
                gpus=int(number),
                queries_a_step=queries,
                words=options.words,
                steps=steps,
                ms=1e3 * seconds / steps,
                tokens_s=float(tokens / seconds),
                passages_s=shared.PASSAGES * queries * steps / seconds,
                gib=torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0,
                wall_s=time.perf_counter() - start,
            )

    learner: list[Any] = []

    def with_clock(*arguments: Any) -> Any:
        learner.append(made(*arguments))
        learner[0].trainer.add_callback(Told(False))
        return learner[0]

    learn.group_learner = with_clock
    if way == "ordinary":
        learn._fixed_size = lambda *_: None
    # The trainer's own folder must be the same for all processes.
    train(folder / f"groups-{number}.parquet", folder / "student", folder / options.worker, settings)


def ran(command: list[str], seconds: int) -> float:
    """Run an arm, pass its lines on as they come, and return its tokens a second; 0 where it failed or took too long."""
    # One host: it need not find itself by name.
    alone = {"NCCL_NVLS_ENABLE": "0", "NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | alone
    rate = 0.0
    limited = ["timeout", "--kill-after=10", str(seconds), *command]
    with subprocess.Popen(limited, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if line.startswith("{"):
                rate = json.loads(line)["tokens_s"]
    if process.returncode:
        print(json.dumps({"exit_code": process.returncode, "seconds_allowed": seconds}), flush=True)
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model and gloo on the CPU")
    parser.add_argument("--gpus", default="1,2", help="numbers of GPUs, as N,M")
    parser.add_argument("--ways", help="graph, ordinary, or both as graph,ordinary; default: graph, on a CPU ordinary")
    parser.add_argument("--queries", type=int, default=128, help="a step a GPU")
    parser.add_argument("--words", type=int, default=10, help="of a passage")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--limit", type=int, default=150, help="seconds for an arm, in case that processes wait for each other"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument(
        "--folder", help="where 7 GB of models are written, and deleted: /dev/shm, say, where the disk is slow"
    )
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
    shared.tell(machine=name, torch=torch.__version__, date=time.strftime("%d %B %Y"))
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        (shared.large_student if cuda else tiny.xlmr_folder)(Path(folder) / "student")
        for way in (options.ways or ("graph" if cuda else "ordinary")).split(","):
            for number in map(int, options.gpus.split(",")):
                data = Path(folder) / f"groups-{number}.parquet"
                if not data.exists():
                    groups = shared.some_groups(options.queries * number * options.steps, options.words)
                    write_training_groups(data, groups)
                torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
                torchrun += ["--nproc-per-node", str(number)]
                arm = [__file__, *sys.argv[1:], "--worker", f"{way}-{number}", "--folder", folder]
                if rate := ran([sys.executable, *(torchrun if number > 1 else []), *arm], options.limit):
                    rates[f"{way}-{number}"] = rate
    if rates:
        first = next(iter(rates))
        print(
            json.dumps({f"against_{first}": {arm: round(rate / rates[first], 3) for arm, rate in rates.items()}}), flush=True
        )


if __name__ == "__main__":
    main()
