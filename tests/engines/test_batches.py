"""Every row is in one batch, and no batch is larger than its budget."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distilrank.engines.batches import length_sorted, padded

LENGTHS = st.lists(st.integers(0, 300), max_size=60)


@given(LENGTHS, st.integers(1, 1000))
def test_every_row_is_in_exactly_one_batch(lengths: list[int], budget: int) -> None:
    batches = list(length_sorted(lengths, budget))
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 1000))
def test_a_padded_batch_keeps_to_the_budget_unless_its_one_row_is_longer(lengths: list[int], budget: int) -> None:
    for batch in length_sorted(lengths, budget):
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(LENGTHS, st.integers(1, 1000))
def test_the_longest_rows_come_first_and_equal_ones_in_their_order(lengths: list[int], budget: int) -> None:
    order = [i for batch in length_sorted(lengths, budget) for i in batch.tolist()]
    assert order == sorted(range(len(lengths)), key=lambda i: -lengths[i])


@given(LENGTHS, st.integers(1, 1000))
def test_a_batch_is_as_large_as_the_budget_allows(lengths: list[int], budget: int) -> None:
    batches = list(length_sorted(lengths, budget))
    for batch in batches[:-1]:
        assert (len(batch) + 1) * max(1, lengths[batch[0]]) > budget


def test_rows_are_padded_on_the_right() -> None:
    assert padded([[5], [6, 7, 8]], 9).tolist() == [[5, 9, 9], [6, 7, 8]]
