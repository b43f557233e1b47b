"""The quality bench: which way of training closes more of the gap between student and teacher.

    python benchmarks/quality/run.py rates one-factor        # choosing, on validation queries
    python benchmarks/quality/run.py final --arms "OURS" "REFERENCE"     # the comparison, on test queries, once
    python benchmarks/quality/run.py one-factor --arms base --sets epqa --pairs cut --seeds 1     # a part

Each line of the results is a cell: set, pair of student and teacher, arm, seed. Cells that the results file has are skipped.
With several workers each takes the next cell that is left; they share the store of scores.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import multiprocessing
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
RESULTS = Path(__file__).parent / "results"
POINTLESS = {("trecqa", "whole")}
"""No combination of the teachers is better than the student here: there is nothing to distil."""


def cells(options: argparse.Namespace) -> list[tuple[str, str, Any, int]]:
    """All cells of the plans, the order such that every arm gets a seed before any gets another."""
    import arms

    planned = {arm.name: arm for plan in options.plans for arm in arms.PLANS[plan]}
    if options.budget:
        planned = {name: arms.within(arm, options.budget) for name, arm in planned.items()}
    chosen = [arm for arm in planned.values() if not options.arms or arm.name in options.arms]
    return [
        (dataset, pair, arm, seed)
        for seed in options.seeds
        for arm in chosen
        for pair in options.pairs
        for dataset in options.sets
        if (dataset, pair) not in POINTLESS
    ]


def settle(number: int, options: argparse.Namespace) -> str:
    """Make this process one of the workers, which are dealt out over the GPUs; returns its device."""
    # JAX, where bm25s finds it, would take three quarters of a GPU's memory for itself.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "JAX_PLATFORMS": "cpu"}
    if options.gpus:
        os.environ |= {
            "CUDA_VISIBLE_DEVICES": str(number % options.gpus),
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        }
    import torch

    torch.set_num_threads(options.threads)
    if not options.gpus:
        return "cpu"
    # Workers share a GPU, and what one of them keeps for later the others lack.
    torch.cuda.set_per_process_memory_fraction(0.9 * options.gpus / max(options.workers, options.gpus))
    return "cuda"


def prepare(number: int, options: argparse.Namespace, dataset: str) -> None:
    """The teachers' scores of a set, and what every arm on it lies between."""
    device = settle(number, options)
    from cell import ends, material

    part, known = _part(options), _known(options.results)
    for pair in options.pairs:
        material(dataset, pair, Path(options.store))
        if (part, dataset, pair, "ends", 0) not in known:
            line = {"part": part, "set": dataset, "pair": pair, "arm": "ends", "seed": 0}
            _write(options.results, line | ends(dataset, pair, Path(options.store), device, part))


def work(number: int, options: argparse.Namespace, taken: Any) -> None:
    """One worker: takes the next cell until there is none."""
    device = settle(number, options)
    import torch
    from cell import run_cell

    store, part = Path(options.store), _part(options)
    machine = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    known = _known(options.results)
    deadline = time.monotonic() + options.minutes * 60
    wanted = [cell for cell in cells(options) if (part, *cell[:2], cell[2].name, cell[3]) not in known]
    while time.monotonic() < deadline:
        with taken.get_lock():
            place, taken.value = taken.value, taken.value + 1
        if place >= len(wanted):
            return
        dataset, pair, arm, seed = wanted[place]
        named = {"part": part, "set": dataset, "pair": pair, "arm": arm.name, "seed": seed}
        outside = [name for name in options.sets if name != dataset]
        try:
            found = run_cell(dataset, pair, arm, seed, store, device, part, outside)
        except Exception as error:  # a cell that fails must not end the night
            print(f"FAILED {named}: {type(error).__name__}: {error}", flush=True)
            continue
        settings = {"mine": arm.mine, "train": arm.train, "more": arm.more}
        _write(options.results, named | found | {"settings": settings, "machine": machine, "torch": torch.__version__})


def _part(options: argparse.Namespace) -> str:
    return "test" if options.plans == ["final"] else "validation"


def _known(path: Path) -> set[tuple[Any, ...]]:
    if not path.exists():
        return set()
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {(row["part"], row["set"], row["pair"], row["arm"], row["seed"]) for row in rows}


def _write(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write(json.dumps(row) + "\n")


def main() -> None:
    import arms
    import models
    import sets

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="+", choices=list(arms.PLANS))
    parser.add_argument("--sets", nargs="+", default=list(sets.NAMES), choices=[*sets.NAMES, *sets.MADE])
    parser.add_argument("--pairs", nargs="+", default=["cut", "whole"], choices=list(models.PAIRS))
    parser.add_argument("--arms", nargs="+", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument(
        "--budget", type=float, help="passes over all candidates whose tokens an arm may forward; default: 4"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--store", default="quality-scores")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--prepare", action="store_true", help="only score with the teachers")
    options = parser.parse_args()
    if "final" in options.plans and (options.plans != ["final"] or not options.arms):
        parser.error("final opens the test queries: it stands alone, and takes the --arms that validation has chosen")
    if unknown := set(options.arms or ()) - {arm.name for _, _, arm, _ in cells(options)}:
        parser.error(f"these plans have no arm {', '.join(map(repr, sorted(unknown)))}")
    options.results = options.results or RESULTS / ("test.jsonl" if options.plans == ["final"] else "validation.jsonl")
    options.results.parent.mkdir(parents=True, exist_ok=True)
    import torch

    options.gpus = torch.cuda.device_count()
    context = multiprocessing.get_context("spawn")

    def together(processes: list[Any]) -> None:
        for process in processes:
            process.start()
        for process in processes:
            process.join()

    most = max(1, options.gpus)  # at a time: a teacher likes a device for itself
    for start in range(0, len(options.sets), most):
        some = options.sets[start : start + most]
        together([context.Process(target=prepare, args=(number, options, name)) for number, name in enumerate(some)])
    if not options.prepare:
        taken = context.Value("i", 0)
        together([context.Process(target=work, args=(number, options, taken)) for number in range(options.workers)])


if __name__ == "__main__":
    main()
