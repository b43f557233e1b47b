"""Commands for data: fetch, convert, check, split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distilrank.cli.app import Json, Offline, SkipBadLines, app, print_json, result, skipping
from distilrank.errors import UserError

Source = Annotated[str, typer.Argument(help="A file, a glob, a BEIR or MTEB folder, hf:org/name:file, or duckdb:SQL.")]
Near = Annotated[float, typer.Option("--near", help="From this share of common shingles two texts are near duplicates.")]


@app.command()
def fetch(
    source: Annotated[str, typer.Argument(help="hf: or modelscope:org/name[@revision][:file], pypi:name==version, a path.")],
    destination: Annotated[str, typer.Argument(metavar="DEST", help="Where to put it; a file goes into a folder/.")],
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Fetch a model or data set to a place of your choice.

    Example: `distilrank fetch hf:datasets/mteb/stackoverflowdupquestions-reranking:test.jsonl.gz data/`
    """
    from distilrank.data.sources import copy_to, fetch, revision_of

    found, target = fetch(source, offline=offline), Path(destination)
    if found.is_file() and (destination.endswith("/") or target.is_dir()):
        target /= found.name
    copy_to(found, target)
    revision = revision_of(found)
    line = f"{source} -> {target}" + (f" (revision {revision})" if revision else "")
    result(as_json, line, source=source, destination=str(target), revision=revision)


@app.command()
def convert(
    source: Source,
    output: Annotated[Path, typer.Option("-o", "--output", help="A file by its ending, or a folder of BEIR, MTEB, TREC.")],
    read_as: Annotated[str | None, typer.Option("--from", help="Its format; default: told from what is there.")] = None,
    write_as: Annotated[str, typer.Option("--to", help="The format to write.")] = "reranking",
    column: Annotated[list[str] | None, typer.Option(metavar="OURS=THEIRS", help="Tables: query=question.")] = None,
    split: Annotated[str | None, typer.Option(help="BEIR, MTEB: which split.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="TREC, MS MARCO, Tevatron: the passages' texts.")] = None,
    queries: Annotated[Path | None, typer.Option(help="TREC, MS MARCO: the texts of the queries.")] = None,
    qrels: Annotated[Path | None, typer.Option(help="TREC, MS MARCO: the labels.")] = None,
    skip_bad_lines: SkipBadLines = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Read data in one format and write it in another: reranking, training-groups, pairs, sentence-transformers,
    flagembedding, tevatron, msmarco, beir, mteb, trec.

    Example: `distilrank convert run.txt --corpus collection.tsv --queries queries.tsv --qrels qrels.txt -o groups.jsonl`
    """
    from distilrank.data import located
    from distilrank.data.formats import Parts, convert

    columns = {}
    for pair in column or ():
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise UserError(f"--column {pair}: write it as OURS=THEIRS, like query=question")
        columns[ours] = theirs
    parts = Parts(split, corpus, queries, qrels, columns)
    found = located(source, offline=offline)
    with skipping(skip_bad_lines) as skip:
        count = convert(found, output, read_as=read_as, write_as=write_as, parts=parts, skip=skip, offline=offline)
    unit = "queries" if write_as in ("reranking", "training-groups", "beir", "mteb", "trec") else "rows"
    result(as_json, f"{count:,} {unit} -> {output}", **{unit: count})


@app.command()
def check(
    groups: Source,
    against: Annotated[str | None, typer.Option(help="The other part, train beside test: no query may be in both.")] = None,
    student: Annotated[str | None, typer.Option(help="A model folder or source, to see what its max_length cuts.")] = None,
    max_length: Annotated[int, typer.Option(help="Tokens of query and passage.")] = 512,
    near: Near = 0.8,
    allow_leak: Annotated[bool, typer.Option("--allow-leak", help="Tell of a leak, but do not exit with 3.")] = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Find mistakes in groups before a GPU-hour is spent; exit code 3 when a query is also in the other part.

    Example: `distilrank check test.jsonl --against train.jsonl --student hf:BAAI/bge-reranker-v2-m3`
    """
    from dataclasses import asdict

    from distilrank.data import located
    from distilrank.data.checks import check, demand_no_leak, in_words
    from distilrank.data.formats import read_any_groups
    from distilrank.rows import BadLines

    tokenizer = None
    if student:
        from distilrank.engines.load import load_tokenizer
        from distilrank.pipeline.ask import resolve_model

        tokenizer = load_tokenizer(resolve_model(student, offline=offline))
    bad = BadLines()
    here = read_any_groups(located(groups, offline=offline), skip=bad, offline=offline)
    there = read_any_groups(located(against, offline=offline), skip=BadLines(), offline=offline) if against else None
    findings = check(here, there, tokenizer=tokenizer, max_length=max_length, threshold=near, bad=bad)
    if as_json:
        print_json(asdict(findings))
    else:
        _print_table(in_words(findings))
    if not allow_leak:
        demand_no_leak(findings)


@app.command()
def split(
    groups: Source,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A folder for train.jsonl, test.jsonl.")],
    test: Annotated[float, typer.Option(help="Share of the queries; at most so many become test.")] = 0.1,
    by: Annotated[str, typer.Option(help="query, document (of the positives' ids), or a column of the file.")] = "query",
    seed: Annotated[int, typer.Option(help="Which queries become test.")] = 0,
    near: Near = 0.8,
    skip_bad_lines: SkipBadLines = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Split groups into train and test so that near duplicates, and what shares a key, stay on one side.

    Example: `distilrank split groups.jsonl -o data --test 0.2 --by document`
    """
    from distilrank.data import located
    from distilrank.data.split import split_file

    with skipping(skip_bad_lines) as skip:
        source = located(groups, offline=offline)
        train, held_out = split_file(source, output, test, by=by, seed=seed, threshold=near, skip=skip, offline=offline)
    line = f"{train:,} queries -> {output / 'train.jsonl'}, {held_out:,} -> {output / 'test.jsonl'}"
    result(as_json, line, train=train, test=held_out)


def _print_table(rows: list[tuple[str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
