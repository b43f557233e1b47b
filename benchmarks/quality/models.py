"""Students and teachers of the quality bench, all out of wheels from PyPI."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from distilrank.data.sources import cache_folder
from distilrank.demo import demo_model
from distilrank.metrics import measure
from distilrank.recipe import CrossEncoderSpec, EmbedderSpec, EnsembleSpec, LikelihoodSpec
from distilrank.records import Group
from distilrank.scoring import ScoreStore, score
from distilrank.shards import whole_folder
from distilrank.teachers import build_teacher

TEMPLATE = dict.fromkeys(("cosqa", "stdlib", "mathematics", "web"), "chatml-docstring")
"""Of the likelihood teacher: which text is asked for; elsewhere a question."""
MEMBERS = ("likelihood", "cross-encoder", "embedder")
PAIRS = {
    "cut": ("minilm-12-first-6", "minilm-12"),
    "cut-3": ("minilm-12-first-3", "minilm-12"),
    "whole": ("minilm-12", "ensemble"),
    "fresh": ("minilm-6-fresh", "ensemble"),
}
"""Student and teacher of each pair."""


def student(name: str) -> Path:
    """The folder of a student: ms-marco-MiniLM-L-12, its first layers, or all-MiniLM-L6 with a fresh head."""
    if name == "minilm-12":
        return demo_model("reranker")
    return demo_model("embedder") if name == "minilm-6-fresh" else _first_layers(int(name.rsplit("-", 1)[1]))


def _first_layers(count: int) -> Path:
    """ms-marco-MiniLM-L-12 cut to its first layers, its head kept: what it knew is broken, and has to be learnt anew."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    whole, folder = demo_model("reranker"), cache_folder() / "demo" / f"ms-marco-MiniLM-L-12-v2-first-{count}"
    if not folder.exists():
        model = AutoModelForSequenceClassification.from_pretrained(whole, dtype="float32")
        model.bert.encoder.layer = model.bert.encoder.layer[:count]
        model.config.num_hidden_layers = count
        with whole_folder(folder) as partial:
            model.save_pretrained(partial)
            AutoTokenizer.from_pretrained(whole).save_pretrained(partial)
    return folder


def member_scores(kind: str, dataset: str, parts: Sequence[list[Group]], store: Path) -> list[list[np.ndarray]]:
    """A pointwise teacher's scores of each part, out of the one store; what it lacks is asked."""
    if kind == "likelihood":
        template = TEMPLATE.get(dataset, "chatml-question")
        spec = LikelihoodSpec(model=str(demo_model("llm")), template=template, max_length=512)
    elif kind == "cross-encoder":
        spec = CrossEncoderSpec(model=str(demo_model("reranker")))
    else:
        spec = EmbedderSpec(model=str(demo_model("embedder")), max_length=256)
    teacher = build_teacher(spec)
    kept = ScoreStore(store, teacher.identity, kind)
    for part in parts:
        score(part, teacher, kept, title=f"{kind}, {dataset}")
    teacher.release()
    return [list(kept.scores(part)) for part in parts]


def combined(kinds: Sequence[str], scores: dict[str, list[list[np.ndarray]]]) -> list[list[np.ndarray]]:
    """Members with equal weight, each taken to a within-query deviation of 1 on the training part (the first)."""
    if len(kinds) == 1:
        return scores[kinds[0]]
    specs = {"likelihood": LikelihoodSpec, "cross-encoder": CrossEncoderSpec, "embedder": EmbedderSpec}
    sources = {"likelihood": "llm", "cross-encoder": "reranker", "embedder": "embedder"}
    members = tuple(specs[kind](model=str(demo_model(sources[kind]))) for kind in kinds)
    ensemble = build_teacher(EnsembleSpec(members=members))
    affines = ensemble.fit([scores[kind][0] for kind in kinds])
    parts = range(len(scores[kinds[0]]))
    return [ensemble.combine([scores[kind][part] for kind in kinds], affines) for part in parts]


def best_ensemble(
    validation: list[Group], scores: dict[str, list[list[np.ndarray]]]
) -> tuple[tuple[str, ...], dict[str, float]]:
    """The members whose combination has the highest MAP on validation queries, and the MAP of each combination."""
    found = {}
    for count in range(1, len(MEMBERS) + 1):
        for kinds in combinations(MEMBERS, count):
            found[kinds] = measure(validation, combined(kinds, scores)[1], ("AP",)).mean("AP")
    best = max(found, key=lambda kinds: found[kinds])
    return best, {" + ".join(kinds): round(value, 4) for kinds, value in found.items()}
