"""A stand-in for an OpenAI-compatible endpoint, which answers by a rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from stand_in import Planned, StandIn, served


def first_words(body: dict[str, Any], most: int = 6) -> str:
    """A query out of the passage's own words: the last message, without its frame."""
    asked = body["messages"][-1]["content"].removeprefix("Passage: ").removesuffix("\n\nSearch query:")
    return " ".join(asked.split()[-most:])


class ChatServer(StandIn):
    rule: Callable[[dict[str, Any]], str | None] = staticmethod(first_words)

    @property
    def url(self) -> str:
        return f"{super().url}/v1"

    def answer(self, body: dict[str, Any]) -> Planned:
        message = {"role": "assistant", "content": self.rule(body)}
        answer = {"id": "1", "object": "chat.completion", "model": body["model"]}
        return 200, {}, json.dumps(answer | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def chat_server() -> AbstractContextManager[ChatServer]:
    """A running server."""
    return served(ChatServer())
