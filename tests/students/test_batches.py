"""A step holds every passage once, with its scores, in pieces of whole groups; steps cost about the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, XLMRobertaConfig

from distilrank.engines.flat import Size
from distilrank.engines.kernels import NAME
from distilrank.engines.load import load_model
from distilrank.students.batches import BalancedBatches, GroupCollator, StepSize, step_size
from distilrank.students.dataset import Sizes
from distilrank.students.losses import LOSSES, WeightedSum
from distilrank.students.trainer import GroupLoss

MARGINS = WeightedSum({"margin_mse": 1.0})


def row(ids: list[list[int]], scores: list[float], pairs: Any = (), labels: Any = ()) -> dict[str, Any]:
    """A row of the data set whose pairs share no token."""
    more = {"scores": scores, "pairs": [list(pair) for pair in pairs], "labels": list(labels)}
    return {"shared_input_ids": [], "rest_input_ids": ids} | more


@st.composite
def rows(draw: Any) -> list[dict[str, Any]]:
    """Rows whose passages have distinct numbers: each pair's first token is its number, and so is its score."""
    number, result = 0, []
    for _ in range(draw(st.integers(1, 5))):
        size = draw(st.integers(2, 6))
        ids = [[number + k] + [0] * draw(st.integers(0, 40)) for k in range(size)]
        pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
        chosen = draw(st.one_of(st.just([]), st.lists(st.sampled_from(pairs), min_size=1, unique=True)))
        labels = draw(st.one_of(st.just([]), st.just([1] + [0] * (size - 1))))
        result.append(row(ids, [float(of_pair[0]) for of_pair in ids], chosen, labels))
        number += size
    return result


def collator(config: Any = None, budget: int = 10_000, *, margins: bool = False, **more: Any) -> GroupCollator:
    return GroupCollator(config or BertConfig(), 0, more.pop("loss", MARGINS), budget, margins=margins, **more)


def as_cross_encoder(model: Any) -> Any:
    """What `GroupLoss` finds a model in: sentence-transformers keeps it under [0].model."""
    holder = torch.nn.Module()
    holder.model = model
    whole = torch.nn.Sequential(holder)
    whole.device = torch.device("cpu")
    return whole


def listed(row: dict[str, Any]) -> list[tuple[float, float]]:
    """The scores of the margins that count."""
    scores, count = row["scores"], len(row["scores"])
    pairs = row["pairs"] or [(i, j) for i in range(count) for j in range(i + 1, count)]
    return [(scores[i], scores[j]) for i, j in pairs]


@given(rows(), st.integers(1, 200), st.booleans())
def test_every_passage_is_forwarded_once_beside_its_own_score(rows: list[dict[str, Any]], budget: int, flat: bool) -> None:
    margins = any(row["pairs"] for row in rows)
    step = collator(flat_config() if flat else BertConfig(), budget, margins=margins)(rows)["step"]
    found, pairs, labels = [], [], []
    for piece in step["pieces"]:
        inputs, teacher = piece["inputs"], piece["teacher"]
        firsts = inputs["input_ids"][0, inputs["firsts"]] if flat else inputs["input_ids"][:, 0]
        assert firsts.tolist() == teacher.tolist()
        assert piece["group"].diff().ge(0).all()
        found += teacher.tolist()
        labels += zip(teacher.tolist(), piece["labels"].tolist(), strict=True)
        if margins:
            assert (piece["group"][piece["pairs"][:, 0]] == piece["group"][piece["pairs"][:, 1]]).all()
            pairs += [tuple(pair) for pair in teacher[piece["pairs"]].tolist()]
    assert sorted(found) == [score for row in rows for score in row["scores"]]
    assert dict(labels) == {
        score: label for row in rows for score, label in zip(row["scores"], row["labels"] or [-1] * 9, strict=False)
    }
    if margins:
        assert sorted(pairs) == sorted(pair for row in rows for pair in listed(row))


@given(rows(), st.integers(1, 300))
def test_a_piece_holds_whole_groups_and_no_more_tokens_than_asked_for_but_of_a_single_group(
    rows: list[dict[str, Any]], budget: int
) -> None:
    for config in (BertConfig(), flat_config()):
        for piece in collator(config, budget)(rows)["step"]["pieces"]:
            groups = set(piece["group"].tolist())
            assert piece["inputs"]["input_ids"].numel() <= budget or len(groups) == 1
            scores = set(piece["teacher"].tolist())
            assert all(scores >= set(row["scores"]) or scores.isdisjoint(row["scores"]) for row in rows)


def test_padding_is_masked_and_has_the_tokenizers_number() -> None:
    collate = GroupCollator(BertConfig(), 7, MARGINS, 100, margins=False)
    (piece,) = collate([row([[1, 2, 3], [4]], [0.0, 1.0])])["step"]["pieces"]
    assert piece["inputs"]["input_ids"].tolist() == [[1, 2, 3], [4, 7, 7]]
    assert piece["inputs"]["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert piece["inputs"]["input_ids"].dtype == torch.long


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_in_pieces_has_the_gradients_of_one(loss: str, bert: Path) -> None:
    model = load_model("AutoModelForSequenceClassification", bert, "float32", "cpu")
    ids = [[[2, 5 + n, 3] * (1 + n + p) for p in range(2 + n)] for n in range(3)]
    some = [row(of, [3.0, 1.0, float(n), 0.5][: len(of)], labels=[1, 0, 0, 2][: len(of)]) for n, of in enumerate(ids)]
    weighted = WeightedSum({loss: 1.0})
    gradients = []
    for budget in (10_000, 8):
        step = collator(BertConfig(), budget, loss=weighted)(some)["step"]
        assert (len(step["pieces"]) > 1) == (budget == 8)
        model.zero_grad()
        for piece in step["pieces"]:
            GroupLoss(as_cross_encoder(model), weighted)(piece, step["units"]).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for one, many in zip(*gradients, strict=True):
        torch.testing.assert_close(many, one, rtol=1e-4, atol=1e-5)


def test_the_products_of_a_step_are_of_the_type_asked_for(bert: Path) -> None:
    model = load_model("AutoModelForSequenceClassification", bert, "float32", "cpu")
    seen = []
    layer = model.bert.encoder.layer[0].intermediate.dense
    layer.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    for dtype in ("float32", "bfloat16"):
        step = collator(model.config)([row([[2, 5, 3], [2, 6, 3]], [1.0, 0.0])])["step"]
        loss = GroupLoss(as_cross_encoder(model), MARGINS, dtype)(step["pieces"][0], step["units"])
        assert loss.dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16]


@given(st.lists(st.integers(2, 6), min_size=1, max_size=5), st.integers(0, 99))
def test_the_margin_correlation_is_that_of_all_margins(counts: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    group = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    student, teacher = torch.randn(2, len(group), generator=generator)

    class Model(torch.nn.Module):
        def forward(self, logits: Any) -> Any:
            return SimpleNamespace(logits=logits)

    loss = GroupLoss(as_cross_encoder(Model()), MARGINS)
    # In two pieces where there are two groups.
    for part in (group == 0, group > 0):
        if part.any():
            numbers = group[part] - group[part].min()
            loss({"inputs": {"logits": student[part]}, "teacher": teacher[part], "group": numbers}, None)
    places = [(i, j) for i in range(len(group)) for j in range(i + 1, len(group)) if group[i] == group[j]]
    margins = [np.array([float(x[i] - x[j]) for i, j in places]) for x in (student, teacher)]
    wanted = margins[0] @ margins[1] / np.sqrt((margins[0] ** 2).sum() * (margins[1] ** 2).sum())
    assert loss.margin_correlation() == pytest.approx(wanted, abs=1e-4)
    assert np.isnan(loss.margin_correlation())


# ---- steps of fixed size


@given(rows(), st.integers(0, 40), st.integers(0, 5))
def test_a_step_of_fixed_size_costs_what_it_costs_otherwise(rows: list[dict[str, Any]], slack: int, missing: int) -> None:
    lengths = [len(ids) for row in rows for ids in row["rest_input_ids"]]
    margins = any(row["pairs"] for row in rows)
    ordinary = collator(flat_config(), margins=margins)(rows)["step"]
    count = sum(len(listed(row)) for row in rows) + missing
    size = StepSize(Size(sum(lengths) + slack, len(lengths) + missing, max(lengths)), count)
    fixed = collator(flat_config(), margins=margins, size=size)(rows)["step"]
    assert (fixed["fixed"], ordinary["fixed"]) == (True, False)
    (whole,), (filled,) = ordinary["pieces"], fixed["pieces"]
    assert filled["inputs"]["input_ids"].shape == (1, size.batch.tokens)
    student = torch.randn(size.batch.pairs, generator=torch.Generator().manual_seed(0))
    for name in LOSSES:
        loss = WeightedSum({name: 1.0})
        units = loss.units(**{key: value for key, value in whole.items() if key != "inputs"})
        costs = []
        for piece in (whole, filled):
            targets = [piece.get(key) for key in ("teacher", "group", "pairs", "labels")]
            costs.append(loss(student[: len(piece["teacher"])], *targets, units=units))
        torch.testing.assert_close(costs[1], costs[0], rtol=1e-4, atol=1e-5)


def test_a_step_that_is_larger_than_the_size_is_an_ordinary_one() -> None:
    collate = collator(flat_config(), size=StepSize(Size(8, 2, 8), 1))
    step = collate([row([[5] * 3, [5] * 6], [1.0, 0.0])])["step"]
    assert not step["fixed"]
    assert step["pieces"][0]["inputs"]["input_ids"].shape == (1, 9)


def test_the_size_holds_every_step_of_an_epoch_and_little_more() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.lognormal(5, 0.8, 5_000).astype(int) + 20
    twelve = np.full(5_000, 12)
    size = step_size(Sizes(tokens, twelve, tokens, np.full(5_000, 32)), BalancedBatches(tokens, 16, 0))
    # Steps drawn at random differ by half; those that were dealt out differ by the longest queries alone.
    drawn = tokens[rng.permutation(5_000)[:4_992].reshape(-1, 16)].sum(1)
    assert size.batch.tokens < 1.15 * drawn.mean() < 0.8 * drawn.max()
    assert (size.batch.pairs, size.margins, size.batch.longest) == (16 * 12, 16 * 32, tokens.max())


@given(st.lists(st.integers(1, 500), min_size=1, max_size=300), st.integers(1, 20), st.integers(0, 3))
def test_every_query_comes_once_an_epoch_in_batches_of_the_size_asked_for(tokens: list[int], size: int, seed: int) -> None:
    batches = BalancedBatches(np.array(tokens), size, seed)
    epochs = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        epochs.append(list(batches))
        assert epochs[-1] == list(batches)
        assert len(epochs[-1]) == len(batches)
        assert sorted(row for batch in epochs[-1] for row in batch) == list(range(len(tokens)))
        assert max(map(len, epochs[-1])) <= size
    assert len(tokens) < 40 or epochs[0] != epochs[1]


def flat_config() -> Any:
    config = XLMRobertaConfig(pad_token_id=1)
    config._attn_implementation = NAME
    return config
