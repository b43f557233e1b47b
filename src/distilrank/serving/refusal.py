"""Saying no: one exception, told in the error body of the API that was asked."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Literal

from starlette.responses import JSONResponse

Kind = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty", "Unauthorized", "Timeout"]
"""The first six are Text Embeddings Inference's own."""


GONE = 499
"""The status under which a client that went away is counted; nobody is sent it."""


class Refused(Exception):
    """A request that is not answered: the HTTP status, one line for a person, and the kind of error for a program."""

    def __init__(self, status: int, message: str, kind: Kind = "Validation", retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.retry_after = status, message, kind, retry_after


def refusal(path: str, error: Refused, *, close: bool = False) -> JSONResponse:
    """The answer, with the body of the API that the path belongs to."""
    headers = {"Connection": "close"} if close else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(_body(path, error), status_code=error.status, headers=headers)


def _body(path: str, error: Refused) -> dict[str, Any]:
    """Cohere and Jina: {"message"}; vLLM: {"error": {"message", "type", "code"}}; all else as Text Embeddings Inference."""
    if path in ("/v1/rerank", "/v2/rerank"):
        return {"message": error.message}
    if path == "/score":
        return {"error": {"message": error.message, "type": error.kind, "code": error.status}}
    return {"error": error.message, "error_type": error.kind}
