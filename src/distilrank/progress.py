"""Progress on anything long: a rich bar with rate and time left on a terminal, a quiet line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

QUIET_SECONDS = 15.0
"""Seconds between two lines when standard error is not a terminal."""

Advance = Callable[[int], None]


class Noted(Protocol):
    """An `Advance` that may say a word of how it goes, like the loss; it stands there until the next one."""

    def __call__(self, done: int, note: str = "") -> None: ...


def process_number() -> int:
    """Which of the processes that torchrun started this one is; 0 for the first, and for one alone."""
    return int(os.environ.get("RANK", 0)) if "LOCAL_RANK" in os.environ else 0


def say(text: str = "") -> None:
    """One line for a person, on standard error, so that standard output stays for results; the first process speaks."""
    if process_number() == 0:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def bar(title: str, total: int | None, unit: str, *, before: int = 0) -> Iterator[Noted]:
    """Show the progress of `total` units (none: nobody knows how many); yields a function that takes the number of units
    just done.

    `before` were done by a process before this one: they count as done, and not in the rate.
    """
    if (total is not None and total <= 0) or process_number():
        yield lambda done, note="": None
    elif sys.stderr.isatty():
        yield from _rich_bar(title, total, unit, before)
    else:
        yield from _lines(title, total, unit, before)


@contextmanager
def transfer(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show the progress of a download; yields a function that takes the bytes that are here so far, and of how many (none:
    nobody knows). What is not called, since nothing had to come, shows nothing.
    """
    if sys.stderr.isatty():
        yield from _rich_transfer(title)
    else:
        yield from _transfer_lines(title)


def _rich_transfer(title: str) -> Iterator[Callable[[int, int | None], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:

        def told(done: int, total: int | None) -> None:
            if not progress.tasks:
                progress.add_task(title, total=total)
            progress.update(progress.tasks[0].id, completed=done, total=total)

        yield told


def _transfer_lines(title: str) -> Iterator[Callable[[int, int | None], None]]:
    start = last = time.monotonic()

    def told(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= QUIET_SECONDS:
            last = now
            of = f" of {total / 1e6:,.0f}" if total else ""
            say(f"  {title}: {done / 1e6:,.0f}{of} MB, {done / 1e6 / (now - start):,.1f} MB a second")

    yield told


def _rich_bar(title: str, total: int | None, unit: str, before: int) -> Iterator[Noted]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),  # so that all of it fits into 80 columns
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total, completed=before, rate="", note="")

        def advance(done: int, note: str = "") -> None:
            progress.advance(task, done)
            rate = (progress.tasks[0].completed - before) / max(time.monotonic() - start, 1e-9)
            shown = f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s"
            progress.update(task, rate=shown, note=note or progress.tasks[0].fields["note"])

        yield advance


def _lines(title: str, total: int | None, unit: str, before: int) -> Iterator[Noted]:
    start = last = time.monotonic()
    completed, latest = before, ""

    def advance(done: int, note: str = "") -> None:
        nonlocal last, completed, latest
        completed, latest = completed + done, note or latest
        now = time.monotonic()
        if now - last >= QUIET_SECONDS:
            last = now
            rate = (completed - before) / (now - start)
            of, left = "", ""
            if total is not None:
                of, left = f" of {total:,}", f", {(total - completed) / rate if rate else 0.0:.0f} s left"
            say(f"  {title}: {completed:,}{of} {unit}, {rate:,.1f} a second{left}{', ' * bool(latest)}{latest}")

    yield advance
