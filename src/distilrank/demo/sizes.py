"""How much the demo does in its 5 or 15 minutes, by what the CPU can multiply."""

from __future__ import annotations

from dataclasses import dataclass

from distilrank.errors import UserError


@dataclass(frozen=True)
class Size:
    """Queries to teach on and to hold out, and passages a query of each."""

    train_queries: int
    train_passages: int
    test_queries: int
    test_passages: int


SIZES = {
    5: {"amx": Size(600, 8, 300, 16), "bfloat16": Size(250, 8, 150, 16), "float32": Size(100, 8, 80, 16)},
    15: {"amx": Size(2000, 8, 600, 16), "bfloat16": Size(900, 8, 300, 16), "float32": Size(350, 8, 150, 16)},
}


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
    return [
        f"output={folder}",
        f"score.store={folder}/scores",
        f"data.train=demo:train:{size.train_passages}",
        f"data.test=demo:test:{size.test_passages}",
        f"data.train_queries={size.train_queries}",
        f"data.test_queries={size.test_queries}",
    ]
