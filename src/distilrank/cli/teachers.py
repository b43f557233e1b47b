"""Commands about teachers and what they said: score, doctor, scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from distilrank.cli.app import Gpus, Json, Offline, On, SkipBadLines, app, print_json, result, skipping
from distilrank.errors import GateError, UserError

Kind = Annotated[str, typer.Option(help="causal, likelihood, cross-encoder, embedder or http.")]
TemplateName = Annotated[str | None, typer.Option(help="The prompt: a packaged template, or a YAML file of yours.")]
Instruction = Annotated[str | None, typer.Option(help="What relevance means (causal): a text, or a packaged one's name.")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float8.")]
KeepLayers = Annotated[int | None, typer.Option(help="float8: so many first and last layers stay bfloat16.")]
MaxLength = Annotated[int | None, typer.Option(help="Tokens of prompt and passage.")]
Windows = Annotated[
    int | None, typer.Option(help="cross-encoder: read long passages in windows that overlap by so many tokens.")
]
Engine = Annotated[str | None, typer.Option(help="packed, plain or vllm: how it is computed, not what.")]
Vllm = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="vllm: a setting under its own name; may be repeated.")
]
Api = Annotated[str | None, typer.Option(help="http: tei, cohere (Jina's, too) or vllm.")]
ServedModel = Annotated[str | None, typer.Option(help="http: the server's name for the model.")]
ServedScores = Annotated[str | None, typer.Option("--served-scores", help="http: logits or probabilities.")]
KeyVariable = Annotated[str | None, typer.Option(help="http: the environment variable that holds the bearer token.")]

scores_app = typer.Typer(
    no_args_is_help=True,
    help="""What is in a score store.

    Example: `distilrank scores ls runs/scores`
    """,
)
app.add_typer(scores_app, name="scores")
Store = Annotated[str, typer.Argument(help="A score store: a folder, or a URL like s3://bucket/scores.")]


@app.command()
def score(
    groups: Annotated[str, typer.Argument(help="A reranking set: a file, or a URL like s3://bucket/train.parquet.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Scored pairs, in the reference's format.")],
    teacher: Annotated[str, typer.Option(help="A model folder or source, or a server's URL.")],
    kind: Kind = "causal",
    template: TemplateName = None,
    instruction: Instruction = None,
    dtype: Dtype = None,
    keep_layers: KeepLayers = None,
    max_length: MaxLength = None,
    windows: Windows = None,
    engine: Engine = None,
    vllm: Vllm = None,
    api: Api = None,
    served_model: ServedModel = None,
    served_scores: ServedScores = None,
    key_variable: KeyVariable = None,
    store: Annotated[
        str | None,
        typer.Option(help="The score store, a folder or s3://, gs://, az://; default: `scores` beside the output."),
    ] = None,
    on: On = "local",
    gpus: Gpus = None,
    max_errors: Annotated[
        int, typer.Option(min=0, help="So many groups that cannot be scored are set aside, in a file beside the output.")
    ] = 0,
    checks: Annotated[str, typer.Option(help="When the teacher fails a check: stop, warn, or skip them all.")] = "stop",
    skip_bad_lines: SkipBadLines = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Score every (query, passage) pair with a teacher; pairs already in the store are not paid for again.

    Example: `distilrank score train.jsonl.gz -o scored.jsonl --teacher hf:Qwen/Qwen3-Reranker-0.6B`
    """
    given = locals()
    from distilrank.pipeline.ask import ask
    from distilrank.pipeline.where import Where
    from distilrank.recipe import ScoreSpec
    from distilrank.records import GroupFile, write_scored
    from distilrank.rows import BadLines
    from distilrank.scoring import Aside, ScoreStore, pairs_of, refuse_output, scored_pairs
    from distilrank.settings import from_options
    from distilrank.shards import place
    from distilrank.teachers import build_pointwise

    settings = from_options(ScoreSpec, checks=checks)
    kept_in = store or str(output.parent / "scores")
    refuse_output(output, kept_in)
    named, where = _named_spec(given), Where(on, gpus)
    where.check([named])
    spec = _brought(named, offline)
    aside = Aside(max_errors, output.with_name(f"{output.name}.aside.jsonl"))
    with skipping(skip_bad_lines) as skip:
        if max_errors:
            aside.bad = skip = skip or BadLines()
        built = build_pointwise(spec)
        pairs = GroupFile(place(groups), skip)
        kept = ScoreStore(kept_in, built.identity, teacher)
        with where.drive(named, spec, offline=offline) as drive:
            asked = ask(pairs, spec, built, kept, settings, drive=drive, aside=aside)
        aside.check()
        aside.write()
        scored = pairs_of(kept.whole(pairs)) if max_errors else scored_pairs(pairs, kept.scores(pairs))
        written = write_scored(output, scored)
    told = f"; {aside.count:,} group{'s' * (aside.count != 1)} could not be scored: {aside.path}" if aside.count else ""
    result(
        as_json,
        f"{written:,} pairs -> {output} ({asked:,} scored now; every score is kept in {kept_in}){told}",
        pairs=written,
        scored=asked,
        store=str(kept.folder),
        **({"set_aside": aside.count} if max_errors else {}),
    )


@app.command()
def doctor(
    groups: Annotated[Path | None, typer.Argument(help="A reranking set of yours, to check on its pairs.")] = None,
    teacher: Annotated[str | None, typer.Option(help="A model folder or source, or a server's URL.")] = None,
    kind: Kind = "causal",
    template: TemplateName = None,
    instruction: Instruction = None,
    dtype: Dtype = None,
    keep_layers: KeepLayers = None,
    max_length: MaxLength = None,
    windows: Windows = None,
    engine: Engine = None,
    vllm: Vllm = None,
    api: Api = None,
    served_model: ServedModel = None,
    served_scores: ServedScores = None,
    key_variable: KeyVariable = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Check this machine and, before GPU-hours are spent, a teacher: does it say what it should, and at what cost?

    Example: `distilrank doctor train.jsonl --teacher hf:Qwen/Qwen3-Reranker-0.6B`
    """
    given = locals()
    from dataclasses import asdict

    from distilrank.cli.doctor import machine, print_checks
    from distilrank.records import read_groups
    from distilrank.teachers.checks import check_teacher

    if groups and not teacher:
        raise UserError(f"{groups}: is read for a teacher's checks: say whose with --teacher")
    found = machine()
    if teacher:
        spec = _local_spec(given)
        found += check_teacher(spec, read_groups(groups) if groups else ())
    if as_json:
        print_json({"checks": [asdict(check) for check in found]})
    else:
        print_checks(found)
    failed = [check.name for check in found if check.verdict == "failed"]
    if failed:
        raise GateError(f"failed: {', '.join(failed)}")


@scores_app.command("ls")
def scores_ls(store: Store, as_json: Json = False) -> None:
    """Whose scores a store holds, how many, and how they were computed.

    Example: `distilrank scores ls runs/scores`
    """
    from distilrank.scoring.keep import list_store, print_store
    from distilrank.shards import place

    rows = list_store(place(store))
    if as_json:
        print_json({"teachers": rows})
    else:
        print_store(rows)


@scores_app.command("verify")
def scores_verify(store: Store, as_json: Json = False) -> None:
    """Read every part: whole, of the right form, finite, and no pair with two different scores.

    Example: `distilrank scores verify runs/scores`
    """
    from distilrank.scoring.keep import verify_store
    from distilrank.shards import place

    problems = verify_store(place(store))
    if as_json:
        print_json({"problems": problems})
    else:
        print("\n".join(problems) or f"{store}: whole")
    if problems:
        raise UserError(
            f"{store}: {len(problems)} problem{'s' * (len(problems) != 1)}; pairs of a deleted part are scored again"
        )


@scores_app.command("compact")
def scores_compact(store: Store, as_json: Json = False) -> None:
    """Make few large parts of many small ones; nothing may be scoring into the store meanwhile.

    Example: `distilrank scores compact runs/scores`
    """
    from distilrank.scoring.keep import compact_store
    from distilrank.shards import place

    before, after = compact_store(place(store))
    result(as_json, f"{store}: {before:,} parts -> {after:,}", before=before, after=after)


@scores_app.command("export")
def scores_export(
    store: Store,
    groups: Annotated[Path, typer.Argument(help="A reranking set.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Scored pairs, in the reference's format.")],
    identity: Annotated[
        str | None, typer.Option(help="Whose: the first digits `scores ls` shows, where there are several.")
    ] = None,
    skip_bad_lines: SkipBadLines = False,
    as_json: Json = False,
) -> None:
    """Write a store's scores of a reranking set as scored pairs, without asking any teacher.

    Example: `distilrank scores export runs/scores train.jsonl -o scored.jsonl`
    """
    from distilrank.records import GroupFile, write_scored
    from distilrank.scoring import refuse_output, scored_pairs
    from distilrank.scoring.keep import open_store
    from distilrank.shards import place

    refuse_output(output, store)
    with skipping(skip_bad_lines) as skip:
        pairs = GroupFile(groups, skip)
        written = write_scored(output, scored_pairs(pairs, open_store(place(store), identity).scores(pairs)))
    result(as_json, f"{written:,} pairs -> {output}", pairs=written)


def _local_spec(given: dict[str, Any]) -> Any:
    return _brought(_named_spec(given), given["offline"])


def _brought(spec: Any, offline: bool) -> Any:
    """A teacher with its model brought here."""
    from distilrank.pipeline.ask import local_teacher, resolve_model

    return local_teacher(spec, lambda source: resolve_model(source, offline=offline))


def _named_spec(given: dict[str, Any]) -> Any:
    """The teacher that a command's options describe; what was not given stays at its default."""
    from distilrank.recipe import teacher_spec

    names = ("template", "instruction", "dtype", "keep_layers", "max_length", "windows", "engine", "api", "key_variable")
    settings = {name: given[name] for name in names} | {"scores": given["served_scores"], "model": given["served_model"]}
    settings["vllm"] = given["vllm"] and _settings(given["vllm"])
    asked = {name: value for name, value in settings.items() if value is not None}
    return teacher_spec(given["kind"], given["teacher"], **asked)


def _settings(pairs: list[str]) -> dict[str, Any]:
    from distilrank.settings import yaml_value

    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise UserError(f"--vllm {pair}: write it as key=value, like tensor_parallel_size=2")
        found[name] = yaml_value(value, f"--vllm {pair}: {value!r} is not a YAML value")
    return found
