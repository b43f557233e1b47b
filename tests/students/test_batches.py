"""A step holds every passage once, in the order of its scores; a query is taught or validated, never both."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertConfig, XLMRobertaConfig

from distilrank.engines.classifier import encode_pairs
from distilrank.engines.flat import Size
from distilrank.engines.kernels import NAME
from distilrank.engines.load import load_model
from distilrank.records import TrainingGroup, Triplet
from distilrank.students import batches
from distilrank.students.batches import (
    GroupCollator,
    RowSize,
    StepSize,
    groups_of_triplets,
    query_hash,
    step_size,
    tokenised_groups,
    validation_threshold,
)
from distilrank.students.losses import LOSSES, margin_mse
from distilrank.students.train import GRAPH_LOSSES
from distilrank.students.trainer import GroupLoss

QUERIES = st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=200)


@st.composite
def rows(draw: Any) -> list[dict[str, Any]]:
    """Rows whose passages have distinct numbers: each pair's first token is its number, and so is its score."""
    number, result = 0, []
    for _ in range(draw(st.integers(1, 5))):
        size = draw(st.integers(2, 6))
        ids = [[number + k] + [0] * draw(st.integers(0, 40)) for k in range(size)]
        pairs = [[i, j] for i in range(size) for j in range(i + 1, size)]
        chosen = draw(st.one_of(st.just([]), st.lists(st.sampled_from(pairs), min_size=1, unique_by=tuple)))
        result.append({"input_ids": ids, "scores": [float(row[0]) for row in ids], "pairs": chosen})
        number += size
    return result


@given(rows(), st.integers(1, 200))
def test_logits_come_back_in_the_order_of_the_scores(rows: list[dict[str, Any]], budget: int) -> None:
    collate = GroupCollator(BertConfig(), pad=0, device="cpu")
    collate.budget = budget
    seen: dict[str, Any] = {}

    class Model(torch.nn.Module):
        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return SimpleNamespace(logits=input_ids[:, :1].float())

    def loss(student: Any, teacher: Any, group: Any, pairs: Any) -> Any:
        seen.update(student=student, teacher=teacher, group=group, pairs=pairs)
        return student.sum()

    step = collate(rows)["step"]
    GroupLoss(as_cross_encoder(Model()), loss)([step])
    assert seen["student"].tolist() == seen["teacher"].tolist() == [s for row in rows for s in row["scores"]]
    assert seen["group"].tolist() == [n for n, row in enumerate(rows) for _ in row["scores"]]
    if seen["pairs"] is None:
        assert not any(row["pairs"] for row in rows)
        return
    expected = [
        (row["scores"][i], row["scores"][j])
        for row in rows
        for i, j in row["pairs"] or [(i, j) for i in range(len(row["scores"])) for j in range(i + 1, len(row["scores"]))]
    ]
    assert [tuple(seen["teacher"][pair].tolist()) for pair in seen["pairs"]] == expected


def as_cross_encoder(model: Any) -> Any:
    """What `GroupLoss` finds a model in: sentence-transformers keeps it under [0].model."""
    holder = torch.nn.Module()
    holder.model = model
    return torch.nn.Sequential(holder)


def test_padding_is_masked_and_has_the_tokenizers_number() -> None:
    step = GroupCollator(BertConfig(), pad=7, device="cpu")(
        [{"input_ids": [[1, 2, 3], [4]], "scores": [0.0, 1.0], "pairs": []}]
    )["step"]
    (chunk,) = step["chunks"]
    assert chunk["input_ids"].tolist() == [[1, 2, 3], [4, 7, 7]]
    assert chunk["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert chunk["input_ids"].dtype == torch.long


@pytest.mark.parametrize("name", ["bert", "xlmr"])
def test_a_row_holds_what_the_scorer_would_read(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(name))
    group = TrainingGroup("how to open", ("river stone " * 30, "window"), (1.0, -2.0), ((0, 1),))
    (row,) = tokenised_groups([group], tokenizer, 32)
    encoded = encode_pairs(tokenizer, [group.query] * 2, group.passages, 32)
    assert row == encoded | {"scores": [1.0, -2.0], "pairs": [[0, 1]]}
    assert max(map(len, row["input_ids"])) == 32


# ---- validation


@given(QUERIES, st.floats(0, 0.49), st.integers(0, 5))
def test_the_share_of_validation_queries_is_kept(queries: list[str], share: float, seed: int) -> None:
    threshold = validation_threshold(queries * 3, share, seed)
    kept = sum(query_hash(query, seed) < threshold for query in queries)
    wanted = min(max(round(share * len(queries)), 8), 512)
    assert kept == (wanted if share > 0 and len(queries) >= 2 * wanted else 0)


@given(QUERIES, st.integers(0, 5))
def test_repeated_and_reordered_rows_of_a_query_do_not_move_it(queries: list[str], seed: int) -> None:
    assert validation_threshold(queries, 0.2, seed) == validation_threshold([*queries[::-1], *queries], 0.2, seed)


def test_at_most_512_queries_validate() -> None:
    queries = [str(number) for number in range(20_000)]
    threshold = validation_threshold(queries, 0.3, 0)
    assert sum(query_hash(query, 0) < threshold for query in queries) == batches.MOST_VALIDATION_QUERIES == 512


def test_another_seed_keeps_other_queries() -> None:
    queries = [str(number) for number in range(200)]
    kept = [{q for q in queries if query_hash(q, seed) < validation_threshold(queries, 0.2, seed)} for seed in (0, 1)]
    assert kept[0] != kept[1]


# ---- triplets back to groups

SCORES = st.lists(st.integers(-20, 20), min_size=2, max_size=8)


@given(st.lists(SCORES, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_margins_of_triplets_are_those_of_their_group(scores: list[list[int]], random: Any) -> None:
    triplets = []
    for number, of_query in enumerate(scores):
        # A path through all passages connects them; the rest is drawn.
        places = list(range(len(of_query)))
        pairs = list(pairwise(places)) + [tuple(random.sample(places, 2)) for _ in range(3)]
        triplets += [Triplet(str(number), str(i), str(j), float(of_query[i] - of_query[j])) for i, j in pairs]
    random.shuffle(triplets)
    groups = groups_of_triplets(triplets)
    assert len(groups) == len(scores)
    for group in groups:
        of_query = scores[int(group.query)]
        known = np.array([of_query[int(passage)] for passage in group.passages])
        assert sorted(map(int, group.passages)) == list(range(len(of_query)))
        np.testing.assert_allclose(np.array(group.scores) - group.scores[0], known - known[0], atol=1e-9)


def test_only_the_largest_connected_set_of_a_query_is_kept() -> None:
    triplets = [Triplet("q", "a", "b", 1.0), Triplet("q", "c", "d", 2.0), Triplet("q", "d", "e", 0.5)]
    (group,) = groups_of_triplets(triplets)
    of = dict(zip(group.passages, group.scores, strict=True))
    assert set(of) == {"c", "d", "e"}
    assert (of["c"] - of["d"], of["d"] - of["e"]) == (2.0, 0.5)


def test_a_step_of_many_chunks_has_the_gradients_of_one(bert: Path) -> None:
    model = load_model("AutoModelForSequenceClassification", bert, "float32", "cpu")
    wrapped = as_cross_encoder(model)
    rows = [
        {"input_ids": [[2, 5 + n, 3] * (1 + n + p) for p in range(3)], "scores": [3.0, 1.0, float(n)], "pairs": []}
        for n in range(3)
    ]
    gradients = []
    for budget in (10_000, 8):
        collate = GroupCollator(BertConfig(), pad=0, device="cpu")
        collate.budget = budget
        step = collate(rows)["step"]
        assert (len(step["chunks"]) > 1) == (budget == 8)
        model.zero_grad()
        GroupLoss(wrapped, margin_mse)([step]).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for one, many in zip(*gradients, strict=True):
        torch.testing.assert_close(many, one, rtol=1e-4, atol=1e-5)


def test_the_products_of_a_step_are_of_the_type_asked_for(bert: Path) -> None:
    model = load_model("AutoModelForSequenceClassification", bert, "float32", "cpu")
    seen = []
    layer = model.bert.encoder.layer[0].intermediate.dense
    layer.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    rows = [{"input_ids": [[2, 5, 3], [2, 6, 3]], "scores": [1.0, 0.0], "pairs": []}]
    for dtype in ("float32", "bfloat16"):
        step = GroupCollator(model.config, pad=0, device="cpu")(rows)["step"]
        loss = GroupLoss(as_cross_encoder(model), margin_mse, dtype)([step])
        assert loss.dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16]


@given(rows(), st.integers(0, 40), st.integers(0, 5))
def test_a_step_of_fixed_size_costs_what_it_costs_otherwise(rows: list[dict[str, Any]], slack: int, missing: int) -> None:
    lengths = [len(ids) for row in rows for ids in row["input_ids"]]
    ordinary = GroupCollator(flat_config(), pad=1, device="cpu")(rows)["step"]
    margins = len(ordinary.get("pairs", ())) + missing
    size = StepSize(Size(sum(lengths) + slack, len(lengths) + missing, max(lengths)), margins)
    fixed = GroupCollator(flat_config(), pad=1, device="cpu", size=size)(rows)["step"]
    assert (fixed["fixed"], ordinary["fixed"]) == (True, False)
    assert len(fixed["chunks"]) == 1
    assert fixed["chunks"][0]["input_ids"].shape == (1, size.batch.tokens)
    student = torch.randn(size.batch.pairs, generator=torch.Generator().manual_seed(0))
    for loss in GRAPH_LOSSES:
        costs = [
            LOSSES[loss](student[: len(step["teacher"])], step["teacher"], step["group"], step.get("pairs"))
            for step in (ordinary, fixed)
        ]
        torch.testing.assert_close(costs[1], costs[0], rtol=1e-4, atol=1e-5)


def test_a_step_that_is_larger_than_the_size_is_an_ordinary_one() -> None:
    collate = GroupCollator(flat_config(), pad=1, device="cpu", size=StepSize(Size(8, 2, 8), 1))
    step = collate([{"input_ids": [[5] * 3, [5] * 6], "scores": [1.0, 0.0], "pairs": []}])["step"]
    assert not step["fixed"]
    assert step["chunks"][0]["input_ids"].shape == (1, 9)


def test_the_size_holds_nearly_every_step_and_little_more() -> None:
    rng = np.random.default_rng(0)
    sizes = [RowSize(int(n), 12, 40, 32) for n in rng.normal(330, 30, 5_000)]
    size = step_size(sizes, 16, 40)
    assert size is not None
    drawn = [sum(sizes[i].tokens for i in rng.integers(0, len(sizes), 16)) for _ in range(2_000)]
    assert np.mean([tokens <= size.batch.tokens for tokens in drawn]) > 0.99
    assert size.batch.tokens < 1.15 * np.mean(drawn)
    assert (size.batch.pairs, size.margins) == (16 * 12, 16 * 32)
    assert step_size([RowSize(10, 1, 10, 1)] * 99 + [RowSize(9_000, 900, 10, 9)], 16, 10) is None


def flat_config() -> Any:
    config = XLMRobertaConfig(pad_token_id=1)
    config._attn_implementation = NAME
    return config
