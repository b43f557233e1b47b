"""Flat rows in fixed sizes give the logits of padded batches: on a CPU with graphs stood in for, on a GPU with real ones."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from distilrank.engines import fast
from distilrank.engines.classifier import Reranker
from distilrank.engines.fast import FastReranker, FlatForward, size_of
from distilrank.engines.flat import is_flat

both = pytest.mark.parametrize("name", ["bert", "xlmr"])
RNG = random.Random(5)
GROUPS = [
    tiny.group(tiny.text(RNG, 2, 6), *(tiny.text(RNG, 1, 50) for _ in range(count)))
    for count in (30, 1, 7, 30, 30, 64, 2, 30)
]


class OrdinaryForward:
    """In a graph's place: a forward of the size that it was made for."""

    made = replayed = 0

    def __init__(self, model: Any, inputs: dict[str, Any], pool: Any, aside: Any) -> None:
        self.model, self.shape = model, inputs["input_ids"].shape
        OrdinaryForward.made += 1

    def __call__(self, inputs: dict[str, Any]) -> Any:
        assert inputs["input_ids"].shape == self.shape
        OrdinaryForward.replayed += 1
        return self.model(**inputs).logits[:, 0].float()


@pytest.fixture
def stood_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "Graph", OrdinaryForward)
    OrdinaryForward.made = OrdinaryForward.replayed = 0


def flat(folder: Path, dtype: str = "float32", **more: Any) -> FastReranker:
    """A reranker with graphs switched on without a GPU."""
    reranker = FastReranker(folder, max_length=48, dtype=dtype, device="cpu", **more)
    forward = vars(reranker)["flat"] = FlatForward(reranker.model, dtype, reranker.tokenizer, 48)
    forward.graphed = True
    return reranker


@both
@pytest.mark.usefixtures("stood_in")
def test_flat_scores_are_those_of_padded_batches(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    plain = Reranker(folder, max_length=48, dtype="float32", device="cpu").score(GROUPS)
    reranker = flat(folder)
    for group, expected in zip(GROUPS, plain, strict=True):  # one query at a time, where graphs are
        np.testing.assert_allclose(reranker.score([group])[0], expected, atol=1e-5)
    assert OrdinaryForward.made
    assert OrdinaryForward.replayed >= OrdinaryForward.made
    told: list[int] = []
    together = reranker.score(GROUPS, told.append)
    for found, expected in zip(together, plain, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sum(told) == sum(len(group.passages) for group in GROUPS)
    assert reranker.score([]) == []


@both
@pytest.mark.usefixtures("stood_in")
def test_large_requests_go_in_rows_and_chunks(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fast.TOKENS_A_ROW, "cpu", 300)
    monkeypatch.setattr(fast, "PAIRS_A_CHUNK", 17)
    monkeypatch.setattr(fast, "GRAPH_TOKENS", 200)
    folder = request.getfixturevalue(name)
    plain = Reranker(folder, max_length=48, dtype="float32", device="cpu").score(GROUPS)
    for found, expected in zip(flat(folder).score(GROUPS), plain, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@both
@pytest.mark.usefixtures("stood_in")
def test_bfloat16_weights_keep_an_exact_head_and_agree(name: str, request: pytest.FixtureRequest) -> None:
    reranker = flat(request.getfixturevalue(name), "bfloat16")
    kinds = {parameter.dtype for parameter in reranker.model.parameters()}
    assert kinds == {torch.bfloat16, torch.float32}
    assert reranker.flat.agrees()
    plain = Reranker(request.getfixturevalue(name), max_length=48, dtype="float32", device="cpu").score(GROUPS)
    found = np.concatenate(reranker.score(GROUPS))
    assert np.corrcoef(found, np.concatenate(plain))[0, 1] > 0.99
    assert found.dtype == np.float32


def test_what_disagrees_is_told_and_not_used(bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reranker = FastReranker(bert, max_length=48, dtype="float32", device="cpu")
    forward = FlatForward(reranker.model, "float32", reranker.tokenizer, 48)
    forward._forward = lambda rows, lengths: torch.full((len(lengths),), 9.0)  # type: ignore[method-assign]
    assert not forward.agrees()
    assert "flat rows are off by" in capsys.readouterr().err


def test_rounding_is_no_disagreement() -> None:
    padded, exact = np.array([1.0, 0.2, -0.4]), np.array([1.0, 0.28, -0.4])
    off_by = fast.off_by
    assert off_by([padded + 0.04], padded, lambda: pytest.fail("near enough")) == 0
    assert off_by([padded, exact + 0.15], padded, lambda: exact) == 0, "padded batches are off by .08 themselves"
    assert off_by([padded, exact + 0.17], padded, lambda: exact) == pytest.approx(0.17)
    assert np.isnan(off_by([padded, np.full(3, np.nan)], padded, lambda: exact))


def test_after_a_disagreement_batches_are_padded(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlatForward, "agrees", lambda forward: False)
    reranker = FastReranker(bert, max_length=48, dtype="float32", device="cpu")
    plain = Reranker(bert, max_length=48, dtype="float32", device="cpu").score(GROUPS)
    for found, expected in zip(reranker.score(GROUPS), plain, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not is_flat(reranker.model.config)


@both
def test_on_a_cpu_rows_are_flat_and_short(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    reranker = FastReranker(folder, max_length=48, dtype="float32", device="cpu")
    plain = Reranker(folder, max_length=48, dtype="float32", device="cpu").score(GROUPS)
    for found, expected in zip(reranker.score(GROUPS), plain, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert reranker.flat is not None
    assert not reranker.flat.graphs


def test_where_rows_cannot_be_flat_batches_are_padded(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "can_be_flat", lambda model: False)
    reranker = FastReranker(bert, max_length=48, dtype="float32", device="cpu")
    plain = Reranker(bert, max_length=48, dtype="float32", device="cpu").score(GROUPS)
    for found, expected in zip(reranker.score(GROUPS), plain, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert reranker.flat is None


@given(st.lists(st.integers(1, 512), min_size=1, max_size=300))
def test_a_size_holds_its_pairs_with_little_to_spare(lengths: list[int]) -> None:
    array = np.array(lengths)
    size = size_of(array, 512)
    if array.sum() > fast.GRAPH_TOKENS:
        assert size is None
        return
    assert size is not None
    assert size.holds(array)
    assert size.tokens <= max(1.25 * array.sum(), array.sum() + fast.SHORTEST)
    assert size.pairs <= max(8, 2 * len(array))


@pytest.mark.gpu
@both
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_graphs_agree_on_a_gpu(name: str, dtype: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    reranker = FastReranker(folder, max_length=48, dtype=dtype, device="cuda")
    assert reranker.flat is not None
    plain = Reranker(folder, max_length=48, dtype="float32", device="cpu").score(GROUPS)
    for _ in range(3):
        alone = [reranker.score([group])[0] for group in GROUPS]
        for found, expected in zip(alone, plain, strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-3 if dtype == "float32" else 0.1)
    assert reranker.flat.graphs


@pytest.mark.parametrize("pairs", [0, 30, 4_096, 4_097, 9_000, 100_000])
def test_chunks_are_all_pairs_and_the_first_is_small(pairs: int) -> None:
    taken = [len(range(pairs)[chunk]) for chunk in fast.chunks(pairs)]
    assert sum(taken) == pairs
    assert max(taken, default=0) <= fast.PAIRS_A_CHUNK
    assert pairs <= fast.PAIRS_A_CHUNK or taken[0] == fast.FIRST_CHUNK
