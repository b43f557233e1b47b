"""A reranking server as teacher, asked over HTTP.

The formats are those of Text Embeddings Inference (`router/src/http/types.rs` and `server.rs` in its repository), of
Cohere and Jina (https://docs.cohere.com/reference/rerank, https://api.jina.ai/v1/rerank) and of vLLM's score API
(`vllm/entrypoints/pooling/scoring/protocol.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property, partial
from operator import itemgetter
from threading import Event
from typing import Any, Literal, NamedTuple

import numpy as np

from distilrank.errors import UserError, did_you_mean
from distilrank.progress import Advance, say
from distilrank.records import Group
from distilrank.teachers.base import Answer, TeacherIdentity
from distilrank.web import Endpoint


class _Format(NamedTuple):
    path: str
    query: str
    texts: str
    rows: str | None  # the key of the list of answers; none: the answer is the list
    score: str
    fixed: dict[str, Any]


_FORMATS = {
    "tei": _Format("rerank", "query", "texts", None, "score", {"raw_scores": True, "truncate": False}),
    "cohere": _Format("v1/rerank", "query", "documents", "results", "relevance_score", {"return_documents": False}),
    "vllm": _Format("score", "text_1", "text_2", "data", "score", {"use_activation": False}),
}
_SCORES = {"logits": "logit", "probabilities": "logit of a probability"}
_HINTS = {401: " (check key_variable)", 403: " (check key_variable)", 404: " (check url and api)"}
_TELLING = 16
_PROBE = ("What is the capital of France?", ["The capital of France is Paris.", "Salt the water before it boils."])
_CLIP = 1e-7
_LARGEST = float(np.finfo(np.float32).max)


class HttpTeacher:
    """The logit that a reranking server gives each pair; passages keep their order whatever order the server answers in.

    `url` is the server's root or the whole endpoint; `batch` is the most passages a request (a smaller limit of the
    server is found by halving), `timeout` is in seconds a request. `scores="probabilities"` takes the logit of a server
    that gives nothing better. `key_variable` names the environment variable that holds a bearer token. The server's
    weights cannot be seen from here: a server that changes its model must be given another `model` or `url`, or the old
    scores are taken for its own. TEI and vLLM refuse a text that is too long; a hosted server may cut it all the same
    (Cohere cuts passages at 4,096 tokens), and nothing that is sent from here prevents it.
    """

    shares: Literal["query", "passage"] = "query"
    engine = "http"
    portion = 1024
    """Pairs worth asking for at a time."""

    def __init__(
        self,
        url: str,
        *,
        api: str = "tei",
        model: str | None = None,
        scores: str = "logits",
        concurrency: int = 8,
        batch: int = 32,
        timeout: float = 60.0,
        retries: int = 5,
        key_variable: str | None = None,
    ) -> None:
        for name, value, known in (("api", api, _FORMATS), ("scores", scores, _SCORES)):
            if value not in known:
                raise UserError(f"{name} {value!r} is not known: {did_you_mean(value, known)}")
        self.api, self.model, self.scores, self.concurrency, self.batch = api, model, scores, concurrency, batch
        self.format = _FORMATS[api]
        way: dict[str, Any] = {"concurrency": concurrency, "timeout": timeout, "retries": retries}
        self.server = Endpoint(url, self.format.path, ("/rerank", "/score"), key_variable=key_variable, **way)
        self._found_logits = self._told_saturated = False

    @cached_property
    def identity(self) -> TeacherIdentity:
        weights = " ".join(filter(None, (self.api, self.server.shown, self.model)))
        return TeacherIdentity(kind="http", score=_SCORES[self.scores], weights=weights, dtype="", max_length=0)

    def prepare(self, groups: Sequence[Group]) -> Answer:
        """What will score these groups; nothing is asked until it is called."""
        return partial(self.score, groups)

    def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
        """Logits, float32 [passages] a group.

        Raises `UserError` when the server cannot be reached, refuses, answers in another format, does not answer for
        each passage once with a finite number, or gives probabilities where logits are expected (or the reverse).
        """
        if not groups:
            return []
        flat = np.empty(sum(len(group.passages) for group in groups))
        rows = np.split(flat, np.cumsum([len(group.passages) for group in groups])[:-1])  # what is written there is in flat
        stop, most, places = Event(), self.batch, {}
        with self.server.client() as client, ThreadPoolExecutor(self.concurrency) as pool:
            ask = partial(self._ask, client, stop)
            try:
                for group, row in zip(groups, rows, strict=True):
                    for some in (slice(begin, begin + most) for begin in range(0, len(row), most)):
                        texts = [passage.text for passage in group.passages[some]]
                        places[pool.submit(ask, group.query, texts)] = row[some]
                for future in as_completed(places):
                    places[future][:] = future.result()
                    advance(len(places[future]))
                if len(flat) and self.scores == "logits" and not self._found_logits:
                    self._refuse_probabilities(flat, ask)
            except BaseException:
                stop.set()  # the other threads neither wait nor ask again
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if self.scores == "probabilities":
            flat[:] = self._logits(flat)
        return [row.astype(np.float32) for row in rows]

    def refuse_long_queries(self, groups: Sequence[Group]) -> None:
        """The server alone knows what is too long for it, and says so."""

    def release(self) -> None:
        """Nothing to drop: the weights are the server's, and connections are closed after each call."""

    def _refuse_probabilities(self, values: np.ndarray, ask: Callable[[str, list[str]], list[float]]) -> None:
        # A few logits may lie in [0, 1] by chance: one pair that is surely relevant and one that is not decide.
        if _within(values) and (len(values) >= _TELLING or _within(ask(*_PROBE))):
            raise self.server.error(
                "every score lies in [0, 1], as probabilities do, and a margin needs logits: let the server give raw "
                'scores, or set scores to "probabilities" to take their logits'
            )
        self._found_logits = True

    def _ask(self, client: Any, stop: Event, query: str, texts: list[str]) -> list[float]:
        most = self.batch
        if len(texts) > most:
            pieces = (texts[begin : begin + most] for begin in range(0, len(texts), most))
            return [value for piece in pieces for value in self._ask(client, stop, query, piece)]
        body = {self.format.query: query, self.format.texts: texts, **self.format.fixed}
        if self.model:
            body["model"] = self.model
        if self.api == "cohere":
            body["top_n"] = len(texts)
        response = self.server.post(client, stop, json.dumps(body).encode())
        if response.is_success:
            return self._values(response, len(texts))
        status, said = response.status_code, response.text
        if status not in (400, 413, 422):
            raise self.server.error(f"answered {status}{_HINTS.get(status, '')}", said)
        if len(texts) > 1 and ("batch size" in said or (status == 413 and "tokens" not in said)):
            self.batch = min(self.batch, len(texts) // 2)  # for all requests from here on
            return self._ask(client, stop, query, texts)
        why = " (too long: no text is cut here, so shorten it or leave it out)" if "tokens" in said else ""
        raise self.server.error(
            f"answered {status} to the query {query[:60]!r} with {len(texts)} of its passages{why}", said
        )

    def _values(self, response: Any, many: int) -> list[float]:
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            raise self.server.error("the answer is not JSON, check url", response.text) from None
        rows = answer.get(self.format.rows) if self.format.rows and isinstance(answer, dict) else answer
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self.server.error(f"the answer is not in the {self.api} format, check api", response.text)
        indices = [row.get("index") for row in rows]
        if any(type(index) is not int for index in indices) or sorted(indices) != list(range(many)):
            raise self.server.error(f"the answer must hold each index from 0 to {many - 1} once, but holds", str(indices))
        values = [row.get(self.format.score) for row in sorted(rows, key=itemgetter("index"))]
        for value in values:
            if type(value) not in (int, float) or not abs(value) <= _LARGEST:
                raise self.server.error(
                    f"a {self.format.score} is not a finite number, check the server's model", repr(value)
                )
        if self.scores == "probabilities" and not _within(values):
            raise self.server.error("a score lies outside [0, 1], so these are no probabilities: set scores to logits")
        return values

    def _logits(self, chances: np.ndarray) -> np.ndarray:
        saturated = int(np.sum((chances <= _CLIP) | (chances >= 1 - _CLIP)))
        if saturated and not self._told_saturated:
            self._told_saturated = True
            say(
                f"{self.server.shown}: {saturated:,} of {len(chances):,} probabilities are within {_CLIP} of 0 or 1, where "
                "their logits are cut off and no longer tell passages apart (said once)"
            )
        chances = np.clip(chances, _CLIP, 1 - _CLIP)
        logits: np.ndarray = np.log(chances / (1 - chances))
        return logits


def _within(values: Iterable[float]) -> bool:
    return all(0.0 <= value <= 1.0 for value in values)
