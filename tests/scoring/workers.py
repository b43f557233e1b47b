"""Teachers for other processes, importable there: scores are hashes, and some groups are poison."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from test_score import Fake, value

from distilrank.errors import UserError
from distilrank.progress import Advance
from distilrank.records import Group, Passage

WEIGHTS = "of a test"
TOO_LONG = "far too long"


class Poisoned(Fake):
    """`far too long` in a query is refused, `not a number` has no finite score, `deadly` ends the process.

    `once` is a file: where it is not there yet it is made, and the process ends with the third piece.
    """

    def __init__(self, once: Path | None = None) -> None:
        super().__init__(WEIGHTS)
        self.once = once

    def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
        if any(TOO_LONG in group.query for group in groups):
            raise UserError("the query has 9,999 tokens, more than there is room for")
        if any("deadly" in group.query for group in groups):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.once and len(self.parts) == 2 and not self.once.exists():
            self.once.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02)
        scores = super().score(groups, advance)
        odd = ["not a number" in group.query for group in groups]
        return [np.full_like(of_group, np.nan) if bad else of_group for of_group, bad in zip(scores, odd, strict=True)]


def poisoned(once: Path | None = None) -> Poisoned:
    return Poisoned(once)


def no_teacher() -> Poisoned:
    raise UserError("/nowhere: no model there")


def broken_on_7() -> Poisoned:
    if os.environ["CUDA_VISIBLE_DEVICES"] == "7":
        raise OSError("no such device")
    return Poisoned()


def slow_on_7(enough: int, parts: Path) -> Poisoned:
    """Its teacher on device 7 is built once the others have written so many parts, or never."""
    deadline = time.monotonic() + 60
    while os.environ["CUDA_VISIBLE_DEVICES"] == "7" and len(list(parts.glob("*/part-*"))) < enough:
        assert time.monotonic() < deadline, "the others wait for this one"
        time.sleep(0.05)
    return Poisoned()


class GivesUp(Poisoned):
    """Its device gives up once, as CUDA does after an illegal access: nothing works in that process any more."""

    def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
        import torch

        assert self.once
        if not self.once.exists() or self.once.read_text() == str(os.getpid()):
            self.once.write_text(str(os.getpid()))
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return Fake.score(self, groups, advance)


class Telling(Poisoned):
    """It leaves the number of its process in a folder, for whoever wants to end it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
        (self.folder / str(os.getpid())).touch()
        return super().score(groups, advance)


def telling(folder: Path) -> Telling:
    return Telling(folder)


def gives_up(once: Path) -> GivesUp:
    return GivesUp(once)


def with_poison(groups: list[Group], *queries: str) -> list[Group]:
    """The groups, and some with these queries among them."""
    bad = [Group(f"bad {n}", query, (Passage("one"), Passage("two"))) for n, query in enumerate(queries)]
    middle = len(groups) // 2
    return groups[:middle] + bad + groups[middle:]


__all__ = [
    "TOO_LONG",
    "Poisoned",
    "broken_on_7",
    "gives_up",
    "no_teacher",
    "poisoned",
    "slow_on_7",
    "telling",
    "value",
    "with_poison",
]
