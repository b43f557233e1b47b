"""What a server counts, in Prometheus' text format; a registry of its own for each application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from distilrank.serving.refusal import GONE

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = tuple(2**power for power in range(4, 18))


class Metrics:
    """Counters of one application, by the server's own paths and never by anything that a client wrote."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], int]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        more: Any = {"registry": self.registry, "namespace": "distilrank"}
        self._requests = Counter("requests", "Requests answered, by path and status.", ["path", "status"], **more)
        self._seconds = Histogram("request_seconds", "From headers to answer.", ["path"], buckets=SECONDS, **more)
        self._rejected = Counter("rejected", "Requests refused, by status.", ["status"], **more)
        self._pairs = Counter("pairs", "Pairs scored.", **more)
        self._batch_tokens = Histogram("batch_tokens", "Tokens of a batch.", buckets=SIZES, **more)
        self._batch_rows = Histogram("batch_rows", "Tokenised pairs of a batch.", buckets=SIZES, **more)
        Gauge("queue_pairs", "Pairs taken in and not answered yet.", **more).set_function(waiting)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request has been answered, or its client went away."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)
        if status >= 400 and status != GONE:
            self._rejected.labels(str(status)).inc()

    def batch(self, tokens: int, rows: int) -> None:
        """The model has computed a batch."""
        self._batch_tokens.observe(tokens)
        self._batch_rows.observe(rows)

    def scored(self, pairs: int) -> None:
        """So many pairs have been answered."""
        self._pairs.inc(pairs)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
