"""Timing on a real GPU: both devices, as served, warmed up, and waited for. Two tiny models; see tests/evidence/test_cost.py
for the clock itself.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

import tiny
from distilrank.engines.load import dtype_of
from distilrank.evidence.cost import FEWEST, Cost, time_system
from distilrank.pipeline.costs import device_name, student_cost, teacher_cost
from distilrank.pipeline.systems import Student
from distilrank.records import Group
from distilrank.teachers.cross_encoder import CrossEncoderTeacher

pytestmark = pytest.mark.gpu
GROUPS = tiny.groups(30, 12, seed=3)


def of_student(folder: Path) -> Cost:
    student = Student("after", "after", folder, 48)
    return student_cost("after", partial(student.on, served=True), GROUPS, 0.5)


@pytest.mark.parametrize("name", ["bert", "xlmr"])
def test_a_student_is_timed_on_the_cpu_and_on_the_gpu(name: str, request: pytest.FixtureRequest) -> None:
    cost = of_student(request.getfixturevalue(name))
    on_cpu, on_gpu = cost.runs
    assert (on_cpu.device, on_gpu.device) == (device_name("cpu"), device_name("cuda"))
    assert (on_cpu.threads > 0, on_gpu.threads) == (True, 0)
    assert (on_cpu.dtype, on_gpu.dtype) == (dtype_of("auto", "cpu"), dtype_of("auto", "cuda"))
    for run in cost.runs:
        assert run.queries >= FEWEST
        assert 0 < run.p50_ms <= run.p95_ms
        assert run.pairs_per_second_batched > 0.5 * run.pairs_per_second_single
    # Kernels to load, a graph to capture: milliseconds to seconds each, and none of them among the queries that count.
    assert on_gpu.p95_ms < 5 * on_gpu.p50_ms


def test_the_teacher_is_timed_where_it_scores(bert: Path) -> None:
    teacher = CrossEncoderTeacher(bert, max_length=64, device="cuda")
    cost = teacher_cost([teacher], [bert], GROUPS, 0.5)
    assert cost is not None
    (run,) = cost.runs
    assert (run.device, run.dtype, run.threads) == (device_name("cuda"), dtype_of("auto", "cuda"), 0)
    assert "model" not in vars(teacher), "its memory is free again"
    both = teacher_cost([teacher, CrossEncoderTeacher(bert, max_length=64, device="cpu")], [bert, bert], GROUPS, 0.1)
    assert both is not None
    assert both.runs[0].device == f"{device_name('cpu')} and {device_name('cuda')}"


def test_the_clock_is_read_when_the_gpu_has_finished() -> None:
    """Work that is only launched: without waiting it would seem to take no time."""
    import torch

    square = torch.randn(4_096, 4_096, device="cuda")

    def launch(_: object) -> None:
        for _ in range(40):
            square @ square

    def timed() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        launch(None)
        torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start)

    timed()
    truth = min(timed() for _ in range(5))
    one = [Group("q", "q", GROUPS[0].passages)]
    waited = time_system(launch, one, device="g", seconds=0.1, wait=torch.cuda.synchronize)
    assert waited.p50_ms > 0.8 * truth
