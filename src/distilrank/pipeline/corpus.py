"""A corpus as groups: documents cut to passages, queries read or written, candidates found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilrank.errors import UserError
from distilrank.progress import say
from distilrank.recipe_data import CorpusSpec, QueriesSpec, RetrievalSpec
from distilrank.records import Group
from distilrank.rows import BadLines

if TYPE_CHECKING:
    from distilrank.data.corpus import Corpus, Query
    from distilrank.data.hits import Retriever

WRITTEN_TEST = (
    "The test queries were written by a language model; what counts as relevant is the passage that each was written from. "
    "Only queries that find this passage were kept, so the figures compare systems and say little about real queries."
)
"""What a sceptic should know about figures on queries that were written."""
EMBEDDER_TOKENS = 512


def corpus_files(spec: CorpusSpec | None) -> list[str]:
    """The files and folders that a corpus is made of."""
    if spec is None:
        return []
    examples, template = (spec.write.examples, spec.write.template) if spec.write else (None, "")
    own = template if template.endswith((".yaml", ".yml")) else None
    return [file for file in (spec.documents, spec.passages, spec.queries, examples, own) if file]


def corpus_inputs(spec: CorpusSpec) -> list[Path]:
    """The same as paths. Raises `UserError` where one is not there."""
    for file in corpus_files(spec):
        if not Path(file).exists():
            raise UserError(f"{file}: no such file or folder")
    return [Path(file) for file in corpus_files(spec)]


def corpus_models(spec: CorpusSpec) -> list[str]:
    """The model sources that a corpus needs."""
    writer = spec.write.llm if spec.write and not spec.write.url else None
    embedder = spec.embedder if spec.retriever != "bm25" else None
    return [model for model in (writer, embedder) if model]


def check_corpus(spec: CorpusSpec, resolve: Callable[[str], Path | None]) -> None:
    """Refuse now what would be refused once the documents are cut: a template, a language, a model of another kind.

    `resolve` gives a model's folder, or none where it is not to be looked at. Raises `UserError`.
    """
    check_retrieval(spec, resolve)
    if spec.write:
        check_writer(spec.write, resolve)


def check_retrieval(spec: RetrievalSpec, resolve: Callable[[str], Path | None]) -> None:
    """The same for what finds candidates."""
    from distilrank.data.words import words_of
    from distilrank.teachers.build import refuse_other_kind

    words_of(spec.language)
    if spec.retriever != "bm25" and spec.embedder and (folder := resolve(spec.embedder)):
        refuse_other_kind("embedder", folder, "embedder must be a sentence-transformers embedder")


def check_writer(spec: QueriesSpec, resolve: Callable[[str], Path | None]) -> None:
    """The same for what writes queries."""
    from distilrank.data.queries import load_query_template
    from distilrank.teachers.build import refuse_other_kind

    load_query_template(spec.template, spec.examples)
    if not spec.url and (folder := resolve(spec.llm)):
        refuse_other_kind("causal", folder, "llm must be a language model that writes text")


def describe_corpus(spec: CorpusSpec) -> str:
    """What is made, in a few words."""
    passages = f"cut {spec.documents}" if spec.documents else f"read {spec.passages}"
    queries = f"queries written by {spec.write.llm}" if spec.write else f"queries of {spec.queries}"
    return f"{passages}, {queries}, {spec.retriever} candidates"


class CorpusData(AbstractContextManager["CorpusData"]):
    """The passages and queries of a corpus, from which the groups of each part are made; temporary files go at the end.

    What is paid for is in the folder `kept` and stays: `queries`, `vectors`.
    """

    def __init__(
        self,
        spec: CorpusSpec,
        tokenizer: Callable[[], Any],
        kept: Path,
        resolve: Callable[[str], Path],
        *,
        seed: int,
        hold_out: bool,
        skip: BadLines | None,
    ) -> None:
        from distilrank.data.corpus import Corpus, read_corpus, read_queries
        from distilrank.data.passages import passages
        from distilrank.data.queries import held_out

        self.spec, self.seed = spec, seed
        if spec.documents:
            cut = passages(Path(spec.documents), tokenizer(), spec.tokens, spec.overlap, skip)
        self.corpus = Corpus(cut if spec.documents else read_corpus(str(spec.passages), skip))
        say(f"  {len(self.corpus):,} passages")
        self.retrievers = retrievers(self.corpus, spec, kept / "vectors", resolve)
        if spec.write:
            found = written_queries(spec.write, self.corpus, self.retrievers, kept / "queries", resolve, seed)
            train, test = held_out(found, spec.write.held_out if hold_out else 0.0, seed)
            if not train:
                raise UserError(
                    f"{len(found)} queries are too few to hold some out: raise write.count, or set held_out to 0"
                )
        else:
            train, test = list(read_queries(str(spec.queries), skip)), []
        self.queries = {"train": train, "test": test}

    def __exit__(self, *error: Any) -> None:
        self.corpus.__exit__(*error)

    def groups(self, part: str) -> Iterator[Group]:
        """The groups of the `train` or `test` part."""
        from distilrank.data.candidates import candidates

        spec = self.spec
        return candidates(self.corpus, self.queries[part], self.retrievers, spec.depth, spec.random_negatives, self.seed)


def retrievers(corpus: Corpus, spec: RetrievalSpec, vectors: Path, resolve: Callable[[str], Path]) -> list[Retriever]:
    """The retrievers of a recipe, their indexes built; the passages' vectors are kept in the folder `vectors`."""
    from distilrank.data.candidates import make_retrievers
    from distilrank.engines.embedder import Embedder

    check_retrieval(spec, resolve)

    def embedder() -> Embedder:
        return Embedder(resolve(str(spec.embedder)), max_length=EMBEDDER_TOKENS)

    how: dict[str, Any] = {"language": spec.language, "embedder": embedder, "index": spec.index, "vectors": vectors}
    return make_retrievers(corpus, spec.retriever, **how)


def written_queries(
    spec: QueriesSpec,
    corpus: Corpus,
    found_by: list[Retriever],
    store: Path,
    resolve: Callable[[str], Path],
    seed: int,
) -> list[Query]:
    """Queries that a language model wrote to passages of the corpus, those that are worth asking."""
    from distilrank.data.queries import QueryStore, choose, keep, load_query_template, write
    from distilrank.data.writers import EndpointWriter, LocalWriter, Sampling, Writer

    sampling = Sampling(spec.temperature, spec.top_p, spec.most_tokens)
    writer: Writer
    if spec.url:
        way: dict[str, Any] = {"concurrency": spec.concurrency, "timeout": spec.timeout, "retries": spec.retries}
        writer = EndpointWriter(spec.url, spec.llm, sampling, key_variable=spec.key_variable, **way)
    else:
        writer = LocalWriter(resolve(spec.llm), sampling)
    template = load_query_template(spec.template, spec.examples)
    asked = choose(corpus, spec.count, spec.per_passage, seed)
    lines = write(asked, corpus, writer, template, QueryStore(store, writer, template))
    how: dict[str, Any] = {"round_trip": spec.round_trip, "near_duplicates": spec.near_duplicates}
    return keep(asked, lines, corpus, found_by, template, **how)
