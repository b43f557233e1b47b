"""A branch packed behind a shared prefix has the log-likelihood that it has alone."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from distilrank.engines import packing
from distilrank.engines.load import load_model
from distilrank.engines.packing import Prefixed, branch_log_likelihoods
from distilrank.errors import UserError

TOKENS = st.lists(st.integers(5, 250), min_size=1, max_size=12)
ITEMS = st.lists(st.builds(Prefixed, TOKENS, st.lists(TOKENS, min_size=1, max_size=20)), min_size=1, max_size=4)


@pytest.fixture(scope="module", params=["qwen", "llama"])
def model(request: pytest.FixtureRequest) -> Any:
    return load_model("AutoModelForCausalLM", request.getfixturevalue(request.param), "float32", "cpu")


def alone(model: Any, prefix: list[int], branch: list[int]) -> float:
    """Mean log-likelihood of a branch from a plain forward of the one sequence."""
    with torch.inference_mode():
        log_p = model(torch.tensor([prefix + branch])).logits[0].float().log_softmax(-1)
    return float(np.mean([log_p[len(prefix) + place - 1, token] for place, token in enumerate(branch)]))


@settings(max_examples=12, deadline=None)
@given(ITEMS)
def test_packed_branches_equal_plain_forwards(model: Any, items: list[Prefixed]) -> None:
    for item, found in zip(items, branch_log_likelihoods(model, items), strict=True):
        expected = [alone(model, item.prefix, branch) for branch in item.branches]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert found.dtype == np.float32


def test_a_branch_does_not_depend_on_what_it_is_packed_with(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    items = [
        Prefixed(rng.integers(5, 250, 3 + n).tolist(), [rng.integers(5, 250, 1 + k % 5).tolist() for k in range(1 + 7 * n)])
        for n in range(5)
    ]
    whole = branch_log_likelihoods(model, items)
    reverse = branch_log_likelihoods(model, items[::-1])[::-1]
    monkeypatch.setattr(packing, "BRANCHES_A_ROW", 2)
    monkeypatch.setattr(packing, "HEAD_ROWS", 3)
    monkeypatch.setitem(packing.TOKENS_A_BATCH, "cpu", 30)
    small = branch_log_likelihoods(model, items)
    for of_whole, of_reverse, of_small in zip(whole, reverse, small, strict=True):
        np.testing.assert_allclose(of_reverse, of_whole, atol=1e-4)
        np.testing.assert_allclose(of_small, of_whole, atol=1e-4)


def test_progress_counts_every_branch(model: Any) -> None:
    told: list[int] = []
    branch_log_likelihoods(model, [Prefixed([5, 6], [[7]] * 40), Prefixed([8], [[9, 10]])], told.append)
    assert sum(told) == 41


ODD = {
    "scaled logits": ("Granite", {"logits_scaling": 4.0}),
    "capped logits": ("Gemma2", {"head_dim": 8}),
    "a sliding window": ("Mistral", {"sliding_window": 4}),
}


@pytest.mark.parametrize("oddity", ODD)
def test_a_model_that_does_more_than_a_plain_decoder_is_exact_or_refused(tmp_path: Path, oddity: str) -> None:
    name, config = ODD[oddity]
    model = load_model("AutoModelForCausalLM", tiny.causal_folder(tmp_path, name, **config), "float32", "cpu")
    item = Prefixed(list(range(5, 17)), [[8, 9, 30], [10]])
    expected = [alone(model, item.prefix, branch) for branch in item.branches]
    with contextlib.suppress(UserError):
        np.testing.assert_allclose(branch_log_likelihoods(model, [item])[0], expected, atol=1e-4)
