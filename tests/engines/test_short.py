"""Our own attention against plain attention pair by pair, with the very weights dropped.

Without a GPU it runs in Triton's interpreter: TRITON_INTERPRET=1 python -m pytest -m gpu tests/engines/test_short.py
(minutes, and bfloat16 is not among its types).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")
short = pytest.importorskip("distilrank.engines.short")

pytestmark = pytest.mark.gpu
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS, SCALE = 2, 0.2
# Empty pairs, and some that end before, at and after a tile's end.
LENGTHS = st.lists(st.integers(0, 40) | st.sampled_from([31, 32, 33, 64, 65, 100]), min_size=1, max_size=5).filter(sum)


def bounds_of(lengths: list[int]) -> Any:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32, device=DEVICE)


def attended(parts: Any, lengths: list[int], dropout: float) -> Any:
    torch.manual_seed(1)
    return short.attend(*parts, bounds_of(lengths), max(lengths), SCALE, dropout)


def multipliers(lengths: list[int], dropout: float) -> list[Any]:
    """What each pair's weights are multiplied by, [heads, length, length]: keys of 0 give all the same weight, and values
    of one 1 each show it.
    """
    width = 128
    zeros, values = torch.zeros(2, sum(lengths), HEADS, width, device=DEVICE)
    values[torch.arange(len(values)), :, torch.cat([torch.arange(length) for length in lengths])] = 1
    out = attended((zeros, zeros, values), lengths, dropout)
    return [part[:, :, : len(part)].transpose(0, 1) * len(part) for part in out.split(lengths)]


def plain(parts: Any, lengths: list[int], multiplied: list[Any]) -> Any:
    outs = []
    for query, key, value, by in zip(*(part.split(lengths) for part in parts), multiplied, strict=True):
        weights = torch.softmax(torch.einsum("qhd,khd->hqk", query, key) * SCALE, -1)
        outs.append(torch.einsum("hqk,khd->qhd", weights * by, value))
    return torch.cat(outs)


@settings(max_examples=12, phases=[Phase.explicit, Phase.generate])
@given(LENGTHS, st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([16, 64]), st.sampled_from([torch.float32, torch.float16]))
def test_results_and_gradients_are_those_of_plain_attention(
    lengths: list[int], dropout: float, width: int, dtype: Any
) -> None:
    generator = torch.Generator().manual_seed(sum(lengths))
    given = [torch.randn(sum(lengths), HEADS, width, generator=generator).to(DEVICE, dtype) for _ in range(4)]
    multiplied = multipliers(lengths, dropout)

    def results(way: Any, kind: Any) -> list[Any]:
        leaves = [part.to(kind, copy=True).requires_grad_() for part in given[:3]]
        out = way(leaves)
        out.backward(given[3].to(kind))
        return [out.detach().double(), *(leaf.grad.double() for leaf in leaves)]

    found = results(lambda parts: attended(parts, lengths, dropout), dtype)
    expected = results(lambda parts: plain(parts, lengths, [by.double() for by in multiplied]), torch.float64)
    for one, other in zip(found, expected, strict=True):
        # TF32 has the 10 bits of float16.
        assert (one - other).norm() <= 3e-3 * other.norm() + 1e-4


def test_each_weight_is_dropped_by_a_number_of_its_own() -> None:
    lengths = [97, 64, 0, 33, 32, 1, 100]
    multiplied = multipliers(lengths, 0.3)
    drawn = torch.cat([by.flatten() for by in multiplied])
    kept = drawn[drawn != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.7), rtol=2e-3, atol=0)  # TF32's products, times a length
    assert float((drawn == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    # Rows of one number each, of 32 draws: no two rows of any pair or head are the same, or opposite.
    rows = torch.cat([(by[:, :, :32] == 0).reshape(-1, 32) for by in multiplied if by.shape[2] >= 32])
    assert len(rows.unique(dim=0)) == len(rows)
    torch.manual_seed(2)
    other = short.attend(*torch.ones(3, 64, HEADS, 16, device=DEVICE), bounds_of([64]), 64, SCALE, 0.3)
    torch.manual_seed(1)
    again = short.attend(*torch.ones(3, 64, HEADS, 16, device=DEVICE), bounds_of([64]), 64, SCALE, 0.3)
    assert not torch.equal(other, again)


def test_gradients_of_two_forwards_and_of_a_forward_done_again_are_their_own() -> None:
    from torch.utils.checkpoint import checkpoint

    lengths = [40, 7]
    parts = [torch.randn(47, HEADS, 16, device=DEVICE) for _ in range(3)]

    def gradients(way: Any) -> list[Any]:
        torch.manual_seed(3)
        leaves = [part.clone().requires_grad_() for part in parts]
        sum(way(leaves, weight) for weight in (1.0, 10.0)).backward()  # two forwards, then the way back
        return [leaf.grad for leaf in leaves]

    def forward(leaves: Any, weight: float) -> Any:
        return weight * short.attend(*leaves, bounds_of(lengths), 40, SCALE, 0.5).square().sum()

    kept = gradients(forward)
    for one, other in zip(kept, gradients(lambda *given: checkpoint(forward, *given, use_reentrant=False)), strict=True):
        torch.testing.assert_close(one, other)
