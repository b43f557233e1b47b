"""One forward a passage gives the value and the gradient of sentence-transformers' loss on the triplets."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from distilrank.records import TrainingGroup
from distilrank.students.batches import GroupCollator
from distilrank.students.dataset import training_rows
from distilrank.students.losses import WeightedSum, margin_mse
from distilrank.students.trainer import GroupLoss

SIZES = st.lists(st.integers(2, 7), min_size=1, max_size=5)


def drawn(sizes: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    student, teacher = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, sum(sizes)))).float() * 4
    return student, teacher, torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


@given(SIZES, st.integers(0, 9))
def test_all_pairs_cost_is_the_mean_over_every_margin(sizes: list[int], seed: int) -> None:
    student, teacher, group = drawn(sizes, seed)
    errors = [
        float((student[i] - student[j]) - (teacher[i] - teacher[j])) ** 2
        for i, j in combinations(range(len(group)), 2)
        if group[i] == group[j]
    ]
    assert margin_mse(student, teacher, group).item() == pytest.approx(np.mean(errors), rel=1e-4, abs=1e-6)


@given(SIZES, st.integers(0, 9))
def test_all_pairs_named_cost_the_same_as_no_pairs(sizes: list[int], seed: int) -> None:
    student, teacher, group = drawn(sizes, seed)
    pairs = torch.tensor([p for p in combinations(range(len(group)), 2) if group[p[0]] == group[p[1]]])
    torch.testing.assert_close(margin_mse(student, teacher, group, pairs), margin_mse(student, teacher, group))


@given(SIZES, st.integers(0, 9))
def test_a_shift_of_a_groups_scores_costs_nothing(sizes: list[int], seed: int) -> None:
    student, teacher, group = drawn(sizes, seed)
    shifted = teacher + 3 * group
    torch.testing.assert_close(
        margin_mse(student, shifted, group), margin_mse(student, teacher, group), rtol=1e-3, atol=1e-4
    )


def test_the_loss_is_computed_in_float32() -> None:
    student, teacher, group = drawn([4, 5], 0)
    assert margin_mse(student.bfloat16(), teacher, group).dtype == torch.float32


@pytest.mark.parametrize("limited", [False, True], ids=["all pairs", "some pairs"])
@pytest.mark.parametrize("name", ["bert", "xlmr"])
def test_value_and_gradient_are_those_of_sentence_transformers(
    name: str, limited: bool, request: pytest.FixtureRequest
) -> None:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.losses import MarginMSELoss

    folder: Path = request.getfixturevalue(name)
    model = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity(), max_length=64)
    model.eval()  # without dropout the two ways are comparable
    rng = np.random.default_rng(0)
    groups, texts, margins = [], [], []
    for group in (*tiny.groups(2, 5), *tiny.groups(2, 3, seed=1)):
        passages = [passage.text for passage in group.passages]
        scores = rng.normal(0, 3, len(passages)).astype(np.float32)
        pairs = list(combinations(range(len(passages)), 2))[:: 2 if limited else 1]
        groups.append(TrainingGroup(group.query, tuple(passages), tuple(scores.tolist()), tuple(pairs) if limited else None))
        texts += [(group.query, passages[i], passages[j]) for i, j in pairs]
        margins += [scores[i] - scores[j] for i, j in pairs]

    def gradient(loss: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad()
        loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    loss = WeightedSum({"margin_mse": 1.0})
    collate = GroupCollator(model[0].model.config, model.tokenizer.pad_token_id, loss, 10_000, margins=limited)
    step = collate(list(training_rows(groups, model.tokenizer, 64)))["step"]
    (piece,) = step["pieces"]
    ours = GroupLoss(model, loss)(piece, step["units"])
    theirs = MarginMSELoss(model)([list(column) for column in zip(*texts, strict=True)], torch.tensor(np.array(margins)))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    ours, theirs = gradient(ours), gradient(theirs)
    largest = max(found.abs().max() for found in theirs)
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found / largest, expected / largest, rtol=1e-4, atol=1e-5)
