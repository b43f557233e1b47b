"""A teacher is asked for what the store lacks, once, a part at a time; killed, it goes on where it was."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.errors import GateError, UserError
from distilrank.progress import Advance
from distilrank.records import Group, Passage, ScoredPair, write_scored
from distilrank.scoring import ScoreStore, refuse_output, score, scored_pairs
from distilrank.shards import parts
from distilrank.teachers import TeacherIdentity
from distilrank.teachers.base import Answer

module = sys.modules["distilrank.scoring.score"]  # `distilrank.scoring.score` is the function


def value(query: str, passage: str) -> np.float32:
    return np.float32(int.from_bytes(blake2b(f"{query}|{passage}".encode(), digest_size=2).digest(), "big") / 1000 - 30)


class Fake:
    """A teacher whose scores are hashes; it counts what it was asked and stops for good after `most` calls."""

    shares: Literal["query", "passage"] = "query"
    engine = "by heart"

    def __init__(self, weights: str = "fake", most: int = 10**9, portion: int = 64) -> None:
        self.identity = TeacherIdentity("causal", "logit difference", weights, "float32", 512)
        self.most, self.portion = most, portion
        self.asked, self.parts = Counter[tuple[str, str]](), list[int]()

    def prepare(self, groups: Sequence[Group]) -> Answer:
        return lambda advance: self.score(groups, advance)

    def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
        if len(self.parts) == self.most:
            raise RuntimeError("killed")
        self.parts.append(sum(len(group.passages) for group in groups))
        self.asked.update((group.query, passage.text) for group in groups for passage in group.passages)
        advance(self.parts[-1])
        return [np.asarray([value(group.query, p.text) for p in group.passages]) for group in groups]

    def release(self) -> None:
        pass


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
    assert second.parts == []


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
        if len(self.parts) == 3:
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


# ---- the check before


def test_a_check_comes_once_and_before_the_first_pair(tmp_path: Path) -> None:
    teacher = Fake()
    store = ScoreStore(tmp_path, teacher.identity)
    asked: list[list[int]] = []
    score(many(30), teacher, store, part_pairs=12, check=lambda: asked.append(list(teacher.parts)))
    assert asked == [[]]


def test_a_check_that_says_no_costs_nothing(tmp_path: Path) -> None:
    def no() -> None:
        raise GateError("no")

    teacher = Fake()
    store = ScoreStore(tmp_path, teacher.identity)
    with pytest.raises(GateError, match="no"):
        score(many(30), teacher, store, check=no)
    assert teacher.parts == sizes(store) == []


def test_nothing_is_checked_where_nothing_is_missing(tmp_path: Path) -> None:
    teacher = Fake()
    store = ScoreStore(tmp_path, teacher.identity)
    score(many(5), teacher, store)
    assert score(many(5), teacher, store, check=lambda: pytest.fail("checked")) == 0


# ---- how large a part is


def timed(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float], portion: int) -> Fake:
    """A teacher that takes so many seconds for so many pairs, by a clock of its own and one part at a time."""

    class Timed(Fake):
        def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
            scores = super().score(groups, advance)
            clock.now += seconds(self.parts[-1])
            return scores

    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(module, "ahead", iter)  # so that each part knows of the one before
    return Timed(portion=portion)


def parts_of(teacher: Fake, folder: Path, pairs: int, **settings: int) -> list[int]:
    groups = many(pairs, passages=1)
    store = ScoreStore(folder, teacher.identity)
    assert score(groups, teacher, store, **settings) == pairs
    assert sorted(sizes(store)) == sorted(teacher.parts)
    assert holds(store, groups)
    return teacher.parts


def test_the_first_part_is_the_teachers_portion_and_parts_double_while_they_are_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = timed(monkeypatch, lambda pairs: 0.001 * pairs, portion=64)
    assert parts_of(teacher, tmp_path, 1_000) == [64, 128, 256, 512, 40]


def test_no_part_is_larger_than_asked_however_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = timed(monkeypatch, lambda pairs: 0.0, portion=64)
    assert parts_of(teacher, tmp_path, 1_000, part_pairs=200) == [64, 128, 200, 200, 200, 200, 8]


def test_no_part_is_larger_than_asked_however_large_the_teachers_portion(tmp_path: Path) -> None:
    assert set(parts_of(Fake(portion=4_096), tmp_path, 90, part_pairs=30)) == {30}


def test_parts_halve_while_they_are_slow_down_to_one_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = timed(monkeypatch, lambda pairs: 31.0, portion=8)
    assert parts_of(teacher, tmp_path, 20) == [8, 4, 2, 1, 1, 1, 1, 1, 1]


def test_parts_stay_where_they_take_neither_long_nor_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = timed(monkeypatch, lambda pairs: 0.1 * pairs, portion=64)
    assert parts_of(teacher, tmp_path, 320) == [64] * 5


def test_parts_settle_below_the_time_a_part_may_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = timed(monkeypatch, lambda pairs: 0.25 * pairs, portion=512)
    found = parts_of(teacher, tmp_path, 1_500)
    assert found[:4] == [512, 256, 128, 64]
    assert set(found[3:-1]) == {64}


@settings(max_examples=6)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=8), st.integers(1, 40), st.integers(1, 40))
def test_no_part_is_larger_than_asked_whatever_it_takes(
    tmp_path_factory: pytest.TempPathFactory, seconds: list[float], portion: int, most: int
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        teacher = timed(monkeypatch, lambda pairs: seconds[len(teacher.parts) % len(seconds)], portion)
        assert max(parts_of(teacher, tmp_path_factory.mktemp("scores"), 60, part_pairs=most)) <= most


def test_a_group_larger_than_a_part_may_be_is_split(tmp_path: Path) -> None:
    teacher = Fake()
    store = ScoreStore(tmp_path, teacher.identity)
    score(many(2, passages=25), teacher, store, part_pairs=10)
    assert teacher.parts == [10, 10, 5, 10, 10, 5]
    assert holds(store, many(2, passages=25))


TEACHERS = {"causal": ("query", 300), "likelihood": ("passage", 160)}


@pytest.mark.parametrize("kind", TEACHERS)
def test_scores_do_not_depend_on_the_size_of_parts(kind: str, qwen: Path, tmp_path: Path) -> None:
    import tiny
    from distilrank.teachers.causal import CausalTeacher
    from distilrank.teachers.likelihood import LikelihoodTeacher

    shares, most = TEACHERS[kind]
    made: Any = CausalTeacher if kind == "causal" else LikelihoodTeacher
    teacher = made(qwen, max_length=most, dtype="float32", device="cpu")
    assert teacher.shares == shares
    groups = tiny.groups(6, 5)
    expected = np.concatenate(teacher.score(groups))
    for part_pairs in (1, 7, 10_000):
        store = ScoreStore(tmp_path / str(part_pairs), teacher.identity)
        assert score(groups, teacher, store, part_pairs=part_pairs) == 30
        assert max(sizes(store)) <= part_pairs
        np.testing.assert_allclose(np.concatenate(list(store.scores(groups))), expected, atol=1e-4)


# ---- the next part is prepared while one is scored


def test_the_next_part_is_prepared_while_one_is_scored(tmp_path: Path) -> None:
    class Waiting(Fake):
        prepared = 0
        next_one = threading.Event()

        def prepare(self, groups: Sequence[Group]) -> Answer:
            self.prepared += 1
            if self.prepared == 2:
                self.next_one.set()
            return super().prepare(groups)

        def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
            assert self.next_one.wait(10)
            return super().score(groups, advance)

    teacher = Waiting()
    store = ScoreStore(tmp_path, teacher.identity)
    score(many(4), teacher, store, part_pairs=8)
    assert holds(store, many(4))


@pytest.mark.parametrize("error", [UserError("a query that leaves no room"), KeyError("our fault")])
@pytest.mark.parametrize("whole", [0, 1, 3])
def test_an_error_of_the_preparing_thread_is_that_error_and_costs_no_finished_part(
    tmp_path: Path, error: Exception, whole: int
) -> None:
    class Failing(Fake):
        prepared = 0

        def prepare(self, groups: Sequence[Group]) -> Answer:
            if self.prepared == whole:
                raise error
            self.prepared += 1
            return super().prepare(groups)

    teacher = Failing()
    store = ScoreStore(tmp_path, teacher.identity)
    with pytest.raises(type(error)) as raised:
        score(many(30), teacher, store, part_pairs=12)
    assert raised.value is error
    assert sizes(store) == [12] * whole


def test_a_run_that_stops_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    for number, teacher in enumerate((Fake(), Fake(most=1))):
        store = ScoreStore(tmp_path / str(number), teacher.identity)
        try:
            score(many(30), teacher, store, part_pairs=12)
        except RuntimeError:
            assert number == 1
    assert threading.active_count() == before


# ---- what is kept


def test_a_part_says_which_engine_and_which_versions_it_comes_from(tmp_path: Path) -> None:
    teacher = Fake()
    store = ScoreStore(tmp_path, teacher.identity)
    score(many(2), teacher, store)
    (path,) = parts(store.folder)
    kept = {key.decode(): text.decode() for key, text in pq.read_schema(path).metadata.items()}
    assert kept["engine"] == "by heart"
    assert {"distilrank", "torch", "transformers", "sentence-transformers", "machine"} < set(kept)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_and_not_kept(tmp_path: Path, wrong: float) -> None:
    class Broken(Fake):
        def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
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


@pytest.mark.parametrize("name", ["new/deep/s.jsonl", "s.jsonl.gz", "s.parquet", "empty.jsonl"])
def test_a_new_file_and_earlier_scores_may_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.jsonl").touch()
    refuse_output(tmp_path / name, tmp_path / "scores")
    write_scored(tmp_path / name, [ScoredPair("q", "a", 1.5)])
    before = (tmp_path / name).read_bytes()
    refuse_output(tmp_path / name, tmp_path / "scores")
    assert (tmp_path / name).read_bytes() == before
    assert not list(tmp_path.rglob(".*"))


def test_an_output_that_could_not_be_written_is_refused_before_anything_is_paid_for(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text('{"query": "q", "positive": ["a"], "negative": ["b"]}\n')
    (tmp_path / "weights.safetensors").write_bytes(b"\x08\x00 not text \xff")
    (tmp_path / "folder").mkdir()
    for name, told in (
        ("set.jsonl", "exists already and holds no scored pairs"),
        ("weights.safetensors", "exists already and holds no scored pairs"),
        ("folder", "is a folder: name a file in it"),
        ("set.jsonl/s.jsonl", "cannot be written: "),
        ("x" * 250, "cannot be written: File name too long"),
        ("scores", "is the folder of the score store"),
    ):
        with pytest.raises(UserError, match=told):
            refuse_output(tmp_path / name, tmp_path / "scores")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "set.jsonl", "weights.safetensors"]
    with pytest.raises(UserError, match=r"set.jsonl: a score store is a folder, this is a file"):
        refuse_output(tmp_path / "scored.jsonl", tmp_path / "set.jsonl")


def test_a_teacher_that_shares_passages_is_asked_all_of_one_passage_together(tmp_path: Path) -> None:
    groups = [Group(str(n), f"query {n}", tuple(Passage(f"passage {p}") for p in (n % 3, 3 + n % 2))) for n in range(12)]
    teacher = Fake()
    teacher.shares = "passage"
    store = ScoreStore(tmp_path, teacher.identity)
    assert score(groups, teacher, store) == 24
    order = [passage for _, passage in teacher.asked]  # a counter keeps the order in which it was filled
    assert len([text for text, _ in groupby(order)]) == 5
    assert holds(store, groups)
