"""Every row is scored once, no batch is over its budget, nobody waits for a larger request, and failures stay their own."""

from __future__ import annotations

import asyncio
from threading import Event

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrank.engines.batches import Encoded
from distilrank.serving.batching import Batcher, Job, Pace


def rows(lengths: list[int], first: int = 0) -> Encoded:
    """Rows that can be told apart: each begins with its own number."""
    return {"input_ids": [[first + place, *[0] * (length - 1)] for place, length in enumerate(lengths)]}


def numbers(encoded: Encoded) -> np.ndarray:
    return np.array([row[0] for row in encoded["input_ids"]], dtype=np.float32)


jobs_of_lengths = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=30), min_size=1, max_size=6)


@given(jobs_of_lengths, st.integers(8, 100), st.lists(st.booleans(), min_size=6, max_size=6))
def test_every_row_is_in_one_batch_and_no_batch_over_budget(lengths: list[list[int]], budget: int, old: list[bool]) -> None:
    loop = asyncio.new_event_loop()
    batcher = Batcher(numbers, budget, old=60.0)
    jobs = [Job(rows(each), loop) for each in lengths]
    for job, is_old in zip(jobs, old, strict=False):
        job.came -= 100.0 * is_old
    batcher.jobs.extend(jobs)
    given_out: dict[int, list[int]] = {place: [] for place in range(len(jobs))}
    while batcher.jobs:
        batch = batcher.pick()
        tokens = [int(job.lengths[row]) for job, of_job in batch for row in of_job]
        assert sum(tokens) <= budget or len(tokens) == 1
        for job, of_job in batch:
            given_out[jobs.index(job)] += of_job
    assert {place: sorted(each) for place, each in given_out.items()} == {
        place: list(range(len(each))) for place, each in enumerate(lengths)
    }
    loop.close()


def test_a_small_request_goes_with_the_next_batch_of_a_large_one() -> None:
    loop = asyncio.new_event_loop()
    batcher = Batcher(numbers, 100)
    large, small = Job(rows([10] * 1_000), loop), Job(rows([10] * 5), loop)
    batcher.jobs.append(large)
    batcher.pick()
    batcher.jobs.append(small)
    taken = {id(job): of_job for job, of_job in batcher.pick()}
    assert sorted(taken[id(small)]) == [0, 1, 2, 3, 4]
    assert len(taken[id(large)]) == 5
    loop.close()


def test_an_old_request_goes_before_the_small_ones_that_keep_coming() -> None:
    loop = asyncio.new_event_loop()
    batcher = Batcher(numbers, 100, old=5.0)
    large = Job(rows([10] * 20), loop)
    batcher.jobs.append(large)

    def batches() -> int:
        count = 0
        while large.waiting:
            batcher.jobs.extend(Job(rows([10] * 9), loop) for _ in range(10))
            batcher.pick()
            count += 1
        return count

    young = batches()
    batcher.jobs.clear()
    large = Job(rows([10] * 20), loop)
    large.came -= 6.0
    batcher.jobs.append(large)
    assert batches() == 2
    assert young > 5
    loop.close()


def test_the_pace_is_tokens_by_seconds_of_late() -> None:
    pace = Pace()
    assert pace.needs(100) == 0.0
    pace.add(1_000, 1.0)
    assert pace.needs(100) == pytest.approx(0.1)
    pace.add(1, 1e-6)  # a batch that took no time says little
    assert pace.needs(100) == pytest.approx(0.1, rel=0.01)
    for _ in range(30):
        pace.add(100, 1.0)
    assert pace.needs(100) == pytest.approx(1.0, rel=0.01)


def test_tokens_that_wait_are_counted_until_they_are_computed_or_nobody_waits() -> None:
    let, entered = Event(), Event()

    def score(encoded: Encoded) -> np.ndarray:
        entered.set()
        assert let.wait(30)
        return numbers(encoded)

    batcher = Batcher(score, 30)
    batcher.start()

    async def ask() -> None:
        first = asyncio.ensure_future(batcher.submit(rows([10] * 3)))
        second = asyncio.ensure_future(batcher.submit(rows([5] * 4)))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        assert batcher.tokens == 50
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert batcher.tokens == 30
        let.set()
        await first
        assert batcher.tokens == 0

    asyncio.run(ask())
    batcher.stop()


def test_a_row_that_is_longer_than_its_share_is_not_left_behind() -> None:
    loop = asyncio.new_event_loop()
    batcher = Batcher(numbers, 100)
    long = Job(rows([90]), loop)
    batcher.jobs.append(long)
    for _ in range(20):
        batcher.jobs.append(Job(rows([5] * 50), loop))
    assert any(job is long for job, _ in batcher.pick())
    loop.close()


@given(jobs_of_lengths)
def test_scores_come_back_in_the_order_of_the_rows(lengths: list[list[int]]) -> None:
    batcher = Batcher(numbers, 64)
    batcher.start()

    async def ask() -> list[np.ndarray]:
        return await asyncio.gather(*(batcher.submit(rows(each, 100 * place)) for place, each in enumerate(lengths)))

    found = asyncio.run(ask())
    batcher.stop()
    for place, (each, values) in enumerate(zip(lengths, found, strict=True)):
        np.testing.assert_array_equal(values, 100 * place + np.arange(len(each)))


def test_what_nobody_waits_for_is_not_computed() -> None:
    let, entered, seen = Event(), Event(), []

    def score(encoded: Encoded) -> np.ndarray:
        seen.append(numbers(encoded))
        entered.set()
        assert let.wait(30)
        return numbers(encoded)

    batcher = Batcher(score, 10)
    batcher.start()

    async def ask() -> None:
        first = asyncio.ensure_future(batcher.submit(rows([10] * 3)))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(batcher.submit(rows([10] * 50, 1_000)))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        let.set()
        np.testing.assert_array_equal(await first, [0, 1, 2])

    asyncio.run(ask())
    batcher.stop()
    assert np.concatenate(seen).max() < 1_000
    assert not batcher.jobs


def test_a_batch_that_fails_fails_its_requests_and_no_other() -> None:
    def score(encoded: Encoded) -> np.ndarray:
        if 7 in numbers(encoded):
            raise RuntimeError("out of memory")
        return numbers(encoded)

    batcher = Batcher(score, 10)
    batcher.start()

    async def ask() -> None:
        with pytest.raises(RuntimeError):
            await batcher.submit(rows([10] * 20))
        np.testing.assert_array_equal(await batcher.submit(rows([10], 3)), [3])

    asyncio.run(ask())
    assert batcher.alive
    assert not batcher.jobs
    batcher.stop()


def test_an_answer_to_a_loop_that_is_closed_is_dropped() -> None:
    loop = asyncio.new_event_loop()
    job = Job(rows([3]), loop)
    loop.close()
    job.scored([0], np.array([1.0], dtype=np.float32))
    job.failed(RuntimeError())


def test_no_rows_need_no_model() -> None:
    batcher = Batcher(numbers, 10)
    assert len(asyncio.run(batcher.submit({"input_ids": []}))) == 0
    batcher.stop()
