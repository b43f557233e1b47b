"""Driving a teacher over the pairs that the store lacks, a part at a time, so that a killed run loses one part."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from distilrank.errors import UserError
from distilrank.progress import Advance, bar
from distilrank.records import Group, ScoredPair, read_scored
from distilrank.scoring.ahead import ahead
from distilrank.scoring.aside import Aside, Refused
from distilrank.scoring.store import Missing, ScoreStore
from distilrank.shards import refuse_unwritable
from distilrank.teachers import Teacher
from distilrank.versions import versions

PART_PAIRS = 16_384
PART_SECONDS = 30.0
PAIRS_A_WINDOW = 50_000
"""Among so many missing pairs, those of one passage are brought together for a teacher that shares it."""


@dataclass(frozen=True)
class Job:
    """The pairs that a store lacks, and whom to ask for them: what a `Drive` is given to do."""

    missing: Missing
    teacher: Teacher
    store: ScoreStore
    part_pairs: int
    """The most pairs of a part."""
    aside: Aside
    advance: Advance
    """Told how many pairs are done."""


Drive = Callable[[Job], None]
"""Where a job is done: `here`, in several processes (`processes.Crew.drive`), or on a cluster (`ray.RayCluster.drive`)."""


def score(
    groups: Iterable[Group],
    teacher: Teacher,
    store: ScoreStore,
    *,
    part_pairs: int = PART_PAIRS,
    title: str = "score",
    check: Callable[[], None] = lambda: None,
    aside: Aside | None = None,
    drive: Drive | None = None,
) -> int:
    """Score what the store lacks of the groups; returns how many pairs got a score.

    `groups` is iterated more than once; `check` is called before the first pair is paid for. Groups that cannot be scored
    are set `aside`, as many as it allows (none: the first error ends the scoring). `drive` says where it is done.

    Raises `UserError` when the teacher returns a number that is not finite, and what a drive raises.
    """
    aside = aside or Aside()
    before = aside.pairs
    with store.missing(groups) as missing:
        if missing.pairs:
            check()
            with bar(title, missing.pairs, "pairs") as advance:
                (drive or here)(Job(missing, teacher, store, part_pairs, aside, advance))
        return missing.pairs - (aside.pairs - before)


def here(job: Job) -> None:
    """Score in this process, the next part prepared while one is computed."""
    size = Size(min(job.part_pairs, job.teacher.portion), job.part_pairs)
    parts = parts_of(job.missing.groups, job.teacher, size)
    for answer in ahead(scoring_of(part, job.teacher, job.store, bool(job.aside.most)) for part in parts):
        start = time.monotonic()
        pairs, refused = answer(job.advance)
        job.aside.add(refused)
        size.learn(pairs, time.monotonic() - start)


def parts_of(groups: Iterator[Group], teacher: Teacher, size: Size) -> Iterator[list[Group]]:
    """The pieces of work of a teacher: pairs that it is best asked for together, side by side."""
    return _parts(_by_passage(groups) if teacher.shares == "passage" else groups, size)


Scoring = Callable[[Advance], tuple[int, list[Refused]]]


def scoring_of(part: list[Group], teacher: Teacher, store: ScoreStore, apart: bool) -> Scoring:
    """The host's part of scoring a piece of work; what is returned does the rest, and keeps the scores as one part.

    It returns how many pairs were scored and what was refused. When a piece fails and `apart` is set, its groups are asked
    for one by one, and those that fail again are refused; else the error is raised.
    """
    try:
        answer = teacher.prepare(part)
    except Exception as error:
        if not apart:
            raise
        failed = error
        answer = None

    def score_part(advance: Advance) -> tuple[int, list[Refused]]:
        asked, refused = part, list[Refused]()
        try:
            if answer is None:
                raise failed
            scores = answer(advance)
            _refuse_odd(part, scores)
        except Exception as error:
            if not apart or is_broken(error):
                raise
            asked, scores, refused = _one_by_one(part, teacher)
        if asked:
            store.append(asked, scores, _provenance(teacher))
        return sum(map(len, scores)), refused

    return score_part


def _one_by_one(part: list[Group], teacher: Teacher) -> tuple[list[Group], list[np.ndarray], list[Refused]]:
    asked, scores, refused = list[Group](), list[np.ndarray](), list[Refused]()
    for group in part:
        try:
            of_group = teacher.score([group])
            _refuse_odd([group], of_group)
        except Exception as error:
            if is_broken(error):
                raise
            refused.append(Refused.of(group, error))
        else:
            asked.append(group)
            scores += of_group
    return asked, scores, refused


def is_broken(error: Exception) -> bool:
    """Whether a device gave up: no fault of the groups, and nothing more can be computed there in this process."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.AcceleratorError)


def _refuse_odd(groups: list[Group], scores: list[np.ndarray]) -> None:
    for group, values in zip(groups, scores, strict=True):
        if not np.isfinite(values).all():
            raise UserError(f"the teacher gave a score that is not finite for the query {group.query[:60]!r}")


def refuse_output(path: Path, store: str | Path) -> None:
    """Raise `UserError` before anything is paid for where scored pairs cannot be written to a file, where it holds
    something else than scored pairs of an earlier time, or where the store is a file.
    """
    if "://" not in str(store):
        if path.absolute() == Path(store).absolute():
            raise UserError(f"{path}: is the folder of the score store: choose another name, or another --store")
        if Path(store).is_file():
            raise UserError(f"{store}: a score store is a folder, this is a file: choose another --store")
    refuse_unwritable(path)
    try:
        next(read_scored(path) if path.exists() and path.stat().st_size else iter(()), None)
    except UserError:
        raise UserError(f"{path}: exists already and holds no scored pairs: choose another name or delete it") from None


def pairs_of(scored: Iterable[tuple[Group, np.ndarray]]) -> Iterator[ScoredPair]:
    """Groups with their scores as scored pairs, in order."""
    for group, values in scored:
        for passage, value in zip(group.passages, values.tolist(), strict=True):
            yield ScoredPair(group.query, passage.text, value)


def scored_pairs(groups: Iterable[Group], scores: Iterable[np.ndarray]) -> Iterator[ScoredPair]:
    """Groups and their scores as scored pairs, in order."""
    return pairs_of(zip(groups, scores, strict=True))


class Size:
    """How many pairs a part has: doubled while parts take little time, halved where one takes too long.

    In steps of two, so that a run that goes on after a kill forms the same parts, and so the same batches, as a rule.
    """

    def __init__(self, pairs: int, most: int) -> None:
        self.pairs, self.most = pairs, most

    def learn(self, pairs: int, seconds: float) -> None:
        if seconds > PART_SECONDS:
            self.pairs = max(1, self.pairs // 2)
        elif seconds < PART_SECONDS / 6 and pairs > self.pairs // 2:
            self.pairs = min(self.most, self.pairs * 2)


def _parts(groups: Iterable[Group], size: Size) -> Iterator[list[Group]]:
    """Groups in parts of at most so many pairs; a larger group is split."""
    part: list[Group] = []
    waiting, most = 0, size.pairs
    for group in groups:
        for piece in _pieces(group, size.most):
            if part and waiting + len(piece.passages) > most:
                yield part
                part, waiting, most = [], 0, size.pairs
            part.append(piece)
            waiting += len(piece.passages)
    if part:
        yield part


def _by_passage(groups: Iterator[Group]) -> Iterator[Group]:
    """The same pairs, one a group, with the pairs of a passage side by side; a window at a time, to bound memory.

    Passages come in the order of their texts, whatever is missing: a run that goes on after a kill forms the same batches.
    """
    window: dict[str, list[Group]] = {}
    waiting = 0
    for group in groups:
        for passage in group.passages:
            window.setdefault(passage.text, []).append(Group(group.query_id, group.query, (passage,)))
            waiting += 1
        if waiting >= PAIRS_A_WINDOW:
            yield from _in_order(window)
            window, waiting = {}, 0
    yield from _in_order(window)


def _in_order(window: dict[str, list[Group]]) -> Iterator[Group]:
    return chain.from_iterable(window[text] for text in sorted(window))


def _pieces(group: Group, most: int) -> Iterator[Group]:
    for start in range(0, len(group.passages), most):
        yield Group(group.query_id, group.query, group.passages[start : start + most])


def _provenance(teacher: Teacher) -> dict[str, str]:
    libraries = versions("distilrank", "torch", "transformers", "sentence-transformers")
    return libraries | {"machine": platform.machine(), "engine": teacher.engine}
