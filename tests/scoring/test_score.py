"""A teacher is asked for what the store lacks, once, a part at a time; killed, it goes on where it was."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.errors import UserError
from distilrank.records import Group, Passage, ScoredPair
from distilrank.scoring import ScoreStore, score, scored_pairs
from distilrank.shards import parts
from distilrank.teachers import TeacherIdentity


def value(query: str, passage: str) -> np.float32:
    return np.float32(int.from_bytes(blake2b(f"{query}|{passage}".encode(), digest_size=2).digest(), "big") / 1000 - 30)


class Fake:
    """A teacher whose scores are hashes; it counts what it was asked and stops for good after `most` calls."""

    shares: Literal["query", "passage"] = "query"

    def __init__(self, weights: str = "fake", most: int = 10**9) -> None:
        self.identity = TeacherIdentity("causal", "logit difference", weights, "float32", 512)
        self.most, self.asked, self.calls = most, Counter[tuple[str, str]](), 0

    def score(self, groups: Sequence[Group], advance: Callable[[int], None] = lambda done: None) -> list[np.ndarray]:
        if self.calls == self.most:
            raise RuntimeError("killed")
        self.calls += 1
        self.asked.update((group.query, passage.text) for group in groups for passage in group.passages)
        advance(sum(len(group.passages) for group in groups))
        return [np.asarray([value(group.query, p.text) for p in group.passages]) for group in groups]


def many(count: int, passages: int = 4) -> list[Group]:
    return [
        Group(str(n), f"query {n}", tuple(Passage(f"passage {n}.{place}") for place in range(passages)))
        for n in range(count)
    ]


def pairs_of(groups: Sequence[Group]) -> Counter[tuple[str, str]]:
    return Counter((group.query, passage.text) for group in groups for passage in group.passages)


def sizes(store: ScoreStore) -> list[int]:
    return [pq.read_metadata(path).num_rows for path in parts(store.folder)]


def holds(store: ScoreStore, groups: Sequence[Group]) -> bool:
    wanted = [[value(group.query, passage.text) for passage in group.passages] for group in groups]
    return [found.tolist() for found in store.scores(groups)] == wanted


words = st.sampled_from(["a", "b", "c", "如何", "🙂"])
groups_of_words = st.lists(
    st.builds(
        lambda query, texts: Group("", query, tuple(map(Passage, texts))), words, st.lists(words, min_size=1, max_size=7)
    ),
    max_size=7,
)


@settings(max_examples=15)
@given(groups=groups_of_words, part_pairs=st.integers(1, 9))
def test_each_pair_is_asked_once_in_parts_of_bounded_size(
    tmp_path_factory: pytest.TempPathFactory, groups: list[Group], part_pairs: int
) -> None:
    teacher = Fake()
    store = ScoreStore(tmp_path_factory.mktemp("scores"), teacher.identity)
    assert score(groups, teacher, store, part_pairs=part_pairs) == len(teacher.asked)
    assert teacher.asked == Counter(set(pairs_of(groups)))
    assert max(sizes(store), default=0) <= part_pairs
    assert holds(store, groups)


def test_a_second_run_pays_nothing(tmp_path: Path) -> None:
    groups, first, second = many(20), Fake(), Fake()
    score(groups, first, ScoreStore(tmp_path, first.identity))
    assert score(groups, second, ScoreStore(tmp_path, second.identity)) == 0
    assert second.calls == 0


def test_other_data_with_some_of_the_pairs_pays_for_the_rest(tmp_path: Path) -> None:
    groups, teacher = many(20), Fake()
    store = ScoreStore(tmp_path, teacher.identity)
    score(groups[:10], teacher, store)
    more = [Group("new", group.query, (Passage("another"), *group.passages)) for group in groups[5:15]]
    assert score(more, teacher, store) == 10 + 5 * 4
    assert set(teacher.asked.values()) == {1}
    assert holds(store, more)


def test_another_identity_pays_for_itself(tmp_path: Path) -> None:
    groups, first, second = many(5), Fake("one"), Fake("two")
    score(groups, first, ScoreStore(tmp_path, first.identity))
    assert score(groups, second, ScoreStore(tmp_path, second.identity)) == 20


@pytest.mark.parametrize("whole", [0, 1, 4])
def test_stopped_in_the_middle_it_keeps_whole_parts_and_asks_only_the_rest(tmp_path: Path, whole: int) -> None:
    groups, stopped = many(30), Fake(most=whole)
    store = ScoreStore(tmp_path, stopped.identity)
    with pytest.raises(RuntimeError, match="killed"):
        score(groups, stopped, store, part_pairs=12)
    assert sizes(store) == [12] * whole
    goes_on = Fake()
    assert score(groups, goes_on, store, part_pairs=12) == 120 - 12 * whole
    assert stopped.asked + goes_on.asked == pairs_of(groups)
    assert holds(store, groups)


def test_kill_nine_loses_one_part_at_most(tmp_path: Path) -> None:
    program = f"""
import os, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
import test_score
class Killed(test_score.Fake):
    def score(self, groups, advance=lambda done: None):
        if self.calls == 3:
            os.kill(os.getpid(), {int(signal.SIGKILL)})
        return super().score(groups, advance)
teacher = Killed()
store = test_score.ScoreStore({str(tmp_path)!r}, teacher.identity)
test_score.score(test_score.many(30), teacher, store, part_pairs=12)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == -signal.SIGKILL
    teacher = Fake()
    store = ScoreStore(tmp_path, teacher.identity)
    assert sizes(store) == [12, 12, 12]
    assert score(many(30), teacher, store, part_pairs=12) == 120 - 36
    assert holds(store, many(30))


def test_the_first_part_is_small_and_no_part_is_larger_than_asked(tmp_path: Path) -> None:
    teacher = Fake()
    store = ScoreStore(tmp_path, teacher.identity)
    score(many(2_000), teacher, store)
    assert 256 in sizes(store)
    assert max(sizes(store)) <= 4_096
    assert len(sizes(store)) < 6


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_and_not_kept(tmp_path: Path, wrong: float) -> None:
    class Broken(Fake):
        def score(self, groups: Sequence[Group], advance: Callable[[int], None] = lambda done: None) -> list[np.ndarray]:
            scores = super().score(groups, advance)
            scores[-1][-1] = wrong
            return scores

    teacher = Broken()
    store = ScoreStore(tmp_path, teacher.identity)
    with pytest.raises(UserError, match="not finite for the query 'query 1'"):
        score(many(2), teacher, store)
    assert parts(store.folder) == []


def test_two_runs_at_once_end_with_the_same_scores(tmp_path: Path) -> None:
    groups = many(60)

    def one(part: list[Group]) -> None:
        teacher = Fake()
        score(part, teacher, ScoreStore(tmp_path, teacher.identity), part_pairs=8)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, [groups[:40], groups[20:]]))
    assert holds(ScoreStore(tmp_path, Fake().identity), groups)


def test_scored_pairs_are_the_passages_in_order() -> None:
    groups = [Group("1", "q", (Passage("a"), Passage("b"))), Group("2", "r", (Passage("a"),))]
    found = list(scored_pairs(groups, [np.asarray([1.5, 2]), np.asarray([-3])]))
    assert found == [ScoredPair("q", "a", 1.5), ScoredPair("q", "b", 2.0), ScoredPair("r", "a", -3.0)]


def test_a_teacher_that_shares_passages_is_asked_all_of_one_passage_together(tmp_path: Path) -> None:
    groups = [Group(str(n), f"query {n}", tuple(Passage(f"passage {p}") for p in (n % 3, 3 + n % 2))) for n in range(12)]
    teacher = Fake()
    teacher.shares = "passage"
    order: list[str] = []
    ask = teacher.score
    teacher.score = lambda asked, advance=None: (  # type: ignore[method-assign]
        order.extend(passage.text for group in asked for passage in group.passages) or ask(asked)
    )
    store = ScoreStore(tmp_path, teacher.identity)
    assert score(groups, teacher, store) == 24
    assert len([text for text, _ in groupby(order)]) == 5
    assert holds(store, groups)
