"""Commands for the finished student: export, push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distilrank.cli.app import Json, Offline, app, print_json, result
from distilrank.progress import say


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A cross-encoder with one output: a model folder or source.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")],
    form: Annotated[str, typer.Option("--format", help="safetensors, onnx, onnx-int8 or openvino.")] = "onnx",
    dtype: Annotated[str, typer.Option(help="safetensors: float32, bfloat16 or float16.")] = "float32",
    parity: Annotated[
        Path | None,
        typer.Option(metavar="GROUPS", help="Compare on these; default: the run's held-out queries, or built-in texts."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="GROUPS", help="onnx-int8: fix the ranges of activations on these; default: at run time."),
    ] = None,
    max_loss: Annotated[
        float, typer.Option(min=0, help="Exit with 3 when more MAP is lost (without labels: nDCG@10 against the original).")
    ] = 0.005,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Write a student in another form, with its tokenizer as other tools read it, and compare the two.

    Example: `distilrank export model -o model-onnx --format onnx-int8`
    """
    from dataclasses import asdict
    from itertools import islice

    from distilrank.pipeline.ask import resolve_model
    from distilrank.records import read_groups
    from distilrank.students.export import ExportSettings, parity_groups
    from distilrank.students.export import export as export_model

    folder = resolve_model(model, offline=offline)
    passages = tuple(islice(read_groups(calibrate), 32)) if calibrate else ()
    settings = ExportSettings(form, dtype, passages, max_loss)
    name, groups = parity_groups(folder, parity)
    found = export_model(folder, output, settings, groups, name)
    if as_json:
        print_json({"output": str(output), "format": form} | asdict(found) | {"loss": found.loss})
    else:
        say(f"-> {output}")


@app.command()
def push(
    model: Annotated[Path, typer.Argument(help="A model folder with safetensors and its card, README.md.")],
    destination: Annotated[str, typer.Argument(metavar="DEST", help="hf:org/name or modelscope:org/name.")],
    public: Annotated[bool, typer.Option("--public", help="Let everyone see it; else the repository is private.")] = False,
    message: Annotated[str, typer.Option(help="The commit's message.")] = "A reranker distilled with distilrank",
    as_json: Json = False,
) -> None:
    """Upload a student to a hub: its card, weights in safetensors, configuration and tokenizer, and nothing else.

    Example: `distilrank push model hf:my-org/my-reranker`

    The token is the hub's own: `$HF_TOKEN` or `hf auth login`; `$MODELSCOPE_API_TOKEN` or `modelscope login`.
    """
    from distilrank.push import push as push_model

    url, files = push_model(model, destination, private=not public, message=message)
    result(as_json, f"{len(files)} files -> {url}", url=url, files=files)
