"""Queries where there are none: a language model writes what a person would ask, and what does not lead back is dropped.

Writing from passages with a few examples follows InPars (Bonifacio et al. 2022, arXiv 2202.05144), keeping a query only
when its passage is found again follows Promptagator's round trip (Dai et al. 2022, arXiv 2209.11755).
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from distilrank.data.candidates import search
from distilrank.data.corpus import Corpus, Query
from distilrank.data.duplicates import clusters
from distilrank.data.hits import Retriever
from distilrank.data.words import words
from distilrank.data.writers import Chat, Writer
from distilrank.errors import UserError, did_you_mean, first_line
from distilrank.progress import bar, say
from distilrank.rows import read_rows, text_of
from distilrank.settings import Section
from distilrank.shards import append_part, parts, write_text
from distilrank.templates import is_own, name_and_digest, packaged, read_own

MOST_CHARACTERS = 4_000
"""So much of a passage is shown to the writer."""
FEWEST_WORDS = 8
"""A shorter passage is not asked about."""
PART_LINES, PART_SECONDS = 256, 30.0
"""At most so much is lost when a run is killed."""
_PART = pa.schema([("asked", pa.binary()), ("line", pa.string())])
_LABEL = re.compile(r"^(\d+[.)]\s+|[-*•]\s+)?((the )?(search )?(query|question|keywords|title)\s*:\s*)?", re.IGNORECASE)


class Example(Section):
    """A passage and the query that a person asked for it."""

    passage: str = Field(min_length=1)
    query: str = Field(min_length=1)


class QueryTemplate(Section):
    """How a query is asked for: a system message, examples as turns of a chat, and the passage."""

    name: str
    source: str = Field(description="where the words come from")
    system: str = Field(min_length=1, description="who the model is to be")
    ask: str = Field(description="what it is asked, with {passage} once")
    examples: tuple[Example, ...] = ()

    @field_validator("ask")
    @classmethod
    def _has_passage(cls, ask: str) -> str:
        if ask.count("{passage}") != 1:
            raise ValueError("{passage} must stand in it once")
        return ask

    @property
    def digest(self) -> str:
        """`name-digest`: other words or examples are another template."""
        return name_and_digest(self)

    def chat(self, passage: str) -> Chat:
        """The messages that ask for a query to a passage."""
        before = [
            message
            for example in self.examples
            for message in (
                {"role": "user", "content": self.ask.replace("{passage}", example.passage)},
                {"role": "assistant", "content": example.query},
            )
        ]
        asked = {"role": "user", "content": self.ask.replace("{passage}", passage[:MOST_CHARACTERS])}
        return [{"role": "system", "content": self.system}, *before, asked]


@cache
def packaged_query_templates() -> dict[str, QueryTemplate]:
    """The templates inside the package, by name."""
    return packaged(QueryTemplate, "distilrank.data")


def load_query_template(name_or_file: str, examples: str | Path | None = None) -> QueryTemplate:
    """A packaged template by its name, or one of the user's in a YAML file; `examples` take the place of its own.

    `examples` is a file of `{"passage", "query"}`. Raises `UserError` when there is no such template or it is not sound.
    """
    if is_own(name_or_file):
        template = read_own(QueryTemplate, name_or_file)
    elif name_or_file not in (known := packaged_query_templates()):
        raise UserError(
            f"no query template {name_or_file!r}: {did_you_mean(name_or_file, known)}; a file of yours ends in .yaml"
        )
    else:
        template = known[name_or_file]
    if examples is None:
        return template
    rows = read_rows(examples, lambda row: Example(passage=text_of(row, "passage"), query=text_of(row, "query")), None)
    return template.model_copy(update={"examples": tuple(rows)})


# ---- writing, kept like scores


@dataclass(frozen=True)
class Asked:
    """A line to be written: for which passage of the corpus, and its how manieth."""

    passage: int
    number: int
    digest: bytes

    @property
    def seed(self) -> int:
        """The seed of this line alone."""
        return int.from_bytes(self.digest[:8], "little")


class QueryStore:
    """Lines that a writer wrote with a template, by content: a line is paid for once, and a killed run goes on.

    A folder `<store>/<digest>` with `writer.json` and append-only parts: `asked` (16 bytes) and `line`.
    """

    def __init__(self, folder: str | Path, writer: Writer, template: QueryTemplate) -> None:
        described = json.dumps({"writer": writer.name, "template": template.digest}, indent=1, ensure_ascii=False)
        self.folder = Path(folder) / hashlib.blake2b(described.encode(), digest_size=16).hexdigest()
        if not (self.folder / "writer.json").exists():
            write_text(self.folder / "writer.json", described + "\n")

    def lines(self) -> dict[bytes, str]:
        """Every line by what was asked. Raises `UserError` when a part cannot be read."""
        found: dict[bytes, str] = {}
        for part in parts(self.folder):
            try:
                table = pq.read_table(part, schema=_PART)
            except (pa.ArrowException, OSError) as error:
                raise UserError(f"{part}: not whole: {first_line(error)}") from None
            found |= dict(zip(table["asked"].to_pylist(), table["line"].to_pylist(), strict=True))
        return found

    def append(self, lines: dict[bytes, str]) -> None:
        """Keep some lines as one part."""
        append_part(self.folder, pa.table([list(lines), list(lines.values())], schema=_PART))


def write(asked: Sequence[Asked], corpus: Corpus, writer: Writer, template: QueryTemplate, store: QueryStore) -> list[str]:
    """The line for each that is asked for; what the store has is not written again.

    Raises `UserError` when the writer fails; what it wrote before stays in the store.
    """
    known = store.lines()
    done = {place for place, ask in enumerate(asked) if ask.digest in known}
    if len(done) < len(asked):
        chats = [template.chat(corpus[ask.passage].passage) for ask in asked]
        waiting: dict[bytes, str] = {}
        last = time.monotonic()
        with bar("queries", len(asked) - len(done), "queries") as advance:
            try:
                for batch in writer.write(chats, [ask.seed for ask in asked], done):
                    waiting |= {asked[place].digest: line for place, line in batch}
                    advance(len(batch))
                    if len(waiting) >= PART_LINES or time.monotonic() - last > PART_SECONDS:
                        store.append(waiting)
                        known |= waiting
                        waiting, last = {}, time.monotonic()
            finally:
                if waiting:
                    store.append(waiting)
            known |= waiting
        writer.release()
    say(f"  {len(asked) - len(done):,} queries written now, {len(done):,} were in the store")
    return [known[ask.digest] for ask in asked]


def choose(corpus: Corpus, count: int, per_passage: int = 1, seed: int = 0) -> list[Asked]:
    """`count` passages at random, each asked about `per_passage` times. Raises `UserError` when none is long enough."""
    order = list(range(len(corpus)))
    random.Random(f"passages {seed}").shuffle(order)
    found: list[Asked] = []
    for place in order:
        if len(found) >= count * per_passage:
            break
        text = corpus[place].passage
        if len(words(text)) >= FEWEST_WORDS:
            found += [Asked(place, number, _digest(text, number, seed)) for number in range(per_passage)]
    if not found:
        raise UserError(f"no passage has {FEWEST_WORDS} words: there is nothing to ask about")
    return found


def _digest(passage: str, number: int, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {number} {passage}".encode(), digest_size=16).digest()


# ---- what is kept of what was written


def keep(
    asked: Sequence[Asked],
    lines: Sequence[str],
    corpus: Corpus,
    retrievers: Sequence[Retriever],
    template: QueryTemplate,
    *,
    round_trip: int = 10,
    near_duplicates: float = 0.8,
) -> list[Query]:
    """The queries worth asking, each with the id of its passage; how many were dropped, and why, is told.

    Dropped is what is no query (too short or long, repeating itself, an example's own), what does not find its passage
    among the best `round_trip` (0: not tried), and what is a near duplicate of one before (`near_duplicates` is the share of
    common letters in a row from which two are; 0: not tried). Raises `UserError` when nothing is left.
    """
    examples = {example.query for example in template.examples}
    made = [(ask, query) for ask, line in zip(asked, lines, strict=True) if (query := said(line)) and query not in examples]
    told = [f"{len(lines) - len(made):,} are no queries"]
    if round_trip and made:
        hits, _ = search(retrievers, [query for _, query in made], round_trip)
        found = [
            pair
            for pair, numbers in zip(made, hits.numbers.tolist(), strict=True)
            if pair[0].passage in numbers[:round_trip]
        ]
        told.append(f"{len(made) - len(found):,} do not find their passage")
        made = found
    if near_duplicates and made:
        numbers = clusters([query for _, query in made], near_duplicates).tolist()
        first = {number: place for place, number in reversed(list(enumerate(numbers)))}
        told.append(f"{len(made) - len(first):,} are near duplicates")
        made = [made[place] for place in sorted(first.values())]
    say(f"  {len(made):,} of {len(lines):,} queries are kept: {', '.join(told)}")
    if not made:
        raise UserError("no query is left: try another template, examples of your own, a larger model, or round_trip 0")
    return [Query(f"{corpus[ask.passage].id}/{ask.number}", query, corpus[ask.passage].id) for ask, query in made]


def said(line: str) -> str:
    """The query in a line that a model wrote, without labels and quotes; empty where it is none."""
    text = _LABEL.sub("", line.strip()).strip().strip("\"'“”„«»`*").strip()
    found = words(text)
    repeats = len(found) > 8 and len(set(found)) < 0.6 * len(found)
    return "" if not 2 <= len(found) <= 40 or repeats else text


def held_out(queries: Sequence[Query], share: float, seed: int) -> tuple[list[Query], list[Query]]:
    """Queries to teach on and queries to test on, so that no document has queries in both (a passage, where there are fewer
    than 10 documents)."""

    def document(query: Query) -> str:
        return (query.passage or query.id).rpartition("#")[0] or query.id

    def passage(query: Query) -> str:
        return query.passage or query.id

    of = document if len({document(query) for query in queries}) >= 10 else passage
    keys = sorted({of(query) for query in queries})
    random.Random(f"held out {seed}").shuffle(keys)
    counts = dict.fromkeys(keys, 0)
    for query in queries:
        counts[of(query)] += 1
    test: set[str] = set()
    wanted = share * len(queries)
    for key in keys:
        if wanted <= 0:
            break
        test.add(key)
        wanted -= counts[key]
    return [q for q in queries if of(q) not in test], [q for q in queries if of(q) in test]
