"""A row is a trie: each sequence can be read along its places, and a token sees its own prefix and nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distilrank.engines.trie import Row, lay_out

# Few different tokens, so that sequences share prefixes, are prefixes of one another, and are equal.
SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=14)


def laid(sequences: list[list[int]], budget: int, tails: list[int] | None = None) -> list[Row]:
    return list(lay_out([np.array(s, np.int32) for s in sequences], tails or [len(s) for s in sequences], budget))


@given(SEQUENCES, st.integers(1, 40))
def test_every_sequence_is_read_along_its_places(sequences: list[list[int]], budget: int) -> None:
    found = {}
    for row in laid(sequences, budget):
        for number, places in zip(row.numbers, row.places, strict=True):
            assert number not in found
            found[number] = row.ids[places].tolist()
            assert row.positions[places].tolist() == list(range(len(places)))
    assert found == dict(enumerate(sequences))


@given(SEQUENCES, st.integers(1, 40))
def test_a_token_sees_its_own_prefix_and_nothing_else(sequences: list[list[int]], budget: int) -> None:
    for row in laid(sequences, budget):
        for places in row.places:
            for depth, place in enumerate(places.tolist()):
                seen = [key for key in range(len(row.ids)) if key <= place < row.ends[key]]
                assert seen == places[: depth + 1].tolist()


@given(SEQUENCES, st.integers(1, 40))
def test_rows_keep_to_the_budget_but_for_one_long_sequence(sequences: list[list[int]], budget: int) -> None:
    for row in laid(sequences, budget):
        assert len(row.ids) <= budget or len(row.numbers) == 1 or len(row.ids) == max(map(len, row.places))


@given(SEQUENCES)
def test_a_prefix_is_held_once(sequences: list[list[int]]) -> None:
    (row,) = laid(sequences, 1_000)
    assert len(row.ids) == len({tuple(s[: i + 1]) for s in sequences for i in range(len(s))})


@given(SEQUENCES, st.integers(1, 40), st.data())
def test_the_tail_is_what_was_asked_for(sequences: list[list[int]], budget: int, data: st.DataObject) -> None:
    tails = [data.draw(st.integers(1, len(s))) for s in sequences]
    for row in laid(sequences, budget, tails):
        for number, places in zip(row.numbers, row.places, strict=True):
            assert row.ids[places].tolist() == sequences[number][-tails[number] :]


def test_a_full_row_repeats_only_what_the_next_sequence_shares() -> None:
    rows = laid([[1, 1, 5], [1, 1, 6], [1, 1, 7], [1, 1, 8]], 4)
    assert [row.ids.tolist() for row in rows] == [[1, 1, 5, 6], [1, 1, 7, 8]]


def test_nothing_makes_no_rows() -> None:
    assert laid([], 10) == []
