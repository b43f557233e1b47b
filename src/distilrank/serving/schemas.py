"""The bodies that are asked and answered.

`/rerank` and `/info`: Text Embeddings Inference (`docs/openapi.json` and `router/src/http/types.rs` of its repository).
`/v1/rerank` and `/v2/rerank`: Cohere (https://docs.cohere.com/reference/rerank) and Jina (https://api.jina.ai/redoc).
`/score`: vLLM (`vllm/entrypoints/pooling/scoring/protocol.py`). Fields that are not named here are ignored, as there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices as _called
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NOT_EMPTY: dict[str, Any] = {"minItems": 1}
"""In the schema alone: an empty list is refused by hand, in the words of the API."""


class Body(BaseModel):
    """What a client sends: no text is taken for a number, nor a number for a truth value."""

    model_config = ConfigDict(strict=True)


class Rerank(Body):
    """A query and its passages, as Text Embeddings Inference is asked."""

    query: str = Field(examples=["how do I undo a commit?"])
    texts: list[str] = Field(json_schema_extra=NOT_EMPTY, examples=[["git reset --soft HEAD~1", "git push"]])
    raw_scores: bool = Field(False, description="logits, not their sigmoids")
    return_text: bool = False
    truncate: bool | None = Field(None, description="false refuses what is too long; else it is cut")
    truncation_direction: Literal["Left", "Right", "left", "right"] = Field("Right", description="where it is cut")


class Rank(BaseModel):
    index: int
    text: str | None = None
    score: float


class Document(Body):
    """A document as an object: `text` is read, whatever else is in it comes back."""

    model_config = ConfigDict(strict=True, extra="allow")
    text: str


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
"""In JSON 3.0 is a whole number, too."""


class Documents(Body):
    """A query and its documents, as Cohere and Jina are asked."""

    model: str | None = Field(None, description="not looked at: there is one")
    query: str = Field(examples=["how do I undo a commit?"])
    documents: list[Annotated[str | Document, Field(union_mode="left_to_right")]] = Field(
        json_schema_extra=NOT_EMPTY, examples=[["git reset --soft HEAD~1", "git push"]]
    )
    top_n: Whole | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: Whole | None = Field(None, description="a document's tokens beyond these are not read")


class Result(BaseModel):
    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Results(BaseModel):
    id: str
    model: str
    results: list[Result]
    usage: Usage
    meta: dict[str, Any]


Texts = str | Annotated[list[str], Field(json_schema_extra=NOT_EMPTY)]


class Pairs(Body):
    """One text with one or many, or as many as it has itself, as vLLM is asked, under any of vLLM's names."""

    model: str | None = Field(None, description="not looked at: there is one")
    text_1: Texts = Field(examples=["how do I undo a commit?"], validation_alias=_called("text_1", "queries", "data_1"))
    text_2: Texts = Field(
        examples=[["git reset --soft HEAD~1", "git push"]],
        validation_alias=_called("text_2", "documents", "items", "data_2"),
    )
    use_activation: bool | None = Field(None, description="sigmoids; here the default is raw logits")


class Score(BaseModel):
    index: int
    object: Literal["score"] = "score"
    score: float


class Scores(BaseModel):
    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Score]
    usage: Usage


class Info(BaseModel):
    """What is served, as Text Embeddings Inference says it."""

    model_id: str
    model_sha: str | None = None
    model_dtype: str
    model_type: dict[str, Any]
    max_concurrent_requests: int = Field(description="pairs that may wait")
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None = None
    max_client_batch_size: int
    auto_truncate: bool = True
    tokenization_workers: int = 1
    version: str
    sha: str | None = None
    docker_label: str | None = None


class TeiError(BaseModel):
    error: str
    error_type: str


class CohereError(BaseModel):
    message: str


class _VllmInner(BaseModel):
    message: str
    type: str
    code: int


class VllmError(BaseModel):
    error: _VllmInner
