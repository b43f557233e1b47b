"""Figures: round ticks, small files, and a text that says what is to be seen."""

from __future__ import annotations

import numpy as np
import pytest

from distilrank.evidence.drawing import ticks
from distilrank.evidence.plots import Interval, changes, intervals, moving_average


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert ticks(-3.2, 9.1) == [0, 5]


def test_many_queries_make_no_large_figure() -> None:
    assert len(changes(np.random.default_rng(0).normal(size=100_000), "AP")) < 40_000
    assert "NaN" not in changes(np.zeros(3), "AP")


def test_the_moving_average_keeps_a_constant_to_its_ends() -> None:
    assert moving_average([2.0] * 35) == pytest.approx([2.0] * 35)


def test_an_interval_has_the_colour_of_the_verdict_and_not_of_its_ends() -> None:
    rows = [Interval("a", 0.2, 0.1, 0.3, True), Interval("b", 0.2, 0.1, 0.3, False), Interval("c", -0.2, -0.3, -0.1, True)]
    drawn = intervals(rows, "title", "label")
    assert [drawn.count(f'"interval {kind}"') for kind in ("one", "grey", "two")] == [1, 1, 1]
