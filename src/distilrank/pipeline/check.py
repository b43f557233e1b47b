"""What a recipe names, looked at before the first stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from distilrank.pipeline.corpus import check_corpus
from distilrank.recipe import EnsembleSpec, Recipe


def check_models(recipe: Recipe, resolve: Callable[[str], Path | None]) -> None:
    """Refuse a model of the wrong kind, an unknown template or language now, and not after a stage was paid for.

    `resolve` gives a model's folder, or none where it is not to be looked at. Raises `UserError`.
    """
    from distilrank.engines.load import model_config
    from distilrank.teachers.build import refuse_other_kind

    teacher = recipe.teacher
    for spec in teacher.members if isinstance(teacher, EnsembleSpec) else (teacher,):
        if spec.kind != "http" and (folder := resolve(spec.model)):
            refuse_other_kind(spec.kind, folder)
    if folder := resolve(recipe.student.model):
        model_config(folder)
    embedder = recipe.evaluate.embedder
    if embedder and (folder := resolve(embedder)):
        refuse_other_kind("embedder", folder, "evaluate.embedder must be a sentence-transformers embedder")
    if recipe.data.corpus:
        check_corpus(recipe.data.corpus, resolve)
