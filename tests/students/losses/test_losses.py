"""Each loss against a plain rendering of its formula, passage by passage; all are float32 and least where they should be."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from distilrank.students.losses import LOSSES, WeightedSum, bce

SIZES = st.lists(st.integers(2, 6), min_size=1, max_size=4)
Group = tuple[list[float], list[float]]


def drawn(sizes: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    student, teacher = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, sum(sizes)))).float() * 3
    return student, teacher, torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


def by_group(student: torch.Tensor, teacher: torch.Tensor, group: torch.Tensor) -> list[Group]:
    return [(student[group == g].tolist(), teacher[group == g].tolist()) for g in group.unique().tolist()]


def softmax(values: list[float]) -> list[float]:
    exponentials = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def plain_mse(groups: list[Group]) -> float:
    return float(np.mean([(s - t) ** 2 for student, teacher in groups for s, t in zip(student, teacher, strict=True)]))


def plain_kl(groups: list[Group]) -> float:
    costs = []
    for student, teacher in groups:
        p, q = softmax(teacher), softmax(student)
        costs.append(sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)))
    return float(np.mean(costs))


def plain_rank_net(groups: list[Group]) -> float:
    return float(
        np.mean(
            [
                math.log1p(math.exp(student[j] - student[i]))
                for student, teacher in groups
                for i, j in permutations(range(len(student)), 2)
                if teacher[i] > teacher[j]
            ]
        )
    )


def plain_adr_mse(groups: list[Group]) -> float:
    costs = []
    for student, teacher in groups:
        ranks = rankdata([-t for t in teacher])
        soft = [1 + sum(1 / (1 + math.exp(s - o)) for j, o in enumerate(student) if j != i) for i, s in enumerate(student)]
        costs.append(np.mean([(r - x) ** 2 / math.log2(1 + r) for r, x in zip(ranks, soft, strict=True)]))
    return float(np.mean(costs))


def plain_weighted_margin_mse(groups: list[Group]) -> float:
    total = weights = 0.0
    for student, teacher in groups:
        ranks = rankdata([-t for t in teacher])
        for i, j in permutations(range(len(student)), 2):
            if teacher[i] > teacher[j]:
                weight = abs(1 / math.log2(1 + ranks[i]) - 1 / math.log2(1 + ranks[j]))
                total += weight * ((student[i] - student[j]) - (teacher[i] - teacher[j])) ** 2
                weights += weight
    return total / weights


def plain_margin_mse(groups: list[Group]) -> float:
    pairs = [(s, t, i, j) for s, t in groups for i, j in permutations(range(len(s)), 2) if i < j]
    return float(np.mean([((s[i] - s[j]) - (t[i] - t[j])) ** 2 for s, t, i, j in pairs]))


PLAIN: dict[str, Callable[[list[Group]], float]] = {
    "margin_mse": plain_margin_mse,
    "weighted_margin_mse": plain_weighted_margin_mse,
    "mse": plain_mse,
    "kl": plain_kl,
    "rank_net": plain_rank_net,
    "adr_mse": plain_adr_mse,
}
every = pytest.mark.parametrize("name", PLAIN)


def loss_of(name: str) -> Callable[..., torch.Tensor]:
    return LOSSES[name][0]


def test_every_loss_of_the_teacher_has_a_plain_rendering() -> None:
    assert set(PLAIN) == set(LOSSES) - {"bce"}


@every
@given(sizes=SIZES, seed=st.integers(0, 99))
def test_a_loss_is_its_formula(name: str, sizes: list[int], seed: int) -> None:
    student, teacher, group = drawn(sizes, seed)
    assert loss_of(name)(student, teacher, group).item() == pytest.approx(
        PLAIN[name](by_group(student, teacher, group)), rel=1e-4, abs=1e-5
    )


@every
@given(sizes=SIZES, seed=st.integers(0, 99))
def test_a_gradient_is_the_formulas(name: str, sizes: list[int], seed: int) -> None:
    """By central differences of the plain rendering, in double precision."""
    student, teacher, group = drawn(sizes, seed)
    student.requires_grad_()
    loss_of(name)(student, teacher, group).backward()
    moves = 1e-4 * torch.eye(len(group), dtype=torch.float64)
    up, down = (
        [PLAIN[name](by_group(student.detach().double() + move, teacher, group)) for move in (sign * moves)]
        for sign in (1, -1)
    )
    wanted = (torch.tensor(up, dtype=torch.float64) - torch.tensor(down, dtype=torch.float64)) / 2e-4
    torch.testing.assert_close(student.grad.double(), wanted, rtol=1e-3, atol=1e-4)


@every
@given(sizes=SIZES, seed=st.integers(0, 99))
def test_the_order_of_the_passages_does_not_matter(name: str, sizes: list[int], seed: int) -> None:
    student, teacher, group = drawn(sizes, seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(group)))
    shuffled = loss_of(name)(student[order], teacher[order], group[order])
    torch.testing.assert_close(shuffled, loss_of(name)(student, teacher, group), rtol=1e-4, atol=1e-5)


@every
def test_a_loss_is_float32_and_has_a_finite_gradient(name: str) -> None:
    student, teacher, group = drawn([4, 5, 2], 0)
    student = (student * 30).bfloat16().requires_grad_()
    cost = loss_of(name)(student, teacher, group)
    cost.backward()
    assert cost.dtype == torch.float32
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().sum() > 0


@every
def test_going_down_the_gradient_brings_the_students_order_to_the_teachers(name: str) -> None:
    student, teacher, group = drawn([6, 6], 3)
    student = student.clone().requires_grad_()
    optimiser = torch.optim.Adam([student], lr=0.1)
    for _ in range(400):
        optimiser.zero_grad()
        loss_of(name)(student, teacher, group).backward()
        optimiser.step()
    for found, wanted in by_group(student.detach(), teacher, group):
        assert np.argsort(found).tolist() == np.argsort(wanted).tolist()


@pytest.mark.parametrize("name", sorted(set(PLAIN) - {"mse"}))
def test_a_constant_added_to_a_querys_scores_changes_nothing(name: str) -> None:
    """The teacher's or the student's, another for each query: all but the pointwise loss look at differences alone."""
    student, teacher, group = drawn([4, 3], 1)
    added = torch.tensor([5.0, -3.0])[group]
    before = loss_of(name)(student, teacher, group)
    torch.testing.assert_close(loss_of(name)(student, teacher + added, group), before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss_of(name)(student + added, teacher, group), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["margin_mse", "weighted_margin_mse", "mse", "kl"])
def test_the_teachers_own_scores_cost_nothing(name: str) -> None:
    _, teacher, group = drawn([4, 3], 1)
    assert loss_of(name)(teacher, teacher, group).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", ["margin_mse", "weighted_margin_mse", "rank_net"])
def test_only_the_pairs_that_count_count(name: str) -> None:
    student, teacher, group = drawn([4], 2)
    teacher = teacher.sort(descending=True).values
    pairs = torch.tensor([[0, 1], [1, 2]])
    before = loss_of(name)(student, teacher, group, pairs)
    moved = student.clone()
    moved[3] += 5
    torch.testing.assert_close(loss_of(name)(moved, teacher, group, pairs), before)
    moved[1] += 5
    assert loss_of(name)(moved, teacher, group, pairs) != before


def test_a_weighted_sum_is_the_sum_of_its_parts() -> None:
    student, teacher, group = drawn([4, 3], 1)
    mixed = WeightedSum({"margin_mse": 1.0, "kl": 0.3})(student, teacher, group)
    one, other = loss_of("margin_mse")(student, teacher, group), loss_of("kl")(student, teacher, group)
    torch.testing.assert_close(mixed, one + 0.3 * other)


LABELS = st.lists(st.integers(-1, 2), min_size=1, max_size=40)


@given(LABELS, st.integers(0, 9))
def test_bce_is_torchs_on_the_passages_that_have_a_label(labels: list[int], seed: int) -> None:
    grades = torch.tensor(labels)
    student = torch.randn(len(labels), generator=torch.Generator().manual_seed(seed)) * 5
    found = bce(student, student, torch.zeros_like(grades), labels=grades)
    known = grades >= 0
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(student[known], (grades[known] > 0).float())
    assert found.item() == pytest.approx(wanted.item() if known.any() else 0.0, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@given(sizes=st.lists(st.integers(2, 6), min_size=2, max_size=6), seed=st.integers(0, 99), cut=st.integers(1, 5))
def test_the_pieces_of_a_step_add_up_to_it(name: str, sizes: list[int], seed: int, cut: int) -> None:
    student, teacher, group = drawn(sizes, seed)
    labels = torch.randint(-1, 3, (len(group),), generator=torch.Generator().manual_seed(seed))
    loss = WeightedSum({name: 2.0})
    whole = loss(student, teacher, group, None, labels)
    units = loss.units(teacher, group, None, labels)
    first = group < min(cut, len(sizes) - 1)
    parts = [
        loss(student[part], teacher[part], group[part] - group[part].min(), None, labels[part], units=units)
        for part in (first, ~first)
    ]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_passages_alone_in_their_group_change_nothing(name: str) -> None:
    student, teacher, group = drawn([4, 3], 5)
    labels = torch.tensor([1, 0, -1, 2, 0, 0, 1])
    loss = WeightedSum({name: 1.0})
    more = torch.tensor([3.0, -9.0])
    found = loss(
        torch.cat([student, more]),
        torch.cat([teacher, 2 * more]),
        torch.cat([group, torch.tensor([2, 3])]),
        None,
        torch.cat([labels, torch.tensor([-1, -1])]),
    )
    torch.testing.assert_close(found, loss(student, teacher, group, None, labels))


@pytest.mark.parametrize("name", ["weighted_margin_mse", "rank_net"])
@given(
    sizes=st.lists(st.integers(1, 130), min_size=1, max_size=9),
    seed=st.integers(0, 99),
    share=st.none() | st.floats(0, 1),
)
def test_units_counted_in_portions_are_those_of_the_whole(
    name: str, sizes: list[int], seed: int, share: float | None
) -> None:
    """What the collator counts, and what the loss counts for itself."""
    student, teacher, group = drawn(sizes, seed)
    pairs = None
    if share is not None:
        inside = (group[:, None] == group[None]).nonzero()
        pairs = inside[torch.rand(len(inside), generator=torch.Generator().manual_seed(seed)) < share]
    loss = WeightedSum({name: 1.0})
    units = loss.units(teacher, group, pairs)
    torch.testing.assert_close(
        loss(student, teacher, group, pairs, units=units), loss(student, teacher, group, pairs), rtol=1e-4, atol=1e-5
    )
