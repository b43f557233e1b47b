"""Commands for evidence: evaluate, compare, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distilrank.cli.app import Json, Offline, SkipBadLines, app, print_json, result, skipping
from distilrank.errors import UserError
from distilrank.progress import say


@app.command()
def evaluate(
    test: Annotated[Path, typer.Argument(help="A reranking set; without labels only agreement is measured.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="EVAL", help="The evaluation folder to write.")],
    model: Annotated[list[str], typer.Option(help="A folder or source; of two, the first is before, the second after.")],
    scores: Annotated[Path | None, typer.Option(metavar="SCORED", help="The teacher's scored pairs.")] = None,
    other: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Another system: scored pairs, or a TREC run (.run, .trec, .txt)."),
    ] = None,
    embedder: Annotated[str | None, typer.Option(help="An embedder to compare with: a folder or source.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="By ir-measures' names, the first decides; default AP, RR@10, nDCG@10.")
    ] = None,
    counting: Annotated[
        str, typer.Option(help="judged: means over queries with a positive and another passage; or sentence-transformers.")
    ] = "judged",
    qrels: Annotated[Path | None, typer.Option(help="A TREC qrels file in place of the set's own labels.")] = None,
    trec: Annotated[Path | None, typer.Option(metavar="DIR", help="Write TREC runs and qrels there, too.")] = None,
    out_of_domain: Annotated[
        list[str] | None, typer.Option(metavar="TEST", help="A labelled set outside the domain: what was forgotten?")
    ] = None,
    max_forgetting: Annotated[
        float | None,
        typer.Option(min=0, help="Exit with 3 when more of the metric listed first is lost outside the domain."),
    ] = None,
    latency: Annotated[float, typer.Option(min=0, help="Seconds of timing a model on a device; 0: no timing.")] = 1.0,
    max_length: Annotated[int, typer.Option(help="Tokens of query and passage.")] = 512,
    skip_bad_lines: SkipBadLines = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Measure models, the teacher, other systems and BM25 on the same candidates.

    Example: `distilrank evaluate test.jsonl --model before --model after --scores scored.jsonl -o evaluation`
    """
    from distilrank.evidence import print_tables, save_evaluation, summary
    from distilrank.evidence.forgetting import demand_memory
    from distilrank.evidence.trec import write_trec
    from distilrank.metrics import DEFAULT_MEASURES
    from distilrank.pipeline.evaluation import evaluate_files, refuse_outputs
    from distilrank.recipe import EvaluateSpec
    from distilrank.settings import from_options

    if max_forgetting is not None and not out_of_domain:
        raise UserError("--max-forgetting: name a set with --out-of-domain")
    if out_of_domain and len(model) != 2:
        raise UserError("--out-of-domain: what was forgotten is asked of two models, before and after: give --model twice")
    refuse_outputs(output, trec)
    spec = from_options(
        EvaluateSpec,
        {"metrics": "metric"},
        metrics=tuple(metric or DEFAULT_MEASURES),
        counting=counting,
        embedder=embedder,
        latency=latency,
        out_of_domain=tuple(out_of_domain or ()),
    )
    with skipping(skip_bad_lines) as skip:
        evaluation = evaluate_files(
            test,
            model,
            spec,
            scored=scores,
            others=_named_files(other or []),
            qrels=qrels,
            needs_labels=trec is not None,
            max_length=max_length,
            offline=offline,
            skip=skip,
        )
    save_evaluation(evaluation, output)
    if trec:
        write_trec(evaluation, trec)
    if as_json:
        print_json(summary(evaluation))
    else:
        print_tables(evaluation)
        say(f"-> {output}; next: distilrank report {output} -o report.html")
    if max_forgetting is not None:
        demand_memory(evaluation.forgetting, max_forgetting)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="EVAL_A", help="An evaluation folder.")],
    second: Annotated[Path, typer.Argument(metavar="EVAL_B", help="Another one of the same test set.")],
    system: Annotated[str | None, typer.Option(help="Compare this system of both; default: the student after.")] = None,
    as_json: Json = False,
) -> None:
    """Two evaluations side by side, with the paired test on the queries that they share.

    Example: `distilrank compare runs/a/evaluation runs/b/evaluation`
    """
    from distilrank.evidence import load_evaluation
    from distilrank.evidence.compare import compare_evaluations, print_comparison

    found = compare_evaluations(load_evaluation(first), load_evaluation(second), system)
    if as_json:
        print_json(found.as_json())
    else:
        print_comparison(found, first.as_posix(), second.as_posix())


@app.command()
def report(
    evaluation: Annotated[Path, typer.Argument(metavar="EVAL", help="An evaluation folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file to write.")] = Path("report.html"),
    no_texts: Annotated[bool, typer.Option("--no-texts", help="Leave out every text of a query or passage.")] = False,
    as_json: Json = False,
) -> None:
    """Write the report of an evaluation: one HTML file that needs no network.

    Example: `distilrank report evaluation -o report.html`

    With `--no-texts` queries are shown by their ids and passages by their place, for a corpus that must stay where it is.
    """
    from distilrank.evidence import load_evaluation, write_report

    write_report(load_evaluation(evaluation), output, texts=not no_texts)
    result(as_json, f"-> {output}", report=str(output))


def _named_files(given: list[str]) -> dict[str, Path]:
    files = {}
    for entry in given:
        name, equals, file = entry.partition("=")
        if not (name and equals and file):
            raise UserError(f"--other {entry}: write it as NAME=FILE")
        if name in files:
            raise UserError(f"--other {entry}: there is a system {name} already")
        files[name] = Path(file)
    return files
