"""Commands for evidence on plain files: evaluate, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from distilrank.cli.app import Json, Offline, SkipBadLines, app, print_json, result, skipping
from distilrank.progress import say


@app.command()
def evaluate(
    test: Annotated[Path, typer.Argument(help="A labelled reranking set.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="EVAL", help="The evaluation folder to write.")],
    model: Annotated[list[str], typer.Option(help="A model folder or source; the first is before, the second after.")],
    scores: Annotated[Path | None, typer.Option(metavar="SCORED", help="The teacher's scored pairs.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="By ir-measures' names; default AP, RR@10, nDCG@10.")] = None,
    max_length: Annotated[int, typer.Option(help="Tokens of query and passage.")] = 512,
    skip_bad_lines: SkipBadLines = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Measure models, the teacher and BM25 on the same candidates.

    Example: `distilrank evaluate test.jsonl --model before --model after --scores scored.jsonl -o evaluation`
    """
    from distilrank.evidence import evaluate as evaluate_systems
    from distilrank.evidence import print_tables, save_evaluation
    from distilrank.metrics import DEFAULT_MEASURES, parse_measures
    from distilrank.pipeline.systems import given_systems

    parse_measures(metric or DEFAULT_MEASURES)
    with skipping(skip_bad_lines) as skip:
        groups, systems, settings = given_systems(test, model, scores, max_length=max_length, offline=offline, skip=skip)
    evaluation = evaluate_systems(groups, systems, metric or DEFAULT_MEASURES, settings)
    save_evaluation(evaluation, output)
    if as_json:
        print_json(_summary(evaluation))
    else:
        print_tables(evaluation)
        say(f"-> {output}; next: distilrank report {output} -o report.html")


@app.command()
def report(
    evaluation: Annotated[Path, typer.Argument(metavar="EVAL", help="An evaluation folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file to write.")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """Write the report of an evaluation: one HTML file that needs no network.

    Example: `distilrank report evaluation -o report.html`
    """
    from distilrank.evidence import load_evaluation, write_report

    write_report(load_evaluation(evaluation), output)
    result(as_json, f"-> {output}", report=str(output))


def _summary(evaluation: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "queries": len(evaluation.groups),
        "judged": int(evaluation.judged.sum()),
        "means": evaluation.means(),
        "comparisons": {
            name: {key: value if value == value else None for key, value in asdict(paired).items()}
            for name, paired in evaluation.comparisons.items()
        },
    }
