"""The command line's root: the application, the options that many commands share, and how results are shown."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
import typer.core

from distilrank.errors import UserError
from distilrank.progress import process_number, say

ORDER = (
    "demo", "init", "plan", "run", "fetch", "convert", "check", "split", "passages", "queries", "candidates", "doctor",
    "score", "scores", "mine", "train", "sweep", "evaluate", "report", "compare", "export", "serve", "push",
)  # fmt: skip
"""The commands as a reader comes by them: a whole run, then its steps; what is not named here stands last."""


class InOrder(typer.core.TyperGroup):
    """The commands in ORDER, in whatever order their modules are read."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names as `--help` lists them."""
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    name="distilrank",
    cls=InOrder,
    help="Distil a large LLM reranker into a small cross-encoder, with evidence that it is better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130
"""The exit code after control-C, as shells have it."""

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, for machines.")]
SkipBadLines = Annotated[bool, typer.Option("--skip-bad-lines", help="Count and skip malformed lines, do not stop.")]
RecipeName = Annotated[str, typer.Argument(help="A recipe file, or the name of a packaged recipe.")]
Changes = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting; may be repeated.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is already here or cached.")]
On = Annotated[str, typer.Option("--on", help="Where a teacher scores: local, or ray: the cluster that RAY_ADDRESS names.")]
Gpus = Annotated[
    str | None,
    typer.Option(metavar="N|all", help="A scoring process for each of so many GPUs; on ray: at most so many."),
]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 fine, 1 our fault, 2 the user's input, 3 a gate that was asked for said no."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' own bars: progress is told once, in our words
    try:
        app(args=arguments, standalone_mode=True)
    except UserError as error:
        say(f"error: {error}")
        if number := process_number():
            time.sleep(1)  # torchrun ends this process meanwhile, if the first one has said the same
            print(f"error in process {number}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            say("stopped: what was finished is kept, and the same command goes on from there")
        return stop.code if isinstance(stop.code, int) else 1
    return 0


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from distilrank import __version__

        print(__version__)
        raise typer.Exit


@contextmanager
def skipping(asked: bool) -> Iterator[Any]:
    """A collector of bad lines when the user asked to skip them, told at the end."""
    from distilrank.rows import BadLines

    skip = BadLines() if asked else None
    yield skip
    if skip and skip.reasons:
        say(skip.summary())


def result(as_json: bool, line: str, **values: Any) -> None:
    if as_json:
        print_json(values)
    else:
        say(line)


def print_json(value: dict[str, Any]) -> None:
    if process_number() == 0:
        print(json.dumps(value, ensure_ascii=False))
