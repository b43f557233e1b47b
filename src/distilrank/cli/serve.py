"""The command serve: a model behind HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distilrank.cli.app import Offline, app
from distilrank.errors import UserError


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A model folder or source; for onnx, a folder that `export` made.")],
    host: Annotated[str | None, typer.Option(help="The address to listen on; 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="8080; 0 takes any free one and says which.")] = None,
    engine: Annotated[str | None, typer.Option(help="torch or onnx.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16 (torch).")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N (torch).")] = None,
    threads: Annotated[int | None, typer.Option(help="Of the CPU.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of query and passage together; 512.")] = None,
    windows: Annotated[
        int | None, typer.Option(help="Read a long passage in windows that overlap by so many tokens; the largest counts.")
    ] = None,
    batch_tokens: Annotated[int | None, typer.Option(help="Tokens of one batch.")] = None,
    queue: Annotated[int | None, typer.Option(help="Pairs that may wait; more are told 429. 8192.")] = None,
    max_texts: Annotated[int | None, typer.Option(help="Passages a request; 1000.")] = None,
    max_chars: Annotated[int | None, typer.Option(help="Characters of a text; 100000.")] = None,
    max_body: Annotated[int | None, typer.Option(help="Bytes of a request; 4194304.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds until a request is answered; 30.")] = None,
    read_timeout: Annotated[float | None, typer.Option(help="Seconds for headers, and for a body, to arrive; 10.")] = None,
    drain: Annotated[float | None, typer.Option(help="Seconds for what is being answered after SIGTERM; 30.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment variable that holds the bearer token to ask for.")
    ] = None,
    offline: Offline = False,
) -> None:
    """Serve a reranker: the APIs of Text Embeddings Inference, Cohere, Jina and vLLM, a page to try it, metrics.

    Example: `distilrank serve model --port 8080`
    """
    given = locals()
    from distilrank.pipeline.ask import resolve_model
    from distilrank.serving import ServeSettings
    from distilrank.settings import from_options

    names = ServeSettings.model_fields
    settings = from_options(ServeSettings, **{name: given[name] for name in names if given[name] is not None})
    try:
        from distilrank.serving.run import serve as run
    except ImportError as error:
        raise UserError(f"serve needs {error.name}: pip install 'distilrank[serve]'") from None
    run(Path(resolve_model(model, offline=offline)), settings, key_variable=api_key_env)
