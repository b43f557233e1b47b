"""What a run's model was made of, for its card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distilrank.evidence.card import Origin, Origins, licence_of
from distilrank.pipeline.names import published_name
from distilrank.pipeline.systems import training_record
from distilrank.recipe import Recipe
from distilrank.shards import sha256


def origins_of(recipe: Recipe, student: Path, teachers: Sequence[tuple[Any, Any]]) -> Origins:
    """`student` is its folder; of each teacher its settings as given, and with local paths."""
    record = training_record(recipe.folder / "model") or {}
    rate = record.get("settings", {}).get("learning_rate", recipe.train.learning_rate)  # what `auto` came to
    digest = sha256(recipe.folder / "recipe.yaml")[:12]
    return Origins(
        name=recipe.name,
        student=Origin(published_name(recipe.student.model), licence_of(student)),
        teacher=[
            Origin(published_name(given.source), licence_of(getattr(local, "model", "") or "")) for given, local in teachers
        ],
        train=Origin(published_name(recipe.data.train or "queries written to the passages of a corpus")),
        test=Origin(published_name(recipe.data.test or "")),
        command=f"distilrank run recipe.yaml    # sha256 {digest}..., seed {recipe.seed}",
        method=f"{recipe.train.told}, learning rate {rate}",
        max_length=recipe.student.max_length,
    )
