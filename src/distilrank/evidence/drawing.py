"""The parts that figures are drawn from: axes, lines and steps as inline SVG, without a plotting library.

Colours and type sizes are classes that the report's style sheet defines, so that a figure follows light and dark mode,
paper, and the width of a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Axis:
    """A map from values to places in the drawing, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        return self.start + ((math.log(value) if self.log else value) - low) / (high - low) * (self.end - self.start)


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

    def x(self, low: float, high: float, *, log: bool = False) -> Axis:
        """The horizontal axis from `low` to `high`."""
        return Axis(low, high, self.left, self.width - self.right, log)

    def y(self, low: float, high: float) -> Axis:
        """The vertical axis from `low` to `high`, upwards."""
        return Axis(low, high, self.height - self.bottom, self.top)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers in [low, high], about so many."""
    step = _round_step((high - low) / about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """1, 2 and 5 times the powers of ten in [low, high]; the powers alone where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    inside = [place for place in places if low * 0.999 <= place <= high * 1.001]
    return inside if len(inside) <= most else [place for place in inside if math.log10(place) == round(math.log10(place))]


def ceiling(value: float) -> float:
    """The end of an axis from zero: the next round number above, so that its last tick is labelled."""
    if value <= 0:
        return 1.0
    step = _round_step(value / 4)
    return math.ceil(value / step - 1e-9) * step


def around(values: Sequence[float], *, share: bool = False) -> tuple[float, float]:
    """Both ends of an axis that does not start at zero, on round numbers; those of a share stay in [0, 1]."""
    room = max(max(values) - min(values), 0.01) * 0.1
    low, high = min(values) - room, max(values) + room
    step = _round_step((high - low) / 4)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return (max(0.0, low), min(1.0, high)) if share else (low, high)


def mirrored(value: float) -> float:
    """The end of an axis that reaches as far below zero as above, so that both ends are labelled."""
    step = _round_step(max(value, 1e-9) / 2)
    return math.ceil(value / step - 1e-9) * step or 1.0


def steps(x: Axis, y: Axis, edges: np.ndarray, heights: np.ndarray, name: str) -> str:
    """A filled outline of bars that touch each other: one path, however many bars."""
    path, level = [f"M{x(edges[0]):.1f} {y(0):.1f}"], 0.0
    for edge, height in zip(edges, heights, strict=False):
        if height != level:
            path.append(f"H{x(edge):.1f}V{y(height):.1f}")
            level = height
    path.append(f"H{x(edges[-1]):.1f}V{y(0):.1f}Z")
    return f'<path class="{name}" d="{"".join(path)}"/>'


def line(x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float], name: str) -> str:
    """A line through points."""
    places = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, ys, strict=True))
    return f'<polyline class="{name}" points="{places}"/>'


def dot(left: float, top: float, name: str, radius: int = 4) -> str:
    """A point at a place of the drawing."""
    return f'<circle class="{name}" cx="{left:.1f}" cy="{top:.1f}" r="{radius}"/>'


def rule(x1: float, y1: float, x2: float, y2: float, name: str) -> str:
    """A straight line between two places of the drawing."""
    return f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def words(left: float, top: float, text: str, anchor: str = "start", more: str = "") -> str:
    """A text at a place of the drawing."""
    return f'<text x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def apart(places: Sequence[float], gap: float) -> list[float]:
    """The places, moved as little as a greedy pass can so that labels at them are `gap` apart."""
    moved = list(places)
    order = sorted(range(len(places)), key=lambda number: places[number])
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + gap)
    drift = sum(moved[number] - places[number] for number in order) / max(1, len(order))
    return [place - drift for place in moved]


def axes(
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
        parts.append(rule(x.start, y(value), x.end, y(value), "grid"))
        parts.append(words(x.start - 8, y(value) + 4, text, "end"))
    parts += across(canvas, x, x_label, x_ticks)
    middle = (y.start + y.end) / 2
    return [*parts, words(14, middle, y_label, "middle", f' transform="rotate(-90 14 {middle:g})"')]


def across(canvas: Canvas, x: Axis, label: str, places: Sequence[float] | None = None) -> list[str]:
    """The ticks and the label below a drawing."""
    chosen = (log_ticks(x.low, x.high) if x.log else ticks(x.low, x.high)) if places is None else places
    texts = [f"{value:,g}" for value in chosen] if x.log else _labels(chosen)
    bottom = canvas.height - canvas.bottom
    parts = [words(x(value), bottom + 20, text, "middle") for value, text in zip(chosen, texts, strict=True)]
    return [*parts, words((x.start + x.end) / 2, canvas.height - 8, label, "middle")]


def svg(canvas: Canvas, title: str, description: str, parts: Sequence[str]) -> str:
    """The drawing with its text alternative: what it is, and what is to be seen in it."""
    body = "\n".join(parts)
    head = f'<svg class="{canvas.name}" viewBox="0 0 {canvas.width} {canvas.height}" role="img">'
    return f"{head}\n<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>\n{body}\n</svg>"


def _round_step(rough: float) -> float:
    size: float = 10.0 ** math.floor(math.log10(rough))
    return size * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough * 0.999)


def _labels(values: Sequence[float], *, percent: bool = False) -> list[str]:
    """Tick labels of an axis, all with as many decimals as the finest needs."""
    scaled = [value * 100 if percent else value for value in values]
    digits = next((n for n in range(6) if all(abs(value - round(value, n)) < 1e-9 for value in scaled)), 6)
    return [f"{value + 0.0:,.{digits}f}{'%' * percent}".replace("-", "−") for value in scaled]
