"""What `distilrank plan` said against what runs took, stage by stage.

    python benchmarks/plan_against_runs.py RUN [RUN ...] [--calibrate] [--gpu h100]
    python benchmarks/plan_against_runs.py --demo                       # runs the demo first, 5 minutes

A run folder has its own recipe and, in manifest.json, the seconds of each stage. The plan is made as before the run: in a
copy of the recipe whose run folder and score store are empty. One JSON line a run: seconds planned and taken of each stage
and in all, and how far off the whole is. The goal is within 25 %.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from distilrank.pipeline.estimate import estimate
from distilrank.pipeline.hardware import hardware
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of finished runs")
    parser.add_argument("--demo", action="store_true", help="run the demo, and compare that too")
    parser.add_argument("--minutes", type=int, default=5, help="the demo's")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--gpu", help="reckon for this GPU instead of the one found")
    parser.add_argument("--offline", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs = list(options.runs)
        if options.demo:
            from distilrank.demo import demo_changes
            from distilrank.pipeline import run_recipe

            runs.append(run_recipe(load_recipe("demo", demo_changes(options.minutes, f"{scratch}/demo"))))
        for run in runs:
            print(json.dumps(compared(run, options.gpu, calibrate=options.calibrate, offline=options.offline)), flush=True)


if __name__ == "__main__":
    main()
