"""Several GPUs of one host: an engine process each, over one list of work whose pieces are taken as they are finished.

Every process builds its own teacher and writes its own parts to the store. A process that dies gives its pieces back; the
others go on, and what it was is told in one line.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from distilrank.errors import UserError
from distilrank.progress import Advance, bar, say
from distilrank.records import Group
from distilrank.scoring.ahead import ahead
from distilrank.scoring.aside import Aside, Refused
from distilrank.scoring.score import PART_PAIRS, Size, parts_of, scoring_of
from distilrank.scoring.store import Missing, ScoreStore
from distilrank.teachers import Teacher

Build = Callable[[], Teacher]
"""Makes the teacher in another process; it is pickled, so it is a function of a module or a partial of one."""
WAITING = 2
"""Pieces that a process has: one is scored, one is prepared."""
DEATHS = 2
"""A piece that was in the hands of so many processes when they died is not given to another."""
SHARES = 3
"""A piece is at most one in so many of what is left for each process, so that all of them end at about the same time."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpus(asked: str, each: int = 1) -> list[str]:
    """What each process sees (a value of CUDA_VISIBLE_DEVICES): `asked` GPUs (a number or `all`), `each` to a process.

    Raises `UserError` when this machine has fewer.
    """
    import torch

    visible = os.environ.get(VISIBLE)
    here = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    wanted = len(here) if asked == "all" else int(asked) if asked.isdecimal() else 0
    if not wanted or wanted > len(here) or wanted % each:
        groups = f", in groups of {each} (tensor_parallel_size)" if each > 1 else ""
        raise UserError(f"--gpus {asked}: this machine has {len(here)}: say all, or a number of them{groups}")
    return [",".join(here[start : start + each]) for start in range(0, wanted, each)]


@dataclass
class _Piece:
    groups: list[Group]
    deaths: int = 0

    @property
    def pairs(self) -> int:
        return sum(len(group.passages) for group in self.groups)


@dataclass
class _Worker:
    device: str
    process: Any
    pipe: Connection
    has: deque[_Piece] = field(default_factory=deque)
    since: float = 0.0


@dataclass
class Crew:
    """Processes that wait for work, each with a teacher of its own. They keep their weights from one call to the next."""

    workers: list[_Worker]

    def score(
        self,
        groups: Iterable[Group],
        teacher: Teacher,
        store: ScoreStore,
        *,
        part_pairs: int = PART_PAIRS,
        title: str = "score",
        check: Callable[[], None] = lambda: None,
        aside: Aside | None = None,
    ) -> int:
        """What `scoring.score` does, in these processes; `teacher` here only says what is best asked for together.

        Raises `UserError` when no process is left, or when a piece of work ends two of them and nothing may be set aside.
        """
        aside = aside or Aside()
        with store.missing(groups) as missing:
            if missing.pairs:
                check()
                teacher.release()
                with bar(title, missing.pairs, "pairs") as advance:
                    self._deal(missing, teacher, store, part_pairs, advance, aside)
            return missing.pairs

    def _deal(
        self, missing: Missing, teacher: Teacher, store: ScoreStore, part_pairs: int, advance: Advance, aside: Aside
    ) -> None:
        size = Size(min(part_pairs, teacher.portion), part_pairs)
        left, smallest = missing.pairs, max(1, min(part_pairs, teacher.portion) // 4)
        fresh = parts_of(missing.groups, teacher, size)
        back: deque[_Piece] = deque()

        def pieces() -> Iterator[_Piece]:
            nonlocal left
            while True:
                if back:
                    yield back.popleft()
                    continue
                size.most = max(smallest, min(part_pairs, left // (SHARES * len(self.workers))))
                size.pairs = min(size.pairs, size.most)
                groups = next(fresh, None)
                if groups is None:
                    return
                piece = _Piece(groups)
                left -= piece.pairs
                yield piece

        def give(worker: _Worker) -> None:
            while len(worker.has) < WAITING and (piece := next(pieces(), None)):
                worker.has.append(piece)
                with suppress(OSError):  # it is dead: its end is seen below
                    worker.pipe.send((piece.groups, store, bool(aside.most)))

        def lost(worker: _Worker, why: str) -> None:
            self.workers.remove(worker)
            for place, piece in enumerate(worker.has):
                piece.deaths += place == 0  # the others were not begun
                if piece.deaths >= DEATHS:
                    said = f"a process ended while it was scored, {DEATHS} times: {why}"
                    if not aside.most:
                        raise UserError(f"the groups from {piece.groups[0].query[:60]!r} on: {said}")
                    if len(piece.groups) > 1:  # which of them it was is found out one by one
                        back.extend(_Piece([group], DEATHS - 1) for group in piece.groups)
                    else:
                        aside.add([Refused.of(piece.groups[0], UserError(said))])
                        advance(piece.pairs)
                else:
                    back.append(piece)
            worker.pipe.close()
            if not self.workers:
                raise UserError(f"no process is left to score: {why}: what was scored is kept, the same command goes on")
            say(f"  GPU {worker.device or '(none)'}: {why}; the other {len(self.workers)} go on with its work")

        try:
            while True:
                for worker in self.workers:
                    give(worker)
                busy = {worker.pipe: worker for worker in self.workers if worker.has}
                if not busy:
                    return
                for pipe in wait(list(busy)):
                    worker = busy[pipe]  # type: ignore[index]
                    try:
                        said = worker.pipe.recv()
                    except (EOFError, OSError):
                        worker.process.join()
                        lost(worker, f"its process ended ({_ended(worker.process.exitcode)})")
                        continue
                    if isinstance(said, Exception | str):
                        worker.process.join()
                        if isinstance(said, UserError) and not aside.most:
                            raise said  # the data's fault or the settings': it is the same in every process
                        lost(worker, str(said))
                        continue
                    seconds, pairs, refused = said
                    advance(worker.has.popleft().pairs)
                    aside.add(refused)
                    size.learn(pairs, seconds)
        except BaseException:
            for worker in self.workers:
                worker.process.kill()
            raise


@contextmanager
def crew(build: Build, devices: Sequence[str]) -> Iterator[Crew]:
    """Start a process for each of `devices` (see `gpus`; empty: the CPU); they end with the block."""
    context = get_context("spawn")
    workers = []
    for device in devices:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, build, device), daemon=False)
        before = os.environ.get(VISIBLE)
        os.environ[VISIBLE] = device  # in the environment from the start: CUDA reads it once
        try:
            process.start()
        finally:
            if before is None:
                del os.environ[VISIBLE]
            else:
                os.environ[VISIBLE] = before
        theirs.close()
        workers.append(_Worker(device, process, ours))
    made = Crew(list(workers))
    try:
        yield made
    finally:
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            worker.process.join(30)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _work(pipe: Connection, build: Build, device: str) -> None:
    """A process: pieces of work in, what became of them out, until the pipe is closed."""
    try:
        teacher = build()

        def prepared() -> Iterator[Any]:
            while True:
                try:
                    groups, store, apart = pipe.recv()
                except EOFError:
                    return
                yield scoring_of(groups, teacher, store, apart)

        for scoring in ahead(prepared()):
            start = time.monotonic()
            pairs, refused = scoring(lambda done: None)
            pipe.send((time.monotonic() - start, pairs, refused))
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)  # the other end is gone: nobody is told
    except UserError as error:
        _tell(pipe, UserError(str(error)))
    except Exception as error:
        _tell(pipe, (f"{type(error).__name__}: {error}".strip().splitlines() or [""])[0])


def _tell(pipe: Connection, what: Any) -> None:
    with suppress(OSError):
        pipe.send(what)
    os._exit(1)  # a thread may still wait for work


def _ended(code: int | None) -> str:
    return f"killed by signal {-code}" if code and code < 0 else f"exit code {code}"
