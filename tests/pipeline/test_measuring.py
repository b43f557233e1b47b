"""What timing the systems is reckoned to take is what `time_system` then takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

import tiny
from distilrank.evidence.cost import time_system
from distilrank.pipeline.hardware import beside, hardware
from distilrank.pipeline.measuring import timed, timings


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("query", [0.0001, 0.003, 0.09, 0.5, 3.0])
@pytest.mark.parametrize("wanted", [0.5, 2.0])
def test_a_system_is_timed_for_as_long_as_was_reckoned(query: float, wanted: float, rounds: int) -> None:
    now = 0.0

    def score(groups: object) -> None:
        nonlocal now
        count = len(groups)  # type: ignore[arg-type]
        now += query * count * (0.9 if count > 1 else 1)  # at once is somewhat quicker

    time_system(score, tiny.groups(6, 3), device="a clock", seconds=wanted, rounds=rounds, clock=lambda: now)
    assert timed(query, wanted, rounds) == pytest.approx(now, rel=0.2, abs=query)


def test_a_teacher_that_is_not_timed_costs_nothing_and_a_gpus_host_is_timed_too() -> None:
    cpu, gpu = hardware("cpu"), hardware("h100")
    alone = timings(1e12, 2, (), 1.0, cpu)
    assert alone == 2 * timed(1e12 / cpu.rates["encoder"], 1.0, 1)
    assert timings(1e12, 2, [("decoder", 1e12)], 1.0, cpu) > alone
    assert timings(1e12, 2, (), 1.0, gpu) > 2 * timed(1e12 / beside(gpu).rates["encoder"], 1.0, 1)
    slower = replace(cpu, rates={kind: rate / 2 for kind, rate in cpu.rates.items()})
    assert timings(1e12, 2, (), 1.0, slower) == pytest.approx(2 * alone)
