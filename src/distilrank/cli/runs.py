"""Commands for whole runs: demo, init, run, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from distilrank.cli.app import Changes, Gpus, Json, Offline, On, RecipeName, app, print_json, result
from distilrank.errors import UserError
from distilrank.progress import process_number, say


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The run folder.")] = Path("distilrank-demo"),
    minutes: Annotated[int, typer.Option(help="5 or 15: how much of the data is used.")] = 5,
    as_json: Json = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Which queries, and the order of training.")] = 0,
    offline: Offline = False,
) -> None:
    """The whole path on embedded data and models, to a report.

    Example: `distilrank demo --minutes 5`
    """
    import time

    from distilrank.demo import demo_changes
    from distilrank.demo.sizes import cpu_tier
    from distilrank.recipe import load_recipe

    start = time.monotonic()
    recipe = load_recipe("demo", [*demo_changes(minutes, str(output)), f"seed={seed}"])
    if cpu_tier() == "float32":
        say("this CPU does not multiply bfloat16: the demo does a tenth of its work, too little to show a gain")
    evaluation = _run(recipe, offline=offline, restart_from=None, as_json=as_json)
    seconds = time.monotonic() - start
    if process_number():
        return
    if as_json:
        means = evaluation.means()
        print_json({name: means[name] for name in ("before", "after", "teacher", "bm25")} | {"seconds": round(seconds, 1)})
    else:
        say(f"{seconds:.0f} s in all")


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="The recipe to write.")],
    source: Annotated[
        str, typer.Option("--from", help="A packaged recipe: my-domain, demo, stackoverflow, corpus-only.")
    ] = "my-domain",
    as_json: Json = False,
) -> None:
    """Write a commented recipe.

    Example: `distilrank init my-domain.yaml`
    """
    from distilrank.errors import did_you_mean
    from distilrank.recipe import packaged_recipes
    from distilrank.shards import write_text

    recipes = packaged_recipes()
    if source not in recipes:
        raise UserError(f"--from {source}: no such recipe: {did_you_mean(source, recipes)}")
    if file.exists():
        raise UserError(f"{file}: exists already; choose another name or delete it")
    write_text(file, recipes[source])
    result(as_json, f"wrote {file}; next: distilrank run {file} --dry-run", file=str(file))


@app.command("run")
def run_command(
    recipe: RecipeName,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; touches no network.")] = False,
    changes: Changes = None,
    restart_from: Annotated[str | None, typer.Option("--from", help="Run this stage and the later ones anew.")] = None,
    sample: Annotated[int | None, typer.Option(help="A trial on so many queries, in a folder of its own.")] = None,
    on: On = "local",
    gpus: Gpus = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Run all stages of a recipe; finished ones are skipped, a killed run goes on.

    Example: `distilrank run my-domain.yaml --sample 200`
    """
    from distilrank.pipeline import plan_recipe
    from distilrank.pipeline.where import Where
    from distilrank.recipe import load_recipe, sampled

    loaded = load_recipe(recipe, changes or [])
    if sample is not None:
        loaded = sampled(loaded, sample)
    if dry_run:
        plan = plan_recipe(loaded, restart_from=restart_from)
        if as_json:
            print_json(
                {
                    "folder": str(loaded.folder),
                    "stages": [dict(zip(("stage", "does", "state"), p, strict=True)) for p in plan],
                }
            )
        else:
            print(f"{loaded.name} -> {loaded.folder}, scores in {loaded.store}")
            for number, (name, does, state) in enumerate(plan, start=1):
                print(f"[{number}/{len(plan)}] {name}: {does}: {state}")
        return
    where = Where(on, gpus)
    evaluation = _run(loaded, offline=offline, restart_from=restart_from, as_json=as_json, where=where)
    if as_json:
        print_json({"folder": str(loaded.folder)} | ({"means": evaluation.means()} if evaluation else {}))


@app.command("sweep")
def sweep_command(
    recipe: RecipeName,
    output: Annotated[Path, typer.Option("-o", "--output", help="The recipe with the best settings.")],
    minutes: Annotated[float, typer.Option(min=0, help="How long to try; a training under way is cut short.")] = 60.0,
    trials: Annotated[int | None, typer.Option(min=1, help="At most so many trainings.")] = None,
    changes: Changes = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Look for better training settings on held-out training queries; killed, the same command goes on.

    Example: `distilrank sweep my-domain.yaml -o best.yaml --minutes 120`
    """
    from dataclasses import asdict

    from distilrank.pipeline.sweep import sweep
    from distilrank.recipe import load_recipe
    from distilrank.shards import write_text

    found = sweep(load_recipe(recipe, changes or []), minutes, most=trials, offline=offline)
    write_text(output, found.recipe.to_yaml())
    best = ", ".join(f"{knob} {value}" for knob, value in found.best.changes.items())
    line = f"best of {len(found.trials)}: {best}: agreement {found.best.agreement:.4f} -> {output}"
    result(as_json, line, trials=[asdict(trial) for trial in found.trials], best=asdict(found.best), recipe=str(output))


def _run(recipe: Any, *, offline: bool, restart_from: str | None, as_json: bool, where: Any = None) -> Any:
    """Run a recipe and show its tables; returns the evaluation, or none where the recipe has no test set."""
    from distilrank.evidence import load_evaluation, print_tables
    from distilrank.pipeline import run_recipe

    folder = run_recipe(recipe, offline=offline, restart_from=restart_from, where=where)
    if process_number():
        return None
    evaluation = load_evaluation(folder / "evaluation") if recipe.data.tested else None
    if evaluation and not as_json:
        print_tables(evaluation)
    say(f"model: {folder / 'model'}" + (f"; report: {folder / 'report.html'}" if evaluation else ""))
    return evaluation
