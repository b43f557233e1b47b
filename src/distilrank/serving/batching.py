"""Batches across requests: one thread owns the model, and every request gets its share of each batch."""

from __future__ import annotations

import asyncio
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


class Job:
    """The rows of one request on their way through the batches; `future` gets float32 [rows]."""

    def __init__(self, encoded: Encoded, loop: asyncio.AbstractEventLoop) -> None:
        self.encoded, self.loop = encoded, loop
        self.lengths = np.array([len(row) for row in encoded["input_ids"]])
        # The longest first: what shares a batch is of like length, and little of it is padding.
        self.waiting: deque[int] = deque(np.argsort(-self.lengths, kind="stable").tolist())
        self.scores = np.empty(len(self.lengths), dtype=np.float32)
        self.unscored = len(self.lengths)
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
class Batcher:
    """A queue of jobs and the thread that works it off, at most `budget` tokens a batch (a longer row goes alone).

    In each batch every waiting job has an equal share of the budget, and what a small job leaves goes to the others in
    order of arrival: a large request does not hold up a small one. `told` is called with (tokens, rows) of each batch.
    """

    score: Scorer
    budget: int
    told: Callable[[int, int], None] = lambda tokens, rows: None
    jobs: deque[Job] = field(default_factory=deque)
    rate: float = 0.0
    """Rows a second that the model has done of late; 0 before it has done any."""

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

    async def submit(self, encoded: Encoded) -> np.ndarray:
        """Raw logits, float32 [rows]. When the caller is cancelled, what still waits of its rows is dropped."""
        job = Job(encoded, asyncio.get_running_loop())
        if not job.unscored:
            return job.scores
        with self._changed:
            self.jobs.append(job)
            self._changed.notify()
        try:
            return await job.future
        finally:
            with self._changed:
                if job in self.jobs:
                    self.jobs.remove(job)

    def pick(self) -> list[tuple[Job, list[int]]]:
        """The next batch: rows of each job that has some in it. Jobs that still wait stand behind those not yet served."""
        taken: list[list[int]] = [[] for _ in self.jobs]
        taken[0].append(self.jobs[0].waiting.popleft())  # whatever its length: nothing may wait for ever
        share, left = self.budget // len(self.jobs), self.budget - int(self.jobs[0].lengths[taken[0][0]])
        for most in (share, self.budget):
            for place, job in enumerate(self.jobs):
                rows = job.take(min(most - int(job.lengths[taken[place]].sum()), left))
                taken[place] += rows
                left -= int(job.lengths[rows].sum())
        batch = [(job, taken[place]) for place, job in enumerate(self.jobs) if taken[place]]
        unserved = [job for place, job in enumerate(self.jobs) if not taken[place]]
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
        try:
            began = time.monotonic()
            values = self.score(rows)
            rate = len(values) / max(time.monotonic() - began, 1e-6)
            self.rate = 0.8 * self.rate + 0.2 * rate if self.rate else rate
            self.told(sum(map(len, rows["input_ids"])), len(values))
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
