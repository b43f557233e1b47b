"""What `distilrank plan` said against what runs took, stage by stage.

    python benchmarks/plan_against_runs.py RUN [RUN ...] [--calibrate] [--gpu h100]
    python benchmarks/plan_against_runs.py --demo                       # runs the demo first, 5 minutes
    python benchmarks/plan_against_runs.py --large /tmp/qwen            # on a GPU, 5 minutes: the published models' shapes
    python benchmarks/plan_against_runs.py --large /tmp/qwen --tiny     # on a CPU, to see that it runs

`--large` makes its run itself: a teacher of Qwen3-Reranker-4B's shape and a student of bge-reranker-v2-m3's, random weights
both, on made-up texts of 11 words; the folder is `qwen_tokenizer.py`'s.

A run folder has its own recipe and, in manifest.json, the seconds of each stage. The plan is made as before the run: in a
copy of the recipe whose run folder and score store are empty. One JSON line a run: seconds planned and taken of each stage
and in all, and how far off the whole is. The goal is within 25 %.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from distilrank.pipeline import run_recipe
from distilrank.pipeline.estimate import estimate
from distilrank.pipeline.hardware import hardware, throughputs
from distilrank.recipe import load_recipe


def compared(run: Path, gpu: str | None, *, calibrate: bool, offline: bool) -> dict[str, object]:
    """One run against its plan."""
    stages = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["stages"]
    taken = {name: float(stage["seconds"]) for name, stage in stages.items()}
    with tempfile.TemporaryDirectory() as empty:
        changes = [f"output={empty}/run", f"score.store={empty}/scores"]
        recipe = load_recipe(run / "recipe.yaml", changes)
        found = estimate(recipe, hardware(gpu), offline=offline, calibrate=calibrate)
    planned = {stage.stage: round(stage.seconds, 1) for stage in found.stages}
    both = [name for name in planned if name in taken]
    whole = sum(planned[name] for name in both), sum(taken[name] for name in both)
    return {
        "run": run.name,
        "hardware": found.hardware,
        "calibrated": calibrate,
        "planned": planned,
        "taken": taken,
        "planned_s": round(whole[0], 1),
        "taken_s": round(whole[1], 1),
        "off": round(whole[0] / whole[1] - 1, 3),
    }


def large_recipe(tokenizer: Path, folder: Path, *, tiny: bool) -> Path:
    """A recipe of large models with random weights, and all that it names."""
    import shutil

    import torch
    import yaml

    import large
    from distilrank.engines.load import load_tokenizer
    from distilrank.records import write_groups
    from teacher_throughput import SHAPE, TINY, random_model, some_groups, words

    device = "cuda" if torch.cuda.is_available() and not tiny else "cpu"
    shape = SHAPE | throughputs()["models"]["hf:Qwen/Qwen3-Reranker-4B"]
    shutil.copytree(tokenizer, folder / "teacher")
    random_model(TINY if tiny else shape, device).save_pretrained(folder / "teacher")
    vocabulary = words(load_tokenizer(tokenizer))
    for seed, (part, queries) in enumerate({"train": 4 if tiny else 600, "test": 3 if tiny else 60}.items()):
        write_groups(folder / f"{part}.parquet", some_groups(vocabulary, queries, "short", seed))
    if tiny:
        large.tiny.xlmr_folder(folder / "student")
    else:
        large.large_model(folder / "student", device, 0.02)
    recipe = {
        "name": "large",
        "data": {"train": str(folder / "train.parquet"), "test": str(folder / "test.parquet")},
        "teacher": {"kind": "causal", "model": str(folder / "teacher"), "template": "qwen3-reranker"},
        "score": {"checks": "skip"},  # random weights know nothing
        "student": {"model": str(folder / "student"), "max_length": 512},
        "train": {"learning_rate": 1e-6, "bounded_scores": True},
    }
    (folder / "large.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder / "large.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of finished runs")
    parser.add_argument("--demo", action="store_true", help="run the demo, and compare that too")
    parser.add_argument("--minutes", type=int, default=5, help="the demo's")
    parser.add_argument("--large", type=Path, metavar="TOKENIZER", help="make a run of large models, and compare that too")
    parser.add_argument("--tiny", action="store_true", help="--large with tiny models")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--gpu", help="reckon for this GPU instead of the one found")
    parser.add_argument("--offline", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs = list(options.runs)
        if options.large:
            recipe = large_recipe(options.large, Path(scratch), tiny=options.tiny)
            runs.append(run_recipe(load_recipe(str(recipe), [f"output={scratch}/large", f"score.store={scratch}/scores"])))
        if options.demo:
            from distilrank.demo import demo_changes

            runs.append(run_recipe(load_recipe("demo", demo_changes(options.minutes, f"{scratch}/demo"))))
        for run in runs:
            print(json.dumps(compared(run, options.gpu, calibrate=options.calibrate, offline=options.offline)), flush=True)


if __name__ == "__main__":
    main()
