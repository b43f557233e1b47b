"""The routes: three ways to ask for an order, one to ask for scores, and what an operator asks."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import numpy as np
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from distilrank.serving import schemas
from distilrank.serving.engine import Engine
from distilrank.serving.limits import Counted, Guarded, State
from distilrank.serving.reading import Asked
from distilrank.serving.refusal import Refused, refusal
from distilrank.serving.service import Scored, Service
from distilrank.serving.settings import ServeSettings

FORMS = {"str", "Document"}
"""What pydantic calls the forms that a text or a document may have: no places in a body."""
SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body by a parser that knows no NaN, no half characters and no bytes that are not UTF-8."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from None


class _StrictRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strictly


def create_app(engine: Engine, settings: ServeSettings, *, key: str | None = None, state: State | None = None) -> FastAPI:
    """The server as an ASGI application; it warms up when it starts. `key` is the bearer token that is asked for."""
    service, state = Service(engine, settings), state or State()

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        service.stop()

    app = FastAPIOffline(
        "/docs", None, title="distilrank serve", version=version("distilrank"), lifespan=running, static_url="/docs/static",
        description="A reranker behind the APIs of Text Embeddings Inference, Cohere, Jina and vLLM.",
    )  # fmt: skip
    app.router.route_class = _StrictRoute
    _add_asking(app, service, [Depends(HTTPBearer(auto_error=False))] if key else [])
    _add_operating(app, service, state)
    _add_page(app)
    _add_refusing(app)
    paths = frozenset(route.path for route in app.routes if hasattr(route, "path"))
    limits: Any = {"max_body": settings.max_body, "read_timeout": settings.read_timeout}
    app.add_middleware(Guarded, state=state, key=key, **limits)
    app.add_middleware(Counted, metrics=service.metrics, state=state, paths=paths)
    return app


def _add_asking(app: FastAPI, service: Service, secured: Sequence[Any]) -> None:
    name = service.engine.name
    max_length, max_texts, max_chars = service.reader.max_length, service.settings.max_texts, service.settings.max_chars
    limits = f"At most {max_texts:,} passages of {max_chars:,} characters; the model reads {max_length} tokens of a pair."

    @app.post(
        "/rerank",
        response_model=list[schemas.Rank],
        response_model_exclude_none=True,
        responses=_errors(schemas.TeiError),
        dependencies=secured,
        summary="The order of passages, as Text Embeddings Inference says it",
        description=f"Sigmoids, or logits with `raw_scores`. {limits}",
    )
    async def rerank(body: schemas.Rerank, request: Request) -> Any:
        asked = Asked(
            [body.query] * len(body.texts),
            body.texts,
            cut=body.truncate is not False,
            left=body.truncation_direction.lower() == "left",
        )
        found = await service.score(asked, _gone(request))
        values = found.logits if body.raw_scores else sigmoid(found.logits)
        texts = body.texts if body.return_text else [None] * len(body.texts)
        return [{"index": i, "score": shortest(values[i]), "text": texts[i]} for i in best_first(found.logits)]

    async def documents(body: schemas.Documents, request: Request) -> Any:
        texts = [each if isinstance(each, str) else each.text for each in body.documents]
        asked = Asked([body.query] * len(texts), texts, most=body.max_tokens_per_doc)
        found = await service.score(asked, _gone(request))
        values, results = sigmoid(found.logits), []
        for i in best_first(found.logits)[: body.top_n]:
            result: dict[str, Any] = {"index": i, "relevance_score": shortest(values[i])}
            if body.return_documents:
                given = body.documents[i]
                result["document"] = {"text": given} if isinstance(given, str) else given.model_dump()
            results.append(result)
        meta = {"api_version": {"version": request.url.path[2]}, "tokens": {"input_tokens": found.tokens}}
        return {"id": str(uuid.uuid4()), "model": name, "results": results, "usage": _usage(found), "meta": meta}

    for path in ("/v1/rerank", "/v2/rerank"):
        app.post(
            path,
            response_model=schemas.Results,
            response_model_exclude_none=True,
            responses=_errors(schemas.CohereError),
            dependencies=secured,
            operation_id=f"rerank_{path[1:3]}",
            summary="The order of documents, as Cohere and Jina say it",
            description=f"Sigmoids. {limits}",
        )(documents)

    @app.post(
        "/score",
        response_model=schemas.Scores,
        responses=_errors(schemas.VllmError),
        dependencies=secured,
        summary="The logits of pairs in the order given, as vLLM says it",
        description=f"Raw logits, unless `use_activation` asks for their sigmoids. {limits}",
    )
    async def score(body: schemas.Pairs, request: Request) -> Any:
        found = await service.score(Asked(*_pairs(body)), _gone(request))
        values = sigmoid(found.logits) if body.use_activation else found.logits
        data = [{"index": i, "score": shortest(value)} for i, value in enumerate(values)]
        told = {"id": f"score-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        return {**told, "data": data, "usage": _usage(found)}


def _add_operating(app: FastAPI, service: Service, state: State) -> None:
    unhealthy: Any = {200: {"description": "It can answer"}, 503: {"model": schemas.TeiError}}

    @app.get("/health", response_class=Response, responses=unhealthy, summary="200 while it can answer")
    async def health() -> Response:
        if state.draining or not await service.healthy():
            raise Refused(503, "unhealthy", "Unhealthy")
        return Response()

    @app.get("/info", response_model=schemas.Info, summary="The model and its limits")
    async def info() -> Any:
        engine, settings = service.engine, service.settings
        return {
            "model_id": engine.name,
            "model_dtype": engine.dtype,
            "model_type": {
                "reranker": {"id2label": engine.labels, "label2id": {v: int(k) for k, v in engine.labels.items()}}
            },
            "max_concurrent_requests": settings.queue,
            "max_input_length": service.reader.max_length,
            "max_batch_tokens": engine.batch_tokens,
            "max_client_batch_size": settings.max_texts,
            "version": version("distilrank"),
        }

    @app.get("/metrics", response_class=Response, summary="For Prometheus", responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=service.metrics.content_type)


def _add_page(app: FastAPI) -> None:
    for path, name, kind in (
        ("/", "page.html", "text/html"),
        ("/page.css", "page.css", "text/css"),
        ("/page.js", "page.js", "text/javascript"),
    ):
        content = files("distilrank.serving").joinpath("page", name).read_bytes()
        app.add_api_route(path, partial(_static, content, kind), include_in_schema=False)


def _static(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind, headers=SAFE)


def _add_refusing(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return refusal(request.url.path, error)

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        answer = refusal(request.url.path, Refused(error.status_code, str(error.detail)))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        called = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method == "POST" and not called.endswith(("/json", "+json")):
            message = "the body is not called JSON: send the header Content-Type: application/json"
        else:
            message = mistakes(error.errors())
        return refusal(request.url.path, Refused(422, message, "Tokenizer"))


def mistakes(found: Sequence[Any]) -> str:
    """What is wrong with a body, in one line and without quoting it; the first three mistakes."""
    told = []
    for each in found:
        parts = [str(part) for part in each["loc"][1:]]
        place = ".".join(part for part in parts if part not in FORMS and not part.startswith(("function-", "list[")))
        told.append(f"{place or 'body'}: {each['msg']}")
    return "; ".join(dict.fromkeys(told[:3]))


def _errors(model: type) -> dict[int | str, dict[str, Any]]:
    statuses = (400, 401, 408, 413, 422, 424, 429, 503, 504)
    return {status: {"model": model} for status in statuses}


def _gone(request: Request) -> Callable[[], Coroutine[Any, Any, None]]:
    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return gone


def _pairs(body: schemas.Pairs) -> tuple[list[str], list[str]]:
    first, second = ([text] if isinstance(text, str) else text for text in (body.text_1, body.text_2))
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        raise Refused(400, f"text_1 has {len(first)} texts and text_2 {len(second)}: one, or as many")
    return first, second


def _usage(found: Scored) -> dict[str, int]:
    return {"prompt_tokens": found.tokens, "total_tokens": found.tokens}


def best_first(logits: np.ndarray) -> list[int]:
    """Places by falling logit; ties keep the order in which they were given."""
    return [int(place) for place in np.argsort(-logits, kind="stable")]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Float32, computed so that no exponent overflows."""
    decay = np.exp(-np.abs(logits.astype(np.float64)))
    return np.asarray(np.where(logits >= 0, 1 / (1 + decay), decay / (1 + decay)), dtype=np.float32)


def shortest(value: np.float32) -> float:
    """The number with the fewest digits that is this float32."""
    return float(str(value))
