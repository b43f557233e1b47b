"""A query is taught or validated, never both; triplets give back the margins of the group that they came from."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distilrank.records import Triplet
from distilrank.students.validation import (
    MOST_VALIDATION_QUERIES,
    groups_of_triplets,
    query_hash,
    validation_threshold,
)

QUERIES = st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=200)


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
    assert sum(query_hash(query, 0) < threshold for query in queries) == MOST_VALIDATION_QUERIES == 512


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
