"""Latency and throughput by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
import pytest

from distilrank.evidence.cost import FEWEST, MOST, WARM_UPS, time_system
from distilrank.records import Group
from evidence import samples


class Server:
    """Takes a second a query at first and 10 ms a pair later; batches cost half."""

    def __init__(self, milliseconds: float = 10.0) -> None:
        self.now, self.milliseconds, self.calls = 0.0, milliseconds, 0

    def score(self, groups: Sequence[Group]) -> None:
        self.calls += 1
        pairs = sum(len(group.passages) for group in groups)
        once = pairs * self.milliseconds / 1e3
        self.now += 1.0 if self.calls <= WARM_UPS else once * (0.5 if len(groups) > 1 else 1.0)

    def clock(self) -> float:
        return self.now


def test_times_are_those_of_the_clock_without_the_warm_up() -> None:
    server = Server()
    found = time_system(server.score, samples.groups(40, 8), device="d", threads=2, seconds=1.0, clock=server.clock)
    assert (found.p50_ms, found.p95_ms) == (pytest.approx(80), pytest.approx(80))
    assert (found.candidates, found.queries) == (8, 13)
    assert found.pairs_per_second_single == pytest.approx(100)
    assert found.pairs_per_second_batched == pytest.approx(200)


def test_percentiles_are_numpys() -> None:
    of = [samples.groups(1, passages)[0] for passages in range(2, 22)]
    server = Server()
    found = time_system(server.score, of, device="d", seconds=2.0, clock=server.clock)
    took = list(islice(cycle([90.0, 100.0, 110.0, 120.0, 130.0]), found.queries))  # those nearest to the median, 11.5
    assert found.queries == 19
    assert (found.p50_ms, found.p95_ms) == (pytest.approx(np.percentile(took, 50)), pytest.approx(np.percentile(took, 95)))


def test_a_slow_system_is_asked_seldom_and_a_fast_one_not_for_ever() -> None:
    slow, fast = Server(10_000), Server(0.001)
    assert time_system(slow.score, samples.groups(), device="d", clock=slow.clock).queries == FEWEST
    assert time_system(fast.score, samples.groups(3), device="d", clock=fast.clock).queries == MOST


def test_a_slow_and_a_fast_system_answer_queries_of_like_size() -> None:
    of = [samples.groups(1, passages)[0] for passages in (1, 30, 7, 7, 7, 50, 7, 7, 2, 7, 60)]
    for milliseconds in (10_000, 0.001):
        asked: list[int] = []
        server = Server(milliseconds)

        def score(groups: Sequence[Group], server: Server = server, asked: list[int] = asked) -> None:
            asked.extend(len(group.passages) for group in groups)
            server.score(groups)

        assert time_system(score, of, device="d", clock=server.clock).candidates == 7
        assert set(asked) == {7}


class Gpu(Server):
    """Returns at once, is done when it is waited for; the first two times that it meets a size cost a second each."""

    def __init__(self) -> None:
        super().__init__()
        self.owed, self.met = 0.0, list[int]()

    def score(self, groups: Sequence[Group]) -> None:
        pairs = sum(len(group.passages) for group in groups)
        self.owed += pairs * 1e-3 + (self.met.count(pairs) < 2)
        self.met.append(pairs)

    def wait(self) -> None:
        self.now += self.owed
        self.owed = 0.0


def test_what_a_gpu_sets_up_is_in_no_time_and_it_is_waited_for() -> None:
    gpu = Gpu()
    of = [samples.groups(1, passages)[0] for passages in range(2, 12)]
    found = time_system(gpu.score, of, device="g", dtype="bfloat16", rounds=3, wait=gpu.wait, clock=gpu.clock)
    assert (found.queries, found.dtype) == (FEWEST, "bfloat16")
    assert (found.p50_ms, found.p95_ms) == (pytest.approx(6), pytest.approx(7.8))
    assert found.pairs_per_second_single == pytest.approx(1e3)
    assert found.pairs_per_second_batched == pytest.approx(1e3)
    assert gpu.owed == 0, "and nothing is left for whoever is timed next"


def test_a_batch_that_took_longer_than_one_by_one_is_asked_again() -> None:
    class Compiles(Server):
        def score(self, groups: Sequence[Group]) -> None:
            self.now += 0.03 * len(groups) * (100 if len(groups) > 1 and not self.calls else 1)
            self.calls += len(groups) > 1

    server = Compiles()
    found = time_system(server.score, samples.groups(40, 8), device="d", clock=server.clock)
    assert server.calls == 2
    assert found.pairs_per_second_batched == pytest.approx(8 / 0.03)
