"""Float8 layers: near the ones they stand for, row-wise, and only where they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from distilrank.engines.float8 import LARGEST, _layer, to_float8
from distilrank.engines.load import load_model
from distilrank.errors import UserError


@settings(max_examples=30)
@given(st.integers(0, 1_000), st.booleans(), st.floats(1e-3, 1e3))
def test_a_product_is_near_the_exact_one_whatever_the_scale_of_a_row(seed: int, bias: bool, scale: float) -> None:
    torch.manual_seed(seed)
    exact = torch.nn.Linear(64, 48, bias=bias)
    x = torch.randn(2, 5, 64) * torch.tensor([1.0, scale, 1.0, 1.0, scale])[None, :, None]
    with torch.no_grad():
        found, wanted = _layer()(exact)(x), exact(x)
    # e4m3 keeps 3 bits: a relative error of 2^-4 at most a factor, averaged out over the sum
    assert ((found - wanted).norm(dim=-1) < 0.08 * (wanted.norm(dim=-1) + x.norm(dim=-1) * 0.1)).all()
    assert found.shape == wanted.shape


def test_a_row_of_zeros_stays_zeros() -> None:
    layer = _layer()(torch.nn.Linear(16, 16, bias=False))
    assert layer(torch.zeros(3, 16)).abs().max() == 0
    assert layer.weight.float().abs().max() == LARGEST


@pytest.mark.parametrize(("keep", "changed"), [(0, [0, 1, 2]), (1, [1])])
def test_the_first_and_last_layers_can_be_kept(tmp_path: Path, keep: int, changed: list[int]) -> None:
    model = load_model("AutoModelForCausalLM", tiny.causal_folder(tmp_path, num_hidden_layers=3), "bfloat16", "cpu")
    to_float8(model, keep)
    kinds = [type(layer.mlp.down_proj).__name__ for layer in model.model.layers]
    assert [i for i, kind in enumerate(kinds) if kind == "Float8Linear"] == changed
    assert type(model.lm_head) is torch.nn.Linear


def test_keeping_every_layer_is_refused(qwen: Path) -> None:
    with pytest.raises(UserError, match="has 2 layers, of which keeping 1 at each end leaves none"):
        to_float8(load_model("AutoModelForCausalLM", qwen, "bfloat16", "cpu"), 1)
