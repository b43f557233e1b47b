"""The room that a run needs: memory of a device, and disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilrank.pipeline.hardware import throughputs
from distilrank.pipeline.sizes import configured, pair_tokens

if TYPE_CHECKING:
    from distilrank.pipeline.estimate import Estimator, Work

STORED = 24
"""Bytes of a pair in the store: its digest, which does not compress, and its score."""
ACTIVATIONS = 46
"""Bytes a token, layer and unit of width in training: 46.7 GiB at 41,472 tokens a step, 9.6 at 5,184."""
LIBRARIES_GB = 1.5


def memory(found: Estimator, members: Sequence[tuple[Any, Any, Path | None]]) -> float:
    """GB, the most of a teacher with a row, and the student in training; its steps go in pieces where they must."""
    from distilrank.students.learn import TOKENS_A_GRAPH, TOKENS_A_PIECE

    most = 0.0
    for member, _, folder in members:
        if member.kind != "http":
            shape = configured(member.model, folder, throughputs(), [])
            wide = 1.0 if getattr(member, "dtype", "") == "float8" else 2.0 if found.on.device == "cuda" else 4.0
            most = max(
                most, wide * shape.parameters / 1e9 + (7.5 * shape.hidden / 4096 if found.on.device == "cuda" else 0.5)
            )
    train, student = found.recipe.train, found.student
    tokens = pair_tokens(found.train, found.tokenizer, found.recipe.student.max_length)
    a_group = found.passages_a_query() / found.groups_a_query()
    pairs = 2 * train.batch_size if train.mode == "triplets" else train.queries_per_step * a_group
    step = pairs * tokens / found.on.count
    piece = TOKENS_A_PIECE[found.on.device]
    tried = [min(step, piece), min(step, piece / 2), min(step, piece / 4)]  # training halves them where memory runs out
    if found.on.device == "cuda" and step <= TOKENS_A_GRAPH and not train.gradient_checkpointing:
        tried.insert(0, step)  # a graph holds the whole step
    # The table is cut down to the tokens that occur (students/compact.py).
    taught = [16 * student.linear / 1e9 + tokens * ACTIVATIONS * student.layers * student.hidden / 1e9 for tokens in tried]
    libraries = LIBRARIES_GB if found.on.device == "cpu" else 1.0
    fits = next((held for held in taught if held + libraries <= (found.on.memory or held + libraries)), taught[-1])
    return max(most, fits) + libraries


def disk(found: Estimator, members: Sequence[tuple[Any, Any, Path | None]], pairs: int, training: Work) -> float:
    """GB that a run adds: models to fetch, groups and scores, the tokens taught, three checkpoints and the model."""
    fetched = 0.0
    for source, (folder, weights) in found.folders.items():
        if not weights and not source.startswith("demo:"):
            wide = 4 if source == found.recipe.student.model else 2
            fetched += wide * configured(source, folder, throughputs(), []).parameters
    texts = 2 * (found.train.characters + found.test.characters)  # as groups and as scored pairs
    trained = (3 * 12 + 4) * found.student.parameters
    return (fetched + texts + STORED * pairs * len(members) + 4 * training.tokens + trained) / 1e9
