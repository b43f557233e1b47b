"""Batches across requests: one thread owns the model, and every request gets its share of each batch."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, Thread

import numpy as np

from distilrank.engines.batches import Encoded

Scorer = Callable[[Encoded], np.ndarray]
"""Raw logits, float32 [rows], of tokenised rows in any order."""
LATELY = 5.0
"""Seconds of computing."""


class Job:
    """The rows of one request on their way through the batches; `future` gets float32 [rows]."""

    def __init__(self, encoded: Encoded, loop: asyncio.AbstractEventLoop) -> None:
        self.encoded, self.loop = encoded, loop
        self.lengths = np.array([len(row) for row in encoded["input_ids"]])
        # The longest first: what shares a batch is of like length, and little of it is padding.
        self.waiting: deque[int] = deque(np.argsort(-self.lengths, kind="stable").tolist())
        self.scores = np.empty(len(self.lengths), dtype=np.float32)
        self.unscored, self.tokens = len(self.lengths), int(self.lengths.sum())
        """Rows and tokens that are not computed yet."""
        self.came = time.monotonic()
        self.future: asyncio.Future[np.ndarray] = loop.create_future()

    def take(self, tokens: int) -> list[int]:
        """The next rows that fit into so many tokens."""
        taken: list[int] = []
        while self.waiting and (tokens := tokens - int(self.lengths[self.waiting[0]])) >= 0:
            taken.append(self.waiting.popleft())
        return taken

    def scored(self, rows: list[int], values: np.ndarray) -> None:
        """Called by the worker, as is `failed`."""
        self.scores[rows] = values
        self.unscored -= len(rows)
        self.tokens -= int(self.lengths[rows].sum())
        if not self.unscored:
            self._tell(None)

    def failed(self, error: Exception) -> None:
        self._tell(error)

    def _tell(self, error: Exception | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server was ended while this was computed
            self.loop.call_soon_threadsafe(self._finish, error)

    def _finish(self, error: Exception | None) -> None:
        if self.future.done():
            return  # nobody waits any more
        if error is None:
            self.future.set_result(self.scores)
        else:
            self.future.set_exception(error)


@dataclass
class Pace:
    """How fast the model has been of late: its tokens and its seconds, those of `LATELY` ago with a weight of 1/e."""

    tokens: float = 0.0
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        kept = math.exp(-seconds / LATELY)
        self.tokens, self.seconds = kept * self.tokens + tokens, kept * self.seconds + seconds

    def needs(self, tokens: int) -> float:
        """Seconds for so many tokens; 0 before anything has been computed."""
        return tokens * self.seconds / self.tokens if self.tokens else 0.0


@dataclass
class Batcher:
    """A queue of jobs and the thread that works it off, at most `budget` tokens a batch (a longer row goes alone).

    In each batch every waiting job has an equal share of the budget, and what a small job leaves goes to the others in
    order of arrival: a large request does not hold up a small one. A job that is older than `old` seconds goes before all
    younger ones: small ones that keep coming do not hold up a large one for ever. So a job is answered within `old` and the
    time that the model takes for what was in the queue when it came. `told` is called with (tokens, rows) of each batch.
    """

    score: Scorer
    budget: int
    told: Callable[[int, int], None] = lambda tokens, rows: None
    old: float = math.inf
    jobs: deque[Job] = field(default_factory=deque)
    """Those of which rows wait."""
    unanswered: set[Job] = field(default_factory=set)
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self._changed, self._stopping = Condition(), False
        self._thread = Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience: float | None = None) -> None:
        """Work off what is queued and end the thread; it is left alone when that takes longer than so many seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident:
            self._thread.join(patience)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def tokens(self) -> int:
        """What is queued, and what is being computed."""
        return sum(job.tokens for job in self.unanswered)

    async def submit(self, encoded: Encoded) -> np.ndarray:
        """Raw logits, float32 [rows]. When the caller is cancelled, what still waits of its rows is dropped."""
        job = Job(encoded, asyncio.get_running_loop())
        if not job.unscored:
            return job.scores
        self.unanswered.add(job)
        with self._changed:
            self.jobs.append(job)
            self._changed.notify()
        try:
            return await job.future
        finally:
            self.unanswered.remove(job)
            with self._changed:
                if job in self.jobs:
                    self.jobs.remove(job)

    def pick(self) -> list[tuple[Job, list[int]]]:
        """The next batch: rows of each job that has some in it. Jobs that still wait stand behind those not yet served."""
        born = time.monotonic() - self.old
        old = sorted((job for job in self.jobs if job.came < born), key=lambda job: job.came)
        jobs = old + [job for job in self.jobs if job.came >= born]
        taken: list[list[int]] = [[] for _ in jobs]
        taken[0].append(jobs[0].waiting.popleft())  # whatever its length: nothing may wait for ever
        share, left = self.budget // len(jobs), self.budget - int(jobs[0].lengths[taken[0][0]])
        for most in (share, self.budget):
            for place, job in enumerate(jobs):
                allowed = self.budget if place < len(old) else most
                rows = job.take(min(allowed - int(job.lengths[taken[place]].sum()), left))
                taken[place] += rows
                left -= int(job.lengths[rows].sum())
        batch = [(job, taken[place]) for place, job in enumerate(jobs) if taken[place]]
        unserved = [job for place, job in enumerate(jobs) if not taken[place]]
        self.jobs = deque(unserved + [job for job, _ in batch if job.waiting])
        return batch

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.jobs or self._stopping)
                if not self.jobs:
                    return
                batch = self.pick()
            self._run(batch)

    def _run(self, batch: list[tuple[Job, list[int]]]) -> None:
        keys = batch[0][0].encoded
        rows = {key: [job.encoded[key][row] for job, of_job in batch for row in of_job] for key in keys}
        tokens = sum(map(len, rows["input_ids"]))
        try:
            began = time.monotonic()
            values = self.score(rows)
            self.pace.add(tokens, time.monotonic() - began)
            self.told(tokens, len(values))
        except Exception as error:  # the thread must outlive a batch that fails
            for job, _ in batch:
                with self._changed:
                    if job in self.jobs:
                        self.jobs.remove(job)
                job.failed(error)
            return
        start = 0
        for job, of_job in batch:
            job.scored(of_job, values[start : start + len(of_job)])
            start += len(of_job)
