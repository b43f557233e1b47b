"""How much the demo does in its 5 or 15 minutes, by what the CPU can multiply."""

from __future__ import annotations

import json
from dataclasses import dataclass

from distilrank.demo.reference import reference_file
from distilrank.errors import UserError

TRAIN_PASSAGES, TEST_PASSAGES = 4, 8
"""Passages a query: many queries with few passages taught more than few with many, at the same cost."""

REFERENCE_SHARE = 4
"""A set outside the domain of a quarter of the test queries: measuring the student takes a quarter longer, some seconds."""


@dataclass(frozen=True)
class Size:
    """Queries to teach on, queries to hold out, and how the former are stepped through."""

    train_queries: int
    test_queries: int
    queries_per_step: int
    learning_rate: float


SIZES = {
    5: {"amx": Size(400, 400, 2, 1e-4), "bfloat16": Size(250, 300, 2, 1e-4), "float32": Size(40, 32, 2, 1e-4)},
    15: {"amx": Size(2300, 1037, 8, 1.5e-4), "bfloat16": Size(1100, 600, 4, 1e-4), "float32": Size(140, 96, 2, 1e-4)},
}
"""Chosen on functions of the training part only (docs/quality.md). Timed: the AMX column, and that of AVX2 at 5 minutes; the
others are scaled."""


def cpu_tier() -> str:
    """`amx`, `bfloat16` (AVX512-BF16) or `float32`: what this CPU multiplies in hardware."""
    import torch

    if torch.cpu._is_amx_tile_supported():
        return "amx"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"


def demo_changes(minutes: int, folder: str) -> list[str]:
    """Changes to the demo recipe for a size, as `--set` takes them. Raises `UserError` on any size but 5 and 15."""
    if minutes not in SIZES:
        raise UserError(f"--minutes {minutes}: the demo has two sizes, 5 and 15")
    size = SIZES[minutes][cpu_tier()]
    outside = [f"demo:reference:{TEST_PASSAGES}:{size.test_queries // REFERENCE_SHARE}"] if reference_file().exists() else []
    return [
        f"output={json.dumps(folder)}",
        f"score.store={json.dumps(folder + '/scores')}",
        f"data.train=demo:train:{TRAIN_PASSAGES}",
        f"data.test=demo:test:{TEST_PASSAGES}",
        f"data.train_queries={size.train_queries}",
        f"data.test_queries={size.test_queries}",
        f"evaluate.out_of_domain={json.dumps(outside)}",
        f"train.queries_per_step={size.queries_per_step}",
        f"train.learning_rate={size.learning_rate}",
    ]
