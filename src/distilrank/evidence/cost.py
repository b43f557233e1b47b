"""What a system costs to serve: latency, throughput, parameters and bytes. A callable is timed; no model is known here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from distilrank.evidence.numbers import Number
from distilrank.records import Group

WARM_UPS = 2
FEWEST, MOST = 5, 200
"""Queries timed one by one, as many as the seconds allow."""


@dataclass(frozen=True)
class Timing:
    """One device: latency of one query with its candidates, and pairs a second one query at a time and all at once."""

    device: str
    threads: int
    """Of the CPU; 0 on a GPU."""
    candidates: int
    """The median number of passages of the queries timed."""
    queries: int
    p50_ms: Number
    p95_ms: Number
    pairs_per_second_single: Number
    pairs_per_second_batched: Number
    dtype: str = ""
    """What products are computed in: bfloat16, float32; empty where it was not recorded."""


@dataclass(frozen=True)
class Cost:
    """A system's size, and its timings on this machine's devices."""

    parameters: int | None
    bytes: int | None
    """Of the weights on disk."""
    runs: Sequence[Timing]


def time_system(
    score: Callable[[Sequence[Group]], object],
    groups: Sequence[Group],
    *,
    device: str,
    threads: int = 0,
    dtype: str = "",
    seconds: float = 1.0,
    rounds: int = 1,
    wait: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Time `score` on the groups: at least FEWEST queries one by one for about `seconds`, then these at once.

    A quick system gets through more queries than a slow one, so queries are of like size: those that have as many candidates
    as the median query, or the FEWEST that come nearest.

    Of `rounds` over the same queries the last one counts: a GPU sets up a size of batch when it first meets it, and a server
    has met them all. At once has kernels to load and memory to get the first time: where it took less than `seconds`, or
    longer than one by one, it is timed `rounds` times more, and the fastest counts.

    `wait` returns when the device has nothing left to do; the clock is read after it alone.
    """

    def timed(part: Sequence[Group]) -> float:
        wait()
        start = clock()
        score(part)
        wait()
        return clock() - start

    asked = list(islice(cycle(_alike(groups)), MOST))
    for group in asked[:WARM_UPS]:
        timed([group])
    took: list[float] = []
    while len(took) < MOST and (len(took) < FEWEST or sum(took) < seconds):
        took.append(timed([asked[len(took)]]))
    single = asked[: len(took)]
    for _ in range(1, rounds):
        took = [timed([group]) for group in single]
    pairs = sum(len(group.passages) for group in single)
    batched = timed(single)
    if batched < seconds or batched > sum(took):
        batched = min(batched, *(timed(single) for _ in range(rounds)))
    return Timing(
        device,
        threads,
        candidates=int(np.median([len(group.passages) for group in single])),
        queries=len(took),
        p50_ms=1e3 * float(np.percentile(took, 50)),
        p95_ms=1e3 * float(np.percentile(took, 95)),
        pairs_per_second_single=pairs / max(sum(took), 1e-9),
        pairs_per_second_batched=pairs / max(batched, 1e-9),
        dtype=dtype,
    )


def _alike(groups: Sequence[Group]) -> list[Group]:
    counts = np.array([len(group.passages) for group in groups])
    distance = np.abs(counts - np.median(counts))
    nearest = np.argsort(distance, kind="stable")[: max(FEWEST, int((distance == distance.min()).sum()))]
    return [groups[place] for place in sorted(nearest)]
