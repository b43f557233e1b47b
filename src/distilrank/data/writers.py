"""Who writes queries: a causal language model in a folder, or any endpoint that speaks OpenAI's chat completions.

The endpoint's format: https://platform.openai.com/docs/api-reference/chat (vLLM, Ollama, llama.cpp and others serve it).
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from distilrank.engines.generate import Generator, Message
from distilrank.engines.load import weights_digest
from distilrank.web import Endpoint

Chat = Sequence[Message]


@dataclass(frozen=True)
class Sampling:
    """How a line is drawn: temperature 0 is the likeliest one."""

    temperature: float = 0.7
    top_p: float = 0.95
    most_tokens: int = 40


class Writer(Protocol):
    """Answers chats with one line each."""

    name: str
    """What decides the answers: weights or server, and how they are drawn."""

    def write(self, chats: Sequence[Chat], seeds: Sequence[int], done: Container[int]) -> Iterator[list[tuple[int, str]]]:
        """The numbers of some chats and their answers, as they come; those in `done` are not asked."""

    def release(self) -> None:
        """Drop what is held in memory."""


class LocalWriter:
    """A causal language model in a folder."""

    def __init__(self, folder: str | Path, sampling: Sampling, **computed: Any) -> None:
        self.generator, self.sampling = Generator(folder, **computed), sampling
        self.name = f"{weights_digest(self.generator.folder)} {self.generator.dtype} {sampling}"

    def write(self, chats: Sequence[Chat], seeds: Sequence[int], done: Container[int]) -> Iterator[list[tuple[int, str]]]:
        return self.generator.lines(chats, seeds, done=done, **vars(self.sampling))

    def release(self) -> None:
        self.generator.release()


class EndpointWriter:
    """An OpenAI-compatible endpoint. `url` is its root (`http://localhost:8000/v1`) or the whole endpoint.

    `timeout` is in seconds a request; `key_variable` names the environment variable that holds a bearer token.
    """

    def __init__(
        self,
        url: str,
        model: str,
        sampling: Sampling,
        *,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 5,
        key_variable: str | None = None,
    ) -> None:
        way: dict[str, Any] = {"concurrency": concurrency, "timeout": timeout, "retries": retries}
        self.server = Endpoint(url, "v1/chat/completions", ("/chat/completions",), key_variable=key_variable, **way)
        self.model, self.sampling = model, sampling
        self.name = f"{self.server.shown} {model} {sampling}"

    def write(self, chats: Sequence[Chat], seeds: Sequence[int], done: Container[int]) -> Iterator[list[tuple[int, str]]]:
        """Raises `UserError` when the server cannot be reached, refuses, or answers in another format."""
        stop = Event()
        with self.server.client() as client, ThreadPoolExecutor(self.server.concurrency) as pool:
            asked = {
                pool.submit(self._ask, client, stop, chat, seed): number
                for number, (chat, seed) in enumerate(zip(chats, seeds, strict=True))
                if number not in done
            }
            try:
                for future in as_completed(asked):
                    yield [(asked[future], future.result())]
            except BaseException:
                stop.set()  # the other threads neither wait nor ask again
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def release(self) -> None:
        """Nothing to drop: the weights are the server's."""

    def _ask(self, client: Any, stop: Event, chat: Chat, seed: int) -> str:
        sampling = self.sampling
        body = {
            "model": self.model,
            "messages": list(chat),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.most_tokens,
            "seed": seed % 2**31,
        }
        response = self.server.post(client, stop, json.dumps(body).encode())
        if not response.is_success:
            raise self.server.error(f"answered {response.status_code}", response.text)
        try:
            answer = response.json()["choices"][0]["message"]["content"]
            lines = [line.strip() for line in (answer or "").splitlines() if line.strip()]
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            raise self.server.error("the answer is no chat completion, check url", response.text) from None
        return lines[0] if lines else ""
