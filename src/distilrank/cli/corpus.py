"""Commands from documents to groups: passages, queries, candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from distilrank.cli.app import Json, Offline, SkipBadLines, app, result, skipping

CorpusFile = Annotated[Path, typer.Option("--corpus", help="Lines of _id, title and text.")]
Retriever = Annotated[str, typer.Option(help="bm25, dense, or hybrid: both, fused by rank.")]
Language = Annotated[str, typer.Option(help="bm25: two letters, for stop words and stems; any: words as they are.")]
EmbedderSource = Annotated[str | None, typer.Option("--embedder", help="dense, hybrid: a model folder or source.")]
Index = Annotated[str, typer.Option(help="dense, hybrid: exact or usearch.")]
Seed = Annotated[int, typer.Option()]


@app.command()
def passages(
    documents: Annotated[Path, typer.Argument(metavar="DOCS", help="A folder of .txt, .md, .html, .pdf, .docx, or one.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="CORPUS", help="The corpus to write.")],
    tokenizer: Annotated[str, typer.Option(help="The student, or any model: a folder or source.")],
    tokens: Annotated[int, typer.Option(help="Most tokens of a passage with its title.")] = 192,
    overlap: Annotated[int, typer.Option(help="Tokens repeated from the passage before.")] = 0,
    skip_bad_documents: Annotated[
        bool, typer.Option("--skip-bad-documents", help="Count and skip documents that cannot be read.")
    ] = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Cut documents to passages, by headings and sentences; headings become titles.

    Example: `distilrank passages docs/ -o corpus.jsonl --tokenizer hf:BAAI/bge-reranker-v2-m3`
    """
    from distilrank.data.corpus import write_corpus
    from distilrank.data.passages import passages as cut
    from distilrank.engines.load import load_tokenizer
    from distilrank.pipeline.ask import resolve_model

    with skipping(skip_bad_documents) as skip:
        loaded = load_tokenizer(resolve_model(tokenizer, offline=offline))
        count = write_corpus(output, cut(documents, loaded, tokens, overlap, skip))
    result(as_json, f"{count:,} passages -> {output}", passages=count)


@app.command()
def queries(
    corpus: Annotated[Path, typer.Argument(help="Lines of _id, title and text.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="QUERIES", help="The queries to write.")],
    llm: Annotated[str, typer.Option(help="A causal language model: a folder or source; with --url the server's name.")],
    url: Annotated[str | None, typer.Option(help="An OpenAI-compatible endpoint, like http://localhost:8000/v1.")] = None,
    key_variable: Annotated[str | None, typer.Option(help="The environment variable that holds the bearer token.")] = None,
    template: Annotated[
        str, typer.Option(help="web-question, duplicate-question, keywords, code, or a YAML file of yours.")
    ] = "web-question",
    examples: Annotated[str | None, typer.Option(help="Your own examples: lines of passage and query.")] = None,
    count: Annotated[int, typer.Option(help="So many passages are asked about, chosen at random.")] = 1000,
    per_passage: Annotated[int, typer.Option(help="Queries a passage.")] = 1,
    temperature: Annotated[float, typer.Option(help="0: the likeliest.")] = 0.7,
    round_trip: Annotated[int, typer.Option(help="A query must find its passage among so many; 0: not tried.")] = 10,
    near_duplicates: Annotated[float, typer.Option(help="Two queries are one from this likeness on; 0: not tried.")] = 0.8,
    retriever: Retriever = "bm25",
    language: Language = "any",
    embedder: EmbedderSource = None,
    index: Index = "exact",
    store: Annotated[Path | None, typer.Option(help="What was written is kept here; default: `queries` beside it.")] = None,
    seed: Seed = 0,
    skip_bad_lines: SkipBadLines = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Write queries to passages with a language model, and keep those that lead back to their passage.

    Example: `distilrank queries corpus.jsonl -o queries.jsonl --llm hf:Qwen/Qwen3-4B-Instruct-2507`
    """
    given = locals()
    from distilrank.data.corpus import Corpus, read_corpus, write_queries
    from distilrank.pipeline.corpus import check_writer, retrievers, written_queries
    from distilrank.recipe_data import QueriesSpec
    from distilrank.settings import from_options

    spec = from_options(QueriesSpec, **{name: given[name] for name in QueriesSpec.model_fields if name in given})
    check_writer(spec, _resolver(offline))
    with skipping(skip_bad_lines) as skip, Corpus(read_corpus(corpus, skip)) as read:
        found_by = retrievers(read, _retrieval(given), output.parent / "vectors", _resolver(offline))
        made = written_queries(spec, read, found_by, store or output.parent / "queries", _resolver(offline), seed)
        write_queries(output, made)
    result(as_json, f"{len(made):,} queries -> {output}", queries=len(made))


@app.command()
def candidates(
    corpus: CorpusFile,
    queries: Annotated[Path, typer.Option(help="Lines of _id and text.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="GROUPS", help="The reranking set to write.")],
    retriever: Retriever = "bm25",
    depth: Annotated[int, typer.Option(help="Candidates a query.")] = 30,
    random_negatives: Annotated[int, typer.Option(help="Passages that were not found, added to each query.")] = 0,
    language: Language = "any",
    embedder: EmbedderSource = None,
    index: Index = "exact",
    seed: Seed = 0,
    skip_bad_lines: SkipBadLines = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Find the candidates of each query in a corpus.

    Example: `distilrank candidates --corpus corpus.jsonl --queries queries.jsonl -o groups.jsonl`
    """
    given = locals()
    from distilrank.data.candidates import candidates as find
    from distilrank.data.corpus import Corpus, read_corpus, read_queries
    from distilrank.pipeline.corpus import retrievers
    from distilrank.records import write_groups

    with skipping(skip_bad_lines) as skip, Corpus(read_corpus(corpus, skip)) as read:
        asked = list(read_queries(queries, skip))
        found_by = retrievers(read, _retrieval(given), output.parent / "vectors", _resolver(offline))
        count = write_groups(output, find(read, asked, found_by, depth, random_negatives, seed))
    result(as_json, f"{count:,} queries with candidates -> {output}", queries=count)


def _retrieval(given: dict[str, Any]) -> Any:
    from distilrank.recipe_data import RetrievalSpec
    from distilrank.settings import from_options

    return from_options(RetrievalSpec, **{name: given[name] for name in ("retriever", "language", "embedder", "index")})


def _resolver(offline: bool) -> Any:
    from functools import partial

    from distilrank.pipeline.ask import resolve_model

    return partial(resolve_model, offline=offline)
