"""The data section of a recipe: groups as they are, or made of a corpus."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from distilrank.settings import Section


def without_secrets(url: str) -> str:
    """A URL that holds no secret. Raises `ValueError` on one that may."""
    # A recipe is printed, stored and put into reports.
    if "?" in url or "@" in url.partition("://")[2].partition("/")[0]:
        raise ValueError("no user, password or query in it: name the variable that holds the token in key_variable")
    return url


class QueriesSpec(Section):
    """Queries that a language model writes to passages of the corpus."""

    llm: str = Field(description="a causal language model: a folder or source; with url: the server's name for it")
    url: str | None = Field(None, description="an OpenAI-compatible endpoint that serves it, like http://localhost:8000/v1")
    key_variable: str | None = Field(None, description="url: the environment variable that holds the bearer token")
    concurrency: int = Field(8, ge=1, description="url: requests at a time")
    timeout: float = Field(120.0, gt=0, description="url: seconds a request")
    retries: int = Field(5, ge=0, description="url: after a dropped connection, 429, 500, 502, 503 or 504")
    template: str = Field("web-question", description="how it is asked: a packaged template, or a YAML file of your own")
    examples: str | None = Field(None, description="your own examples for it: lines of passage and query")
    count: int = Field(1000, ge=1, description="so many passages are asked about, chosen at random")
    per_passage: int = Field(1, ge=1, description="queries a passage")
    temperature: float = Field(0.7, ge=0, description="0: the likeliest")
    top_p: float = Field(0.95, gt=0, le=1)
    most_tokens: int = Field(40, ge=4, description="of a query")
    round_trip: int = Field(10, ge=0, description="a query must find its passage among so many; 0: not tried")
    near_duplicates: float = Field(0.8, ge=0, le=1, description="two queries are one from this likeness on; 0: not tried")
    held_out: float = Field(0.15, ge=0, le=0.5, description="share of the queries for a test, where data.test names none")

    _no_secrets = field_validator("url")(classmethod(lambda cls, url: url and without_secrets(url)))


class RetrievalSpec(Section):
    """How candidates are found in a corpus."""

    retriever: Literal["bm25", "dense", "hybrid"] = Field("bm25", description="hybrid: both, fused by rank")
    language: str = Field("any", description="bm25: two letters, for stop words and stems; any: words as they are")
    embedder: str | None = Field(None, description="dense and hybrid: a sentence-transformers embedder")
    index: Literal["exact", "usearch"] = Field("exact", description="dense and hybrid: how vectors are searched")

    @model_validator(mode="after")
    def _has_embedder(self) -> RetrievalSpec:
        if self.retriever != "bm25" and self.embedder is None:
            raise ValueError(f"the retriever {self.retriever} needs an embedder: name a sentence-transformers model")
        return self


class CorpusSpec(RetrievalSpec):
    """Groups made of a corpus: its passages, queries, and the candidates of each query."""

    documents: str | None = Field(None, description="a folder of .txt, .md, .html, .pdf and .docx")
    passages: str | None = Field(None, description="or a corpus, lines of _id, title and text")
    tokens: int = Field(192, ge=16, description="documents: tokens of a passage with its title, by the student's tokenizer")
    overlap: int = Field(0, ge=0, description="documents: tokens repeated from the passage before")
    queries: str | None = Field(None, description="queries, lines of _id and text")
    write: QueriesSpec | None = Field(None, description="or how queries are written")
    depth: int = Field(30, ge=2, description="candidates a query")
    random_negatives: int = Field(0, ge=0, description="passages that were not found, added to each query")

    @model_validator(mode="after")
    def _whole(self) -> CorpusSpec:
        if (self.documents is None) == (self.passages is None):
            raise ValueError("give either documents (a folder) or passages (a corpus)")
        if (self.queries is None) == (self.write is None):
            raise ValueError("give either queries (a file) or write (a language model writes them)")
        if self.write and self.write.round_trip > self.depth:
            raise ValueError(f"write.round_trip is {self.write.round_trip}: at most depth, which is {self.depth}")
        return self


class DataSpec(Section):
    """Where the groups come from. Labels, where there are any, are never used for training."""

    train: str | None = Field(
        None, description="groups to teach on: a file, a glob, a BEIR or MTEB folder, a source, duckdb:SQL"
    )
    corpus: CorpusSpec | None = Field(None, description="in place of train: groups are made of a corpus")
    test: str | None = Field(None, description="held-out groups; with labels the run ends in evidence")
    skip_bad_lines: bool = Field(False, description="count and skip malformed lines instead of stopping at the first")
    train_queries: int | None = Field(None, ge=2, description="at most so many training queries, the first ones")
    test_queries: int | None = Field(None, ge=2, description="at most so many test queries, the first ones")
    cut_to_student: bool = Field(True, description="cut passages to what the student can see before anyone scores them")

    @model_validator(mode="after")
    def _one_origin(self) -> DataSpec:
        if (self.train is None) == (self.corpus is None):
            raise ValueError("give either train (groups) or corpus (groups are made)")
        return self

    @property
    def holds_out(self) -> bool:
        """Whether the test is made of queries that were written."""
        write = self.corpus.write if self.corpus else None
        return self.test is None and write is not None and write.held_out > 0

    @property
    def tested(self) -> bool:
        """Whether there is anything to evaluate."""
        return self.test is not None or self.holds_out
