"""The report's figures: numbers in, one inline SVG with its text alternative out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distilrank.evidence.drawing import (
    Canvas,
    across,
    apart,
    around,
    axes,
    ceiling,
    dot,
    line,
    mirrored,
    rule,
    steps,
    svg,
    ticks,
    words,
)
from distilrank.evidence.wording import number, signed

BINS = 32
MOST_STEPS = 800
"""A figure is about as many pixels wide: more steps than that would only make the file larger."""
ROW = 34
"""Height of a row of intervals."""
LABEL = 16
"""The least distance between two labels in a figure."""
LETTER = 7.2
"""Width of a letter of a half figure, on average and a little more."""
NAME, ROW_NAME = 20, 16
"""Letters of a system's name that there is room for, in a half figure, and beside an interval on a phone."""

WIDE = Canvas("wide", 700, 270, left=72, bottom=60)
HALF = Canvas("half", 460, 250)
THIRD = Canvas("third", 340, 230)


@dataclass(frozen=True)
class Series:
    """A named line or point; `kind` is the role of the system that it stands for and decides its colour."""

    name: str
    kind: str
    xs: Sequence[float]
    ys: Sequence[float]


@dataclass(frozen=True)
class Interval:
    """A named difference with the ends of its interval."""

    name: str
    value: float
    low: float
    high: float
    shown: bool
    """Whether the difference is shown: by the corrected p, not by this interval."""


def changes(values: np.ndarray, measure: str) -> str:
    """Per-query differences, sorted from the largest gain to the largest loss, as one silhouette around zero."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))[::-1]
    count, gains, losses = len(ordered), int((ordered > 0).sum()), int((ordered < 0).sum())
    description = f"{gains} gain, {losses} lose; from {signed(ordered[0], '.3f')} to {signed(ordered[-1], '.3f')}."
    if count > MOST_STEPS:
        ordered = ordered[np.linspace(0, count - 1, MOST_STEPS).round().astype(int)]
    reach = mirrored(float(np.abs(ordered).max()))
    x, y = WIDE.x(0, count), WIDE.y(-reach, reach)
    edges = np.linspace(0, count, len(ordered) + 1)
    shapes = [
        steps(x, y, edges, np.clip(ordered, 0, None), "gain"),
        steps(x, y, edges, np.clip(ordered, None, 0), "loss"),
        rule(x.start, y(0), x.end, y(0), "zero"),
    ]
    title = f"Change in {measure} of {count} queries, sorted from the largest gain to the largest loss"
    whole = [tick for tick in ticks(0, count) if tick == int(tick)]
    frame = axes(WIDE, x, y, "queries, sorted by change", f"change in {measure}", x_ticks=whole)
    return svg(WIDE, title, description, frame + shapes)


def histogram(positives: np.ndarray, others: np.ndarray, title: str) -> str:
    """Two distributions of scores on one axis, each as shares of its own kind: positives are few among others."""
    every = np.concatenate([positives, others])
    low, high = float(every.min()), float(every.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    shares = [np.histogram(values, edges)[0] / max(1, len(values)) for values in (others, positives)]
    x, y = THIRD.x(low, high), THIRD.y(0, ceiling(max(float(share.max()) for share in shares)))
    shapes = [steps(x, y, edges, share, name) for share, name in zip(shares, ("others", "positives"), strict=True)]
    medians = [(name, np.median(part)) for name, part in (("positives", positives), ("others", others)) if len(part)]
    description = "; ".join(f"median of the {name} {number(median, 2)}" for name, median in medians) + "."
    return svg(THIRD, title, description, axes(THIRD, x, y, "raw score", "share", percent=True) + shapes)


def counts(edges: Sequence[float], heights: Sequence[int], title: str) -> str:
    """A histogram that was counted before, as shares."""
    shares = np.asarray(heights, dtype=np.float64) / max(1, sum(heights))
    x, y = HALF.x(edges[0], edges[-1]), HALF.y(0, ceiling(float(shares.max())))
    top = int(shares.argmax())
    description = f"Most scores lie between {number(edges[top], 2)} and {number(edges[top + 1], 2)}."
    frame = axes(HALF, x, y, "raw score", "share", percent=True)
    return svg(HALF, title, description, [*frame, steps(x, y, np.asarray(edges), shares, "others")])


def curve(points: Sequence[tuple[float, float]], title: str, label: str, *, smoothed: bool, kept: int | None = None) -> str:
    """(step, value) pairs: a light line under a smoothed one, or a line with its points marked, one as kept."""
    at, values = [step for step, _ in points], [value for _, value in points]
    x = HALF.x(0, max(1, *at))
    y = HALF.y(*((0.0, ceiling(max(values))) if smoothed and min(values) >= 0 else around(values)))
    if smoothed:
        smooth = moving_average(values)
        shapes = [line(x, y, at, values, "raw"), line(x, y, at, smooth, "smooth")]
        ends = smooth[0], smooth[-1]
    else:
        marks = ["kept" if step == kept else "point" for step in at]
        dots = [dot(x(step), y(value), mark) for step, value, mark in zip(at, values, marks, strict=True)]
        shapes = [line(x, y, at, values, "smooth"), *dots]
        ends = values[0], values[-1]
    description = f"From {number(ends[0], 3)} to {number(ends[1], 3)} in {at[-1]:,.0f} steps."
    return svg(HALF, title, description, axes(HALF, x, y, "optimiser step", label) + shapes)


def intervals(rows: Sequence[Interval], title: str, label: str) -> str:
    """Differences with their intervals, one a row, around zero."""
    canvas = Canvas("wide", 700, ROW * len(rows) + 62, left=230, bottom=56, top=6)
    ends = [0.0, *(end for row in rows for end in (row.low, row.high, row.value))]
    x = canvas.x(*around(ends))
    parts = [rule(x(tick), canvas.top, x(tick), canvas.height - canvas.bottom, "grid") for tick in ticks(x.low, x.high)]
    parts.append(rule(x(0), canvas.top, x(0), canvas.height - canvas.bottom, "zero"))
    for place, row in enumerate(rows):
        top = canvas.top + ROW * (place + 0.5)
        kind = "grey" if not row.shown else "one" if row.value > 0 else "two"
        parts += [
            words(canvas.left - 14, top + 4, _brief(row.name, ROW_NAME), "end"),
            rule(x(row.low), top, x(row.high), top, f"interval {kind}"),
            dot(x(row.value), top, f"fill-{kind}", 5),
        ]
    said = (f"{row.name}: {signed(row.value)}, {signed(row.low)} to {signed(row.high)}" for row in rows)
    return svg(canvas, title, "; ".join(said) + ".", [*parts, *across(canvas, x, label)])


def lines(series: Sequence[Series], title: str, x_label: str, y_label: str, *, share: bool = False) -> str:
    """One line, or several, each named at its end; with `share`, of values in [0, 1]."""
    every_x, every_y = [x for one in series for x in one.xs], [y for one in series for y in one.ys]
    low, high = min(every_x), max(every_x)
    longest = max(len(_brief(one.name)) for one in series)
    canvas = Canvas("half", 460, 270, right=round(16 + LETTER * longest)) if len(series) > 1 else HALF
    x, y = canvas.x(low, high if high > low else low + 1), canvas.y(*around(every_y, share=share))
    shapes = []
    for one in series:
        shapes.append(line(x, y, one.xs, one.ys, f"series {one.kind}"))
        shapes += [dot(x(a), y(b), f"dot {one.kind}", 3) for a, b in zip(one.xs, one.ys, strict=True)]
    if len(series) > 1:
        tops = apart([y(one.ys[-1]) for one in series], LABEL)
        shapes += [words(x.end + 10, top + 4, _brief(one.name)) for one, top in zip(series, tops, strict=True)]
    said = (f"{one.name}: from {number(one.ys[0], 3)} to {number(one.ys[-1], 3)}" for one in series)
    frame = axes(canvas, x, y, x_label, y_label)
    return svg(canvas, title, "; ".join(said) + ".", frame + shapes)


def against_latency(series: Sequence[Series], title: str, x_label: str, y_label: str) -> str:
    """One named point a system: quality against latency, which is drawn on a logarithmic axis."""
    at, values = [one.xs[0] for one in series], [one.ys[0] for one in series]
    x, y = HALF.x(min(at) / 1.6, max(at) * 1.6, log=True), HALF.y(*around(values, share=True))
    tops = apart([y(value) for value in values], LABEL)
    shapes = []
    for one, place, value, top in zip(series, at, values, tops, strict=True):
        right = x(place) + 12 + LETTER * len(_brief(one.name)) < HALF.width
        shapes.append(dot(x(place), y(value), f"dot {one.kind}", 6))
        shapes.append(words(x(place) + (12 if right else -12), top + 4, _brief(one.name), "start" if right else "end"))
    said = (f"{one.name}: {number(one.xs[0], 1)} ms, {number(one.ys[0], 3)}" for one in series)
    return svg(HALF, title, "; ".join(said) + ".", axes(HALF, x, y, x_label, y_label) + shapes)


def moving_average(values: Sequence[float]) -> list[float]:
    """Centred mean over a tenth of the points, over fewer at the ends."""
    window = np.ones(max(1, len(values) // 10))
    sums = np.convolve(values, window, "same")
    smooth: list[float] = (sums / np.convolve(np.ones(len(values)), window, "same")).tolist()
    return smooth


def _brief(name: str, most: int = NAME) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
