"""One cell of the bench: a student taught by an arm on a set, and what it is worth."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import models
import numpy as np
import sets
from arms import BUDGET, Arm

from distilrank.engines.batches import split_like
from distilrank.engines.classifier import Reranker, encode_pairs, score_encoded
from distilrank.engines.load import load_tokenizer
from distilrank.metrics import agreement, measure
from distilrank.mining import MiningSettings, mine_groups
from distilrank.mining.triplets import triplets_of
from distilrank.records import (
    Group,
    Passage,
    ScoredPair,
    TrainingGroup,
    row_of_group,
    write_training_groups,
    write_triplets,
)
from distilrank.shards import write_text
from distilrank.students import TrainSettings, learn, train
from distilrank.students.losses import LOSSES

EASY = 8
"""Passages of other queries that are scored beside each training query's own, for the arms that ask for them."""
MEASURES = ("AP", "RR@10", "nDCG@10")


@dataclass(frozen=True)
class Material:
    """A set as a pair sees it: groups and the teacher's scores of each part; `train` has EASY further passages last."""

    parts: dict[str, list[Group]]
    teacher: dict[str, list[np.ndarray]]
    members: tuple[str, ...]
    tried: dict[str, float]


@cache
def material(dataset: str, pair: str, store: Path) -> Material:
    """The groups of a set, cut to what the student sees, with the pair's teacher's scores.

    Kept beside the store: each of many workers needs all sets, and would load all teachers to learn what the store has.
    """
    kept = store / "material" / f"{dataset}-{pair}.json"
    if kept.exists():
        parts, teacher, members, tried = json.loads(kept.read_text(encoding="utf-8"))
        groups = {part: list(map(_group, rows)) for part, rows in parts.items()}
        scores = {part: [np.array(row) for row in rows] for part, rows in teacher.items()}
        return Material(groups, scores, tuple(members), tried)
    made = _made(dataset, pair, store)
    rows = {part: list(map(row_of_group, groups)) for part, groups in made.parts.items()}
    scores = {part: [np.asarray(row).tolist() for row in rows] for part, rows in made.teacher.items()}
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_text(kept, json.dumps([rows, scores, made.members, made.tried]))
    return made


def _group(row: dict[str, Any]) -> Group:
    # Cut to what the student sees, two passages can be the same with different labels: `group_of` would refuse.
    return Group(row["query_id"], row["query"], tuple(Passage(**passage) for passage in row["passages"]))


def _made(dataset: str, pair: str, store: Path) -> Material:
    student, teacher = models.PAIRS[pair]
    tokenizer = load_tokenizer(models.student(student))
    split = sets.splits(dataset)
    parts = {part: sets.cut(dataset, getattr(split, part), tokenizer) for part in ("train", "validation", "test")}
    parts["train"] = [_with_easy(group, parts["train"]) for group in parts["train"]]
    kinds = ("cross-encoder",) if teacher == "minilm-12" else models.MEMBERS
    scores = {kind: models.member_scores(kind, dataset, list(parts.values()), store) for kind in kinds}
    members, tried = (kinds, {}) if len(kinds) == 1 else models.best_ensemble(parts["validation"], scores)
    return Material(parts, dict(zip(parts, models.combined(members, scores), strict=True)), members, tried)


def _with_easy(group: Group, others: list[Group]) -> Group:
    rng, own = random.Random(f"easy {group.query}"), {passage.text for passage in group.passages}
    added: list[Any] = []
    while len(added) < EASY:
        passage = rng.choice(rng.choice(others).passages)
        if passage.text not in own:
            own.add(passage.text)
            added.append(passage)
    return replace(group, passages=(*group.passages, *added))


@cache
def _encoded(dataset: str, part: str, pair: str, store: Path, max_length: int) -> Any:
    groups = material(dataset, pair, store).parts[part]
    tokenizer = load_tokenizer(models.student(models.PAIRS[pair][0]))
    queries = [group.query for group in groups for _ in group.passages]
    return encode_pairs(tokenizer, queries, [p.text for group in groups for p in group.passages], max_length)


def values(
    folder: Path, dataset: str, part: str, pair: str, store: Path, max_length: int, device: str
) -> dict[str, np.ndarray]:
    """A student's measures on a part of a set, a value a query, and its agreement with the teacher."""
    reranker, found = _reranker(str(folder), device), material(dataset, pair, store)
    groups, teacher = found.parts[part], found.teacher[part]
    encoded = _encoded(dataset, part, pair, store, max_length)
    flat = score_encoded(reranker.model, encoded, reranker.tokenizer.pad_token_id or 0, reranker.dtype)
    scores = split_like(flat, teacher)
    return measure(groups, scores, MEASURES).values | {"agreement": agreement(teacher, scores)}


@lru_cache(maxsize=1)
def _reranker(folder: str, device: str) -> Reranker:
    return Reranker(folder, device=device, fresh_head=True)


def taught(dataset: str, pair: str, arm: Arm, seed: int, store: Path) -> tuple[list[TrainingGroup], list[TrainingGroup]]:
    """What the arm teaches, and all that it could: groups mined by its rule, and whole groups for the budget."""
    found, more = material(dataset, pair, store), arm.more
    rng = random.Random(f"{dataset} {seed}")
    chosen = set(rng.sample(range(len(found.parts["train"])), round(more.get("share", 1) * len(found.parts["train"]))))
    spread = np.sqrt(np.mean([np.var(scores[:-EASY]) for scores in found.teacher["train"]]))
    scale = more["deviation"] / spread if "deviation" in more else 1.0
    pairs, whole = [], []
    for number, (group, scores) in enumerate(zip(found.parts["train"], found.teacher["train"], strict=True)):
        own = len(group.passages) - EASY
        texts = [passage.text for passage in group.passages]
        whole.append(TrainingGroup(group.query, tuple(texts[:own]), tuple(map(float, scores[:own]))))
        if number in chosen:
            kept = rng.sample(range(own), min(own, more.get("depth", own))) + list(range(own, own + more.get("easy", 0)))
            pairs += [ScoredPair(group.query, texts[place], float(scores[place]) * scale) for place in sorted(kept)]
    return list(mine_groups(pairs, MiningSettings(**arm.mine, seed=seed))), whole


def _tokens(groups: list[TrainingGroup], tokenizer: Any, max_length: int, *, triplets: bool) -> int:
    """Tokens that one pass over the groups forwards."""
    queries = [group.query for group in groups for _ in group.passages]
    encoded = encode_pairs(tokenizer, queries, [text for group in groups for text in group.passages], max_length)
    lengths = split_like(np.array([len(ids) for ids in encoded["input_ids"]]), [group.passages for group in groups])
    if not triplets:
        return int(sum(map(np.sum, lengths)))
    total = 0
    for group, of_group in zip(groups, lengths, strict=True):
        count = len(group.passages)
        for i, j in group.pairs or combinations(range(count), 2):
            total += int(of_group[i] + of_group[j])
    return total


def run_cell(
    dataset: str, pair: str, arm: Arm, seed: int, store: Path, device: str, part: str, outside: list[str]
) -> dict[str, Any]:
    """Teach, measure on a part of the set, and on validation queries of the other sets what was forgotten."""
    folder = models.student(models.PAIRS[pair][0])
    max_length = sets.MAX_LENGTH[dataset]
    groups, whole = taught(dataset, pair, arm, seed, store)
    triplets = arm.train["mode"] == "triplets"
    tokenizer, cut = load_tokenizer(folder), min(max_length, arm.more.get("max_length", max_length))
    allowed = arm.more.get("budget", BUDGET) * _tokens(whole, tokenizer, max_length, triplets=False)
    once = _tokens(groups, tokenizer, cut, triplets=triplets)
    epochs = arm.more.get("epochs", allowed / once)
    settings = TrainSettings(**arm.train, epochs=epochs, max_length=cut, seed=seed, device=device, bounded_scores=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place, _variant(arm.more):
        data, model = Path(place) / "taught.parquet", Path(place) / "model"
        write_triplets(data, triplets_of(groups)) if triplets else write_training_groups(data, groups)
        result = train(data, folder, model, settings)
        seconds = time.monotonic() - start
        after = values(model, dataset, part, pair, store, max_length, device)
        other = {
            name: float(np.nanmean(values(model, name, "validation", pair, store, sets.MAX_LENGTH[name], device)["AP"]))
            for name in outside
        }
    return {
        "tokens": round(once * epochs),
        "steps": result.steps,
        "seconds": round(seconds, 2),
        "skipped": result.skipped,
        "after": {name: round(float(np.nanmean(of_queries)), 5) for name, of_queries in after.items()},
        "outside": {name: round(value, 5) for name, value in other.items()},
        "AP": [None if value != value else round(float(value), 5) for value in after["AP"]],
    }


def ends(dataset: str, pair: str, store: Path, device: str, part: str) -> dict[str, Any]:
    """The student before and the teacher on a part: what every arm lies between."""
    found, folder = material(dataset, pair, store), models.student(models.PAIRS[pair][0])
    before = values(folder, dataset, part, pair, store, sets.MAX_LENGTH[dataset], device)
    teacher = measure(found.parts[part], found.teacher[part], MEASURES).values
    rounded = {
        name: {measured: round(float(np.nanmean(of)), 5) for measured, of in of_system.items()}
        for name, of_system in (("before", before), ("teacher", teacher))
    }
    return rounded | {"members": found.members, "tried": found.tried, "queries": len(found.parts[part])}


@contextmanager
def _variant(more: dict[str, Any]) -> Iterator[None]:
    """Layers as they are (compiling them takes longer than these trainings), and what only the bench has."""
    made, compiled, plain = learn.group_learner, learn.compile_layers, dict(LOSSES)

    def varied(model: Any, *arguments: Any) -> Any:
        learner = made(model, *arguments)
        if more.get("freeze"):
            model[0].model.get_input_embeddings().weight.requires_grad_(False)
        if decay := more.get("layer_decay"):
            _decayed(learner.trainer, model[0].model, decay)
        return learner

    if "temperature" in more:
        LOSSES["kl"] = (partial(LOSSES["kl"][0], temperature=more["temperature"]), LOSSES["kl"][1])
    learn.group_learner, learn.compile_layers = varied, lambda *_, **__: None
    try:
        yield
    finally:
        learn.group_learner, learn.compile_layers = made, compiled
        LOSSES.update(plain)


def _decayed(trainer: Any, body: Any, decay: float) -> None:
    """Layer-wise learning rates: the deeper below the head, the lower (Howard and Ruder 2018, arXiv 1801.06146)."""
    import torch

    layers = body.config.num_hidden_layers
    create = trainer.create_optimizer

    def depth(name: str) -> int:
        parts = name.split(".")
        if "layer" in parts:
            return layers - int(parts[parts.index("layer") + 1])
        return layers + 1 if "embeddings" in name else 0

    def create_decayed(model: Any = None) -> Any:
        optimiser = create(model)
        names = {id(p): name for name, p in body.named_parameters()}
        groups = []
        for group in optimiser.param_groups:
            for level in range(layers + 2):
                if chosen := [p for p in group["params"] if depth(names[id(p)]) == level]:
                    rate = torch.as_tensor(group["lr"]) * decay**level
                    groups.append(group | {"params": chosen, "lr": rate if rate.is_cuda else float(rate)})
        optimiser.param_groups = groups
        return optimiser

    trainer.create_optimizer = create_decayed
