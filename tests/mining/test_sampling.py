"""Draws of a query's passages: how many, from where, and which again with the same seed."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrank.errors import UserError
from distilrank.mining import MiningSettings, mine_groups
from distilrank.mining.sampling import drawn, draws
from distilrank.records import ScoredPair, TrainingGroup


@given(
    count=st.integers(1, 60),
    wanted=st.integers(2, 20),
    strategy=st.sampled_from(["random", "quantile"]),
    seed=st.integers(0, 9),
)
def test_a_draw_is_of_distinct_ranks_in_order(count: int, wanted: int, strategy: str, seed: int) -> None:
    ranks = drawn(count, wanted, strategy, random.Random(seed))
    assert ranks == sorted(set(ranks))
    assert len(ranks) == min(count, wanted)
    assert set(ranks) <= set(range(count))


@given(count=st.integers(2, 60), wanted=st.integers(2, 20), seed=st.integers(0, 9))
def test_a_quantile_draw_has_one_passage_of_every_stratum(count: int, wanted: int, seed: int) -> None:
    ranks = drawn(count, wanted, "quantile", random.Random(seed))
    if count <= wanted:
        assert ranks == list(range(count))
    else:
        # A stratum holds floor or ceil of count / wanted passages, so the n-th rank lies in the n-th of them.
        assert [int(rank * wanted / count + 0.5) - number in (0, 1) for number, rank in enumerate(ranks)] == [True] * wanted


@pytest.mark.parametrize("strategy", ["random", "quantile"])
def test_every_rank_is_drawn_as_often_as_any_other(strategy: str) -> None:
    rng, often = random.Random(0), Counter[int]()
    for _ in range(4_000):
        often.update(drawn(12, 4, strategy, rng))
    assert all(abs(often[rank] - 4_000 / 3) < 150 for rank in range(12))


def _pairs(queries: int, passages: int) -> list[ScoredPair]:
    return [ScoredPair(f"q{q}", f"p{p}", float(p * (q + 1))) for q in range(queries) for p in range(passages)]


def _mined(pairs: list[ScoredPair], **settings: object) -> list[TrainingGroup]:
    return list(mine_groups(pairs, MiningSettings(**settings)))  # type: ignore[arg-type]


def test_samples_are_groups_of_their_own_and_differ() -> None:
    groups = _mined(_pairs(3, 20), strategy="quantile", passages=5, samples=4)
    assert [group.query for group in groups] == [f"q{q}" for q in range(3) for _ in range(4)]
    assert all(len(group.passages) == 5 and group.pairs is None for group in groups)
    assert len({group.passages for group in groups if group.query == "q1"}) > 1


def test_a_query_with_no_more_passages_than_a_draw_is_one_group() -> None:
    groups = _mined(_pairs(1, 5), strategy="random", passages=5, samples=4)
    assert [len(group.passages) for group in groups] == [5]


@pytest.mark.parametrize(("count", "groups"), [(2, 1), (8, 1), (9, 1), (12, 2), (19, 2), (20, 3), (30, 4), (100, 13)])
def test_draws_come_nearest_to_one_pass_over_a_querys_passages(count: int, groups: int) -> None:
    assert len(_mined(_pairs(1, count), strategy="quantile")) == groups
    best = min(range(1, 20), key=lambda number: (abs(8 * number - count), -number)) if count > 8 else 1
    assert draws(count, 8, "auto") == groups == best


def test_a_draw_hangs_on_the_seed_and_the_query_alone() -> None:
    settings = {"strategy": "quantile", "passages": 4, "samples": 2}
    few, many = _mined(_pairs(2, 30), **settings), _mined(_pairs(5, 30), **settings)
    assert few == many[: len(few)]
    assert few != _mined(_pairs(2, 30), **settings, seed=1)


def test_the_command_hands_its_options_on(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from distilrank.cli.app import app
    from distilrank.records import read_training_groups, write_scored

    write_scored(tmp_path / "scored.jsonl", _pairs(2, 20))
    options = ["--strategy", "quantile", "--passages", "4", "--samples", "3", "--seed", "7", "--format", "groups"]
    done = CliRunner().invoke(app, ["mine", str(tmp_path / "scored.jsonl"), "-o", str(tmp_path / "g.jsonl"), *options])
    assert done.exit_code == 0, done.output
    wanted = _mined(_pairs(2, 20), strategy="quantile", passages=4, samples=3, seed=7)
    assert [(g.query, g.passages) for g in read_training_groups(tmp_path / "g.jsonl")] == [
        (g.query, g.passages) for g in wanted
    ]
    for wrong in ("some", "-1", "1.5"):
        done = CliRunner().invoke(app, ["mine", str(tmp_path / "scored.jsonl"), "-o", "x", "--samples", wrong])
        assert isinstance(done.exception, UserError), done.output
        assert f"--samples {wrong}: auto or a number" in str(done.exception)
