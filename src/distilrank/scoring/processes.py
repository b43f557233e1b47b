"""Several GPUs of one host: an engine process each, over one list of work whose pieces are taken as they are finished.

Every process builds its own teacher and writes its own parts to the store. When one dies its pieces are given back and
another takes its place; what it was is told in one line.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any

from distilrank.errors import UserError
from distilrank.progress import say
from distilrank.records import Group
from distilrank.scoring.ahead import ahead
from distilrank.scoring.aside import Refused
from distilrank.scoring.score import Job, Size, parts_of, scoring_of
from distilrank.teachers import Teacher

Build = Callable[[], Teacher]
"""Makes the teacher in another process; it is pickled, so it is a function of a module or a partial of one."""
WAITING = 2
"""Pieces that a process has: one is scored, one is prepared."""
DEATHS = 2
"""A piece that was in the hands of so many processes when they died is not given to another."""
RESTARTS = 2
"""So often in a row, without a finished piece in between, a GPU is given a new process after one that ended."""
SHARES = 3
"""A piece is at most one in so many of what is left for each process, so that all of them end at about the same time."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpus(asked: str, each: int = 1) -> list[str]:
    """What each process sees (a value of CUDA_VISIBLE_DEVICES): `asked` GPUs (a number or `all`), `each` to a process.

    Raises `UserError` when this machine has fewer.
    """
    import torch

    visible, found = os.environ.get(VISIBLE), torch.cuda.device_count()
    here = visible.split(",") if visible and found else [str(number) for number in range(found)]
    wanted = len(here) if asked == "all" else int(asked) if asked.isdecimal() else 0
    if not wanted or wanted > len(here) or wanted % each:
        if not here:
            raise UserError(f"--gpus {asked}: this machine has no GPU that PyTorch finds: leave --gpus out")
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
    deaths: int = 0
    """Processes on this device that ended before it, since one of them finished a piece."""
    ready: bool = False
    """Its teacher is built: before, its end is no fault of a piece."""


@dataclass
class Crew:
    """A process for each of `devices`, with a teacher of its own. They start with the first job, and stay for the next."""

    build: Build
    devices: Sequence[str]
    workers: list[_Worker] = field(default_factory=list)

    def drive(self, job: Job) -> None:
        """Score in these processes (`scoring.score`); the job's own teacher only says what is best asked for together.

        Raises `UserError` when no process is left, or when a piece of work ends two of them and nothing may be set aside.
        """
        job.teacher.release()  # it has been checked, on the device that one of the processes needs now
        todo = _Todo(job)
        self.workers = self.workers or [_started(self.build, device) for device in self.devices]
        try:
            while True:
                for _ in range(WAITING):  # one to each before anyone has two
                    for worker in self.workers:
                        _give(worker, todo, job, len(self.workers))
                busy = {worker.pipe: worker for worker in self.workers if worker.has}
                if not busy:
                    return
                for pipe in wait(list(busy)):
                    self._listen(busy[pipe], todo, job)  # type: ignore[index]
        except BaseException:
            for worker in self.workers:
                worker.process.kill()
            raise

    def _listen(self, worker: _Worker, todo: _Todo, job: Job) -> None:
        try:
            said = worker.pipe.recv()
        except (EOFError, OSError):
            _end(worker)
            self._replace(worker, todo, job, f"its process ended ({_ended(worker.process.exitcode)})")
            return
        if isinstance(said, Exception | str):
            _end(worker)
            if isinstance(said, UserError):
                raise said  # the data's fault or the settings': it is the same in every process
            self._replace(worker, todo, job, said if isinstance(said, str) else str(said))
            return
        if said is None:
            worker.ready = True
            return
        seconds, pairs, refused = said
        worker.deaths = 0
        job.advance(worker.has.popleft().pairs)
        job.aside.add(refused)
        todo.size.learn(pairs, seconds)

    def _replace(self, worker: _Worker, todo: _Todo, job: Job, why: str) -> None:
        """Give back the work of a process that ended, and start another in its place."""
        self.workers.remove(worker)
        worker.pipe.close()
        convicted = False
        for place, piece in enumerate(worker.has):
            piece.deaths += worker.ready and place == 0  # the others were not begun
            if piece.deaths < DEATHS:
                todo.back.append(piece)
                continue
            said = f"a process ended while it was scored, {DEATHS} times: {why}"
            if not job.aside.most:
                raise UserError(f"the groups from {piece.groups[0].query[:60]!r} on: {said}")
            if len(piece.groups) > 1:  # which of them it was is found out one by one
                todo.back.extend(_Piece([group], DEATHS - 1) for group in piece.groups)
            else:
                job.aside.add([Refused.of(piece.groups[0], UserError(said))])
                job.advance(piece.pairs)
                convicted = True
        named = f"  GPU {worker.device}" if worker.device else "  a process of the CPU"
        if worker.deaths < RESTARTS or (convicted and not self.workers):  # the last goes on while groups may be set aside
            self.workers.append(_started(self.build, worker.device, worker.deaths + 1))
            say(f"{named}: {why}; another takes its place and its work")
        elif self.workers:
            say(f"{named}: {why}, {worker.deaths + 1} times in a row; the other {len(self.workers)} go on with its work")
        else:
            raise UserError(f"no process is left to score: {why}: what was scored is kept, the same command goes on")


class _Todo:
    """The pieces of a job that nobody has yet: those that were given back, then new ones, smaller towards the end."""

    def __init__(self, job: Job) -> None:
        portion = min(job.part_pairs, job.teacher.portion)
        self.size, self.back = Size(portion, job.part_pairs), deque[_Piece]()
        self._smallest, self._most = max(1, portion // 4), job.part_pairs
        self._left, self._fresh = job.missing.pairs, parts_of(job.missing.groups, job.teacher, self.size)

    def next(self, processes: int) -> _Piece | None:
        if self.back:
            return self.back.popleft()
        self.size.most = max(self._smallest, min(self._most, self._left // (SHARES * processes)))
        self.size.pairs = min(self.size.pairs, self.size.most)
        if (groups := next(self._fresh, None)) is None:
            return None
        piece = _Piece(groups)
        self._left -= piece.pairs
        return piece


@contextmanager
def crew(build: Build, devices: Sequence[str]) -> Iterator[Crew]:
    """A process for each of `devices` (see `gpus`; empty: the CPU); they end with the block."""
    made = Crew(build, devices)
    try:
        yield made
    finally:
        for worker in made.workers:
            worker.pipe.close()
        for worker in made.workers:
            _end(worker)


def _end(worker: _Worker) -> None:
    """Wait for a process that ends, but not for ever."""
    worker.process.join(30)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


def _started(build: Build, device: str, deaths: int = 0) -> _Worker:
    """A new process that sees one device; `deaths` of others came before it."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, build))
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
    return _Worker(device, process, ours, deaths=deaths)


def _give(worker: _Worker, todo: _Todo, job: Job, processes: int) -> None:
    """Another piece for a process, where it has room for one and there is one."""
    if len(worker.has) < WAITING and (piece := todo.next(processes)):
        worker.has.append(piece)
        with suppress(OSError):  # it is dead: its end is seen when it is listened to
            worker.pipe.send((piece.groups, job.store, bool(job.aside.most)))


def _work(pipe: Connection, build: Build) -> None:
    """A process: pieces of work in, what became of them out, until the pipe is closed."""
    pieces: SimpleQueue[Any] = SimpleQueue()
    Thread(target=_received, args=(pipe, pieces), daemon=True).start()
    with _told(pipe):
        teacher = build()
        pipe.send(None)
        prepared = (scoring_of(groups, teacher, store, apart) for groups, store, apart in iter(pieces.get, None))
        for scoring in ahead(prepared):
            with _told(pipe):  # within the loop, since leaving it waits for the thread, which may wait for work
                start = time.monotonic()
                pairs, refused = scoring(lambda done: None)
                pipe.send((time.monotonic() - start, pairs, refused))


def _received(pipe: Connection, pieces: SimpleQueue[Any]) -> None:
    """Take pieces in as they come, while the teacher is built, too: who sends one must not wait, and let others wait."""
    with suppress(EOFError, OSError):
        while True:
            pieces.put(pipe.recv())
    pieces.put(None)


@contextmanager
def _told(pipe: Connection) -> Iterator[None]:
    """An error ends the process, after it has been told to the other end, where there is one still."""
    try:
        yield
    except BaseException as error:
        line = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        with suppress(OSError):
            pipe.send(UserError(str(error)) if isinstance(error, UserError) else line)
        os._exit(1)


def _ended(code: int | None) -> str:
    return f"killed by signal {-code}" if code and code < 0 else f"exit code {code}"
