"""The report's figures: numbers in, one inline SVG as text out, without a plotting library.

Colours and type sizes are classes that the report's style sheet defines, so that a figure follows light and dark mode,
paper, and the width of a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

BINS = 32
MOST_STEPS = 800
"""A figure is about as many pixels wide: more steps than that would only make the file larger."""


@dataclass(frozen=True)
class Axis:
    """A linear map from values to places in the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True)
class Canvas:
    """The size of a figure in user units and the margins kept for the labels of its axes."""

    name: str
    width: int
    height: int
    left: int = 62
    right: int = 24
    top: int = 12
    bottom: int = 52

    def x(self, low: float, high: float) -> Axis:
        """The horizontal axis from `low` to `high`."""
        return Axis(low, high, self.left, self.width - self.right)

    def y(self, low: float, high: float) -> Axis:
        """The vertical axis from `low` to `high`, upwards."""
        return Axis(low, high, self.height - self.bottom, self.top)


WIDE = Canvas("wide", 700, 270, left=72, bottom=60)
HALF = Canvas("half", 460, 250)
THIRD = Canvas("third", 340, 230)


def changes(values: np.ndarray, measure: str) -> str:
    """Per-query differences, sorted from the largest gain to the largest loss, as one silhouette around zero."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))[::-1]
    count = len(ordered)
    if count > MOST_STEPS:
        ordered = ordered[np.linspace(0, count - 1, MOST_STEPS).round().astype(int)]
    reach = _ceiling(float(np.abs(ordered).max()))
    x, y = WIDE.x(0, count), WIDE.y(-reach, reach)
    edges = np.linspace(0, count, len(ordered) + 1)
    shapes = [
        _steps(x, y, edges, np.clip(ordered, 0, None), "gain"),
        _steps(x, y, edges, np.clip(ordered, None, 0), "loss"),
        f'<line class="zero" x1="{x.start:g}" x2="{x.end:g}" y1="{y(0):.1f}" y2="{y(0):.1f}"/>',
    ]
    title = f"Change in {measure} of {count} queries, sorted from the largest gain to the largest loss"
    whole = [tick for tick in ticks(0, count) if tick == int(tick)]
    axes = _axes(WIDE, x, y, "queries, sorted by change", f"change in {measure}", x_ticks=whole)
    return _svg(WIDE, title, axes + shapes)


def histogram(positives: np.ndarray, others: np.ndarray, title: str) -> str:
    """Two distributions of scores on one axis, each as shares of its own kind: positives are few among others."""
    every = np.concatenate([positives, others])
    low, high = float(every.min()), float(every.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    shares = [np.histogram(values, edges)[0] / max(1, len(values)) for values in (others, positives)]
    x, y = THIRD.x(low, high), THIRD.y(0, _ceiling(max(float(share.max()) for share in shares)))
    shapes = [_steps(x, y, edges, share, name) for share, name in zip(shares, ("others", "positives"), strict=True)]
    return _svg(THIRD, title, _axes(THIRD, x, y, "raw score", "share", percent=True) + shapes)


def curve(
    points: Sequence[tuple[float, float]], title: str, label: str, *, smoothed: bool, kept: int | None = None
) -> str:
    """(step, value) pairs: a light line under a smoothed one from zero, or a line with its points marked, one as kept."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    x = HALF.x(0, max(1, *steps))
    low, high = (0.0, _ceiling(max(values))) if smoothed else _around(values)
    y = HALF.y(low, high)
    if smoothed:
        shapes = [_line(x, y, steps, values, "raw"), _line(x, y, steps, moving_average(values), "smooth")]
    else:
        dots = [
            f'<circle class="{"kept" if step == kept else "point"}" cx="{x(step):.1f}" cy="{y(value):.1f}" r="4"/>'
            for step, value in zip(steps, values, strict=True)
        ]
        shapes = [_line(x, y, steps, values, "smooth"), *dots]
    return _svg(HALF, title, _axes(HALF, x, y, "optimiser step", label) + shapes)


def moving_average(values: Sequence[float]) -> list[float]:
    """Centred mean over a tenth of the points, over fewer at the ends."""
    window = np.ones(max(1, len(values) // 10))
    sums = np.convolve(values, window, "same")
    smooth: list[float] = (sums / np.convolve(np.ones(len(values)), window, "same")).tolist()
    return smooth


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers in [low, high], about so many."""
    step = _round_step((high - low) / about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _round_step(rough: float) -> float:
    size: float = 10.0 ** math.floor(math.log10(rough))
    return size * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough * 0.999)


def _ceiling(value: float) -> float:
    """The end of an axis from zero: the next round number above, so that its last tick is labelled."""
    if value <= 0:
        return 1.0
    step = _round_step(value / 4)
    return math.ceil(value / step - 1e-9) * step


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Both ends of an axis that does not start at zero, on round numbers."""
    room = max(max(values) - min(values), 0.01) * 0.1
    low, high = min(values) - room, max(values) + room
    step = _round_step((high - low) / 4)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _steps(x: Axis, y: Axis, edges: np.ndarray, heights: np.ndarray, name: str) -> str:
    """A filled outline of bars that touch each other: one path, however many bars."""
    path, level = [f"M{x(edges[0]):.1f} {y(0):.1f}"], 0.0
    for edge, height in zip(edges, heights, strict=False):
        if height != level:
            path.append(f"H{x(edge):.1f}V{y(height):.1f}")
            level = height
    path.append(f"H{x(edges[-1]):.1f}V{y(0):.1f}Z")
    return f'<path class="{name}" d="{"".join(path)}"/>'


def _line(x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float], name: str) -> str:
    places = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, ys, strict=True))
    return f'<polyline class="{name}" points="{places}"/>'


def _axes(
    canvas: Canvas,
    x: Axis,
    y: Axis,
    x_label: str,
    y_label: str,
    *,
    percent: bool = False,
    x_ticks: Sequence[float] | None = None,
) -> list[str]:
    """Faint horizontal lines, labelled ticks, and what each axis counts."""
    parts = []
    y_ticks = ticks(y.low, y.high)
    for value, text in zip(y_ticks, _labels(y_ticks, percent=percent), strict=True):
        place = y(value)
        parts.append(f'<line class="grid" x1="{x.start:g}" x2="{x.end:g}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(f'<text x="{x.start - 8:g}" y="{place + 4:.1f}" text-anchor="end">{text}</text>')
    across = ticks(x.low, x.high) if x_ticks is None else x_ticks
    for value, text in zip(across, _labels(across), strict=True):
        parts.append(f'<text x="{x(value):.1f}" y="{y.start + 20:g}" text-anchor="middle">{text}</text>')
    middle = (x.start + x.end) / 2
    parts.append(f'<text x="{middle:g}" y="{canvas.height - 8}" text-anchor="middle">{escape(x_label)}</text>')
    middle = (y.start + y.end) / 2
    turned = f'transform="rotate(-90 14 {middle:g})"'
    parts.append(f'<text x="14" y="{middle:g}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
    return parts


def _labels(values: Sequence[float], *, percent: bool = False) -> list[str]:
    """Tick labels of an axis, all with as many decimals as the finest needs."""
    scaled = [value * 100 if percent else value for value in values]
    digits = next((n for n in range(6) if all(abs(value - round(value, n)) < 1e-9 for value in scaled)), 6)
    return [f"{value + 0.0:,.{digits}f}{'%' * percent}".replace("-", "−") for value in scaled]


def _svg(canvas: Canvas, title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    head = f'<svg class="{canvas.name}" viewBox="0 0 {canvas.width} {canvas.height}" role="img">'
    return f"{head}\n<title>{escape(title)}</title>\n{body}\n</svg>"
