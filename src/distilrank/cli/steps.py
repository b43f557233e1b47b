"""Commands for single steps on plain files: mine, train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from distilrank.cli.app import Json, Offline, SkipBadLines, app, result, skipping
from distilrank.errors import UserError


@app.command()
def mine(
    scored: Annotated[Path, typer.Argument(help="Scored pairs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Triplets or training groups.")],
    strategy: Annotated[
        str, typer.Option(help="adjacent (the reference's rule), all_pairs, quantile or random.")
    ] = "adjacent",
    top_k: Annotated[int, typer.Option(help="adjacent: so many of the best passages are positives.")] = 8,
    num_negatives: Annotated[int, typer.Option(help="adjacent: so many passages below each are its negatives.")] = 4,
    passages: Annotated[int, typer.Option(help="quantile, random: so many of a query's passages are drawn.")] = 8,
    samples: Annotated[str, typer.Option(help="quantile, random: draws a query; auto: about one pass over it.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
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
    with skipping(skip_bad_lines) as skip:
        if samples != "auto" and not samples.isdecimal():
            raise UserError(f"--samples {samples}: auto or a number")
        settings = MiningSettings(
            strategy, top_k, num_negatives, passages, "auto" if samples == "auto" else int(samples), seed
        )
        count = mine_file(scored, output, settings, triplets=form == "triplets", skip=skip)
    result(as_json, f"{count:,} {form} -> {output}", **{form: count})


@app.command()
def train(
    data: Annotated[Path, typer.Argument(metavar="TRIPLETS_OR_GROUPS", help="What `distilrank mine` wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model folder to write.")],
    student: Annotated[str | None, typer.Option(help="A cross-encoder: a model folder or source.")] = None,
    last: Annotated[
        Path | None, typer.Option("--from", metavar="MODEL", help="In place of --student: go on from this student of ours.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="OLD_GROUPS", help="With --from: what it learnt from before; some comes back.")
    ] = None,
    replay_share: Annotated[float, typer.Option(min=0, max=0.9, help="So much of the queries are old ones.")] = 0.2,
    mode: Annotated[str | None, typer.Option(help="triplets or groups; default: what the file holds.")] = None,
    preset: Annotated[str | None, typer.Option(help="groups mode: fast, balanced or best: half an epoch, 1 or 4.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Times through the data; default: the preset's, triplets: 1.")] = None,
    learning_rate: Annotated[
        str | None,
        typer.Option(help="auto or a number; default: auto, by the student's width and the epochs; triplets: 2e-5."),
    ] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the steps; default: 0.1, triplets: 0.05.")] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="A name, or several with weights, '{margin_mse: 1, kl: 0.3}'. Default: '{margin_mse: 1, kl: 1}', "
            "triplets: margin_mse."
        ),
    ] = None,
    queries_per_step: Annotated[int, typer.Option(help="groups mode: training groups a step.")] = 4,
    batch_size: Annotated[int, typer.Option(help="triplets mode: rows a forward.")] = 16,
    accumulation: Annotated[int | None, typer.Option(help="triplets mode: forwards an optimiser step; default: 32.")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens of query and passage; default: 512, or what --from was trained with.")
    ] = None,
    calibrate: Annotated[
        str | None, typer.Option(help="auto, none or a deviation; default: none for triplets, auto for groups.")
    ] = None,
    validation: Annotated[float, typer.Option(help="Share of the queries kept for selection.")] = 0.05,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16, of the products.")] = "auto",
    bounded_scores: Annotated[
        bool, typer.Option("--bounded-scores", help="The scores lie in [0, 1] by nature, like a cosine.")
    ] = False,
    seed: Annotated[int, typer.Option()] = 0,
    skip_bad_lines: SkipBadLines = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Train a student on mined data, by Margin-MSE (groups: with KL); killed, the same command goes on from its checkpoint.

    Example: `distilrank train triplets.jsonl -o model --student hf:BAAI/bge-reranker-v2-m3`
    """
    from dataclasses import asdict

    from distilrank.pipeline.ask import resolve_model
    from distilrank.records import holds_triplets
    from distilrank.settings import from_options
    from distilrank.students import TrainSettings
    from distilrank.students import train as train_file
    from distilrank.students.replay import continue_training, record_of

    if (student is None) == (last is None):
        raise UserError("say what is trained: --student, or --from to go on from a student of ours")
    if replay and last is None:
        raise UserError("--replay: old queries come back only where a training goes on: use --from")
    if max_length is None:
        max_length = record_of(last)["settings"]["max_length"] if last else 512
    with skipping(skip_bad_lines) as skip:
        triplets = mode == "triplets" if mode else holds_triplets(data, skip)
        given: dict[str, Any] = {"preset": preset, "epochs": epochs, "learning_rate": learning_rate, "warmup": warmup}
        given["loss"] = loss and _losses(loss)
        settings = from_options(
            TrainSettings,
            **{name: value for name, value in given.items() if value is not None},
            mode=mode or ("triplets" if triplets else "groups"),
            queries_per_step=queries_per_step,
            batch_size=batch_size,
            accumulation=(32 if triplets else 1) if accumulation is None else accumulation,
            calibrate=calibrate or ("none" if triplets else "auto"),
            validation=validation,
            precision=precision,
            bounded_scores=bounded_scores,
            max_length=max_length,
            seed=seed,
        )
        if last:
            trained = continue_training(data, last, output, settings, replay=replay, share=replay_share, skip=skip)
        else:
            trained = train_file(data, resolve_model(str(student), offline=offline), output, settings, skip=skip)
    line = f"{trained.steps:,} step{'s' * (trained.steps != 1)} in {trained.seconds:.0f} s -> {output}"
    if trained.agreement_after == trained.agreement_after:
        line += f"; agreement with the teacher {trained.agreement_before:.4f} -> {trained.agreement_after:.4f}"
    result(as_json, line, **{key: value if value == value else None for key, value in asdict(trained).items()})


def _losses(text: str) -> Any:
    """A loss's name, or the mapping that a recipe would have there."""
    from distilrank.settings import yaml_value

    if not text.lstrip().startswith("{"):
        return text
    return yaml_value(text, f"--loss {text}: write it as '{{margin_mse: 1, kl: 0.3}}'")
