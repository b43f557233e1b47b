"""Progress on anything long: a rich bar with rate and time left on a terminal, a quiet line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUIET_SECONDS = 15.0
"""Seconds between two lines when standard error is not a terminal."""

Advance = Callable[[int], None]


def say(text: str = "") -> None:
    """One line for a person, on standard error, so that standard output stays for results."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def bar(title: str, total: int, unit: str) -> Iterator[Advance]:
    """Show the progress of `total` units; yields a function that takes the number of units just done."""
    if total <= 0:
        yield lambda done: None
    elif sys.stderr.isatty():
        yield from _rich_bar(title, total, unit)
    else:
        yield from _lines(title, total, unit)


def _rich_bar(title: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total, rate="")

        def advance(done: int) -> None:
            progress.advance(task, done)
            rate = progress.tasks[0].completed / max(time.monotonic() - start, 1e-9)
            progress.update(task, rate=f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s")

        yield advance


def _lines(title: str, total: int, unit: str) -> Iterator[Advance]:
    start = last = time.monotonic()
    completed = 0

    def advance(done: int) -> None:
        nonlocal last, completed
        completed += done
        now = time.monotonic()
        if now - last >= QUIET_SECONDS:
            last = now
            rate = completed / (now - start)
            left = (total - completed) / rate if rate else 0.0
            say(f"  {title}: {completed:,} of {total:,} {unit}, {rate:,.1f} a second, {left:.0f} s left")

    yield advance
