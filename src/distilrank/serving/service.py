"""One request's way: taken in, tokenised, batched, scored; given up when its client has gone or its time is over."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from distilrank.serving.batching import Batcher, Pace
from distilrank.serving.engine import Engine
from distilrank.serving.metrics import Metrics
from distilrank.serving.reading import Asked, Read, Reader
from distilrank.serving.refusal import GONE, Refused
from distilrank.serving.settings import ServeSettings

Gone = Callable[[], Awaitable[Any]]
"""Returns when the client has gone."""


IN_TIME = 0.5
"""The share of the timeout for which work is queued, by how fast the model has been of late."""
OLD = 0.3
"""After this share of the timeout a request goes before younger ones. What is left is for a model that gets slower."""
PATIENCE = 5.0
"""Seconds for the model to answer when it is asked whether it is well, and for its last batch when the server ends."""


@dataclass(frozen=True)
class Scored:
    """Raw logits, float32 [pairs], and how many tokens were read for them."""

    logits: np.ndarray
    tokens: int


class Service:
    """A model that many requests share."""

    def __init__(self, engine: Engine, settings: ServeSettings) -> None:
        self.engine, self.settings = engine, settings
        self.reader = Reader(engine.tokenizer, settings.max_length, settings.windows, settings.queue)
        self.metrics = Metrics(lambda: self.waiting)
        self.batcher = Batcher(engine.score, engine.batch_tokens, self.metrics.batch, OLD * settings.timeout)
        self.waiting = 0
        """Pairs taken in and not answered yet: the queue, tokenised or not, and what is being computed."""
        self.failed = False
        """Whether the model failed when it was last asked."""
        self._tokenising = ThreadPoolExecutor(1, "tokenizer")

    async def healthy(self) -> bool:
        """Whether it can answer. After a failure the model is asked: a GPU that has failed once may fail for ever."""
        if not self.failed or not self.batcher.alive:
            return self.batcher.alive
        try:
            async with asyncio.timeout(PATIENCE):
                await self._scored(Asked(["warm up"], ["word"]))
        except (Refused, TimeoutError):
            return False
        return True

    async def start(self) -> None:
        """Start the model's thread and warm up: short, many and long pairs, so that no client waits for the first time.

        The last ones are the measure by which the first clients are taken in.
        """
        self.batcher.start()
        for words, pairs in ((8, 1), (8, 32), (self.settings.max_length, 2)):
            self.batcher.pace = Pace()
            await self._scored(Asked(["warm up"] * pairs, ["word " * words] * pairs))

    def stop(self) -> None:
        self.batcher.stop(PATIENCE)
        self._tokenising.shutdown(wait=False, cancel_futures=True)

    async def score(self, asked: Asked, gone: Gone) -> Scored:
        """Raises `Refused` when it is too much, too late or nobody waits for it any more."""
        self._within_limits(asked)
        until = time.monotonic() + self.settings.timeout
        with self._taken_in(len(asked.passages)):
            scoring, leaving = asyncio.ensure_future(self._scored(asked, until)), asyncio.ensure_future(gone())
            try:
                done, _ = await asyncio.wait(
                    {scoring, leaving}, timeout=self.settings.timeout, return_when=asyncio.FIRST_COMPLETED
                )
                if scoring in done:
                    found = scoring.result()
                elif leaving in done:
                    raise Refused(GONE, "the client has gone", "Timeout")
                else:
                    message = f"not answered within {self.settings.timeout:g} s: send fewer texts, or ask another replica"
                    raise Refused(504, message, "Timeout")
            finally:
                scoring.cancel()
                leaving.cancel()
            self.metrics.scored(len(asked.passages))
            return found

    async def _scored(self, asked: Asked, until: float | None = None) -> Scored:
        read: Read = await asyncio.get_running_loop().run_in_executor(self._tokenising, self.reader.read, asked)
        if until is not None:
            self._in_time(read.tokens, until)
        try:
            logits = read.scores(await self.batcher.submit(read.encoded))
        except Exception as error:
            from distilrank.progress import say
            from distilrank.serving.limits import where

            say(f"error: {where(error)}")
            self.failed = True
            raise Refused(424, "Inference failed", "Backend") from None
        self.failed = not np.isfinite(logits).all()
        if self.failed:
            raise Refused(424, "a score is not a finite number", "Backend")
        return Scored(logits, read.tokens)

    def _within_limits(self, asked: Asked) -> None:
        limits, pairs = self.settings, len(asked.passages)
        if not pairs:
            raise Refused(400, "`texts` cannot be empty", "Empty")
        if pairs > limits.max_texts:
            raise Refused(413, f"batch size {pairs} > maximum allowed batch size {limits.max_texts}")
        longest = max(map(len, (*asked.queries, *asked.passages)))
        if longest > limits.max_chars:
            message = f"`inputs` must have less than {limits.max_chars + 1} characters. Given: {longest}"
            raise Refused(413, f"Input validation error: {message}")

    @contextmanager
    def _taken_in(self, pairs: int) -> Iterator[None]:
        if self.waiting and self.waiting + pairs > self.settings.queue:
            raise self._overloaded()
        self.waiting += pairs
        try:
            yield
        finally:
            self.waiting -= pairs

    def _in_time(self, tokens: int, until: float) -> None:
        """What would wait too long behind the others is told when to come back; when there are none, any is taken."""
        others, spare = self.batcher.tokens, (1 - IN_TIME) * self.settings.timeout
        if others and time.monotonic() + self.batcher.pace.needs(others + tokens) > until - spare:
            raise self._overloaded()

    def _overloaded(self) -> Refused:
        seconds = math.ceil(self.batcher.pace.needs(self.batcher.tokens))
        return Refused(429, "Model is overloaded", "Overloaded", retry_after=min(60, max(1, seconds)))
