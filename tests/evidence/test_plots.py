"""Figures: round ticks, small files, and a text that says what is to be seen."""

from __future__ import annotations

import re

import numpy as np
import pytest

from distilrank.evidence.drawing import ticks
from distilrank.evidence.plots import Interval, Series, against_latency, changes, intervals, lines, moving_average


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


@pytest.mark.parametrize("name", ["after", "student-distilled", "cross-encoder/ms-marco-MiniLM-L-12-v2"])
def test_a_long_name_stays_inside_the_figure(name: str) -> None:
    series = [Series(name, "after", [at, 30.0], [0.5, value]) for at, value in ((1.0, 0.7), (20.0, 0.8))]
    row = Interval(name, 0.2, 0.1, 0.3, True)
    drawn = [
        (lines(series, "t", "x", "y"), 7.0),
        (against_latency(series, "t", "x", "y"), 7.0),
        (intervals([row], "t", "l"), 12.8),
    ]
    for svg, letter in drawn:
        width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])  # type: ignore[index]
        found = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="(\w+)">([^<]*)</text>', svg)
        named = [(float(x), anchor, text) for x, anchor, text in found if name[:5] in text]
        assert named
        for x, anchor, text in named:
            left = x - letter * len(text) * (anchor == "end")
            assert 0 <= left < left + letter * len(text) <= width, text
