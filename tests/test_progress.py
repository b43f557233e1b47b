"""Progress tells how fast this process is, wherever an earlier one stopped."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from distilrank import progress
from distilrank.progress import bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until it is moved."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.mark.parametrize(
    ("before", "told"),
    [(0, "20 of 1,000 steps, 0.5 a second, 1960 s left"), (900, "920 of 1,000 steps, 0.5 a second, 160 s left")],
)
def test_a_line_counts_what_was_done_before_and_rates_what_was_done_since(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str], before: int, told: str
) -> None:
    with bar("train", 1_000, "steps", before=before) as advance:
        advance(1)  # too soon for a line
        clock.now += 40
        advance(19)
    assert capsys.readouterr().err == f"  train: {told}\n"


@pytest.mark.parametrize("before", [0, 900])
def test_so_does_a_bar_on_a_terminal(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], before: int
) -> None:
    from rich.progress import Progress

    shown: list[tuple[float, str, str]] = []
    real = Progress.update

    def update(self: Any, task: Any, **fields: Any) -> None:
        real(self, task, **fields)
        shown.append((self.tasks[0].completed, fields["rate"], fields["note"]))

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(Progress, "update", update)
    with bar("train", 1_000, "steps", before=before) as advance:
        for steps, note in ((10, ""), (70, "loss 1.203"), (80, "")):
            clock.now += 4
            advance(steps, note)
    assert shown == [
        (before + 10, "2.5 steps/s", ""),
        (before + 80, "10 steps/s", "loss 1.203"),
        (before + 160, "13 steps/s", "loss 1.203"),
    ]


def test_a_note_stands_in_the_line_until_the_next_one(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with bar("train", 100, "steps") as advance:
        for note in ("loss 2.000", ""):
            clock.now += 20
            advance(10, note)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "  train: 10 of 100 steps, 0.5 a second, 180 s left, loss 2.000"
    assert second.endswith("loss 2.000")


def test_nothing_to_do_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("train", 0, "steps") as advance:
        advance(1)
    assert capsys.readouterr().err == ""
