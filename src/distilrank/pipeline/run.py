"""Running a recipe, and saying what a run would do."""

from __future__ import annotations

from pathlib import Path

from distilrank.data.sources import is_absent
from distilrank.pipeline.check import check_models
from distilrank.pipeline.corpus import corpus_files
from distilrank.pipeline.plan import RecipePlan
from distilrank.pipeline.where import Where
from distilrank.progress import say
from distilrank.recipe import Recipe
from distilrank.shards import write_text
from distilrank.stages import plan_stages, run_stages, start_folder


def run_recipe(
    recipe: Recipe, *, offline: bool = False, restart_from: str | None = None, where: Where | None = None
) -> Path:
    """Run all stages of a recipe, skipping what is done; returns the run folder. `where` its teachers score.

    Among the processes that torchrun starts, the first one does all of it, and the others join its training.

    Raises `UserError` for what the user can mend; whatever was finished before stays.
    """
    from distilrank.students.ranks import joined
    from distilrank.students.train import join_training

    ranks = joined()
    if ranks.rank:
        join_training(ranks)
        return recipe.folder
    start_folder(recipe.folder)
    write_text(recipe.folder / "recipe.yaml", recipe.to_yaml())
    say(f"{recipe.name} -> {recipe.folder}")
    plan = RecipePlan(recipe, offline=offline, ranks=ranks, where=where)
    plan.where.check(plan.named)
    check_models(recipe, plan.resolve)
    _ = plan.members  # built without their weights: a template or a setting that is wrong is told now
    run_stages(plan, recipe.folder, restart_from)
    if not plan.trained:
        ranks.first(tuple)  # nothing to join
    return recipe.folder


def plan_recipe(recipe: Recipe, *, restart_from: str | None = None) -> list[tuple[str, str, str]]:
    """What `run_recipe` would do, a line a stage: (stage, what it does, state). Touches no network. A local file or
    folder that the recipe names and that is not there is named in the first line.
    """
    plan = RecipePlan(recipe, offline=True)
    models = [teacher.source for teacher in plan.named if teacher.kind != "http"]
    named = [recipe.data.train, recipe.data.test, *corpus_files(recipe.data.corpus), *models, recipe.student.model]
    named += [recipe.evaluate.embedder, *recipe.evaluate.models, *recipe.evaluate.out_of_domain]
    absent = [source for source in named if source and not source.startswith("demo:") and is_absent(source)]
    check_models(recipe, lambda source: Path(source) if Path(source).is_dir() else None)
    (name, does, state), *rest = plan_stages(plan, recipe.folder, restart_from)
    return [(name, f"{does} (not there yet: {', '.join(absent)})" if absent else does, state), *rest]
