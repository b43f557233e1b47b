"""Queries out of passages: how they are asked for, what is kept, never paid for twice."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrank.data import queries as module
from distilrank.data.bm25 import Bm25Retriever
from distilrank.data.corpus import Corpus, Document, Query
from distilrank.data.queries import (
    QueryStore,
    QueryTemplate,
    choose,
    held_out,
    keep,
    load_query_template,
    packaged_query_templates,
    said,
    write,
)
from distilrank.errors import UserError

PLACES = ["river", "castle", "harbour", "market", "garden", "bridge", "forest", "window"]
DOCUMENTS = [
    Document(f"{place}.md#0", f"The {place} opens in {month} and closes at {hour} when the season of {place} ends.")
    for place, month, hour in zip(
        PLACES, ["may", "june", "july", "august", "march", "april", "october", "december"], range(8), strict=True
    )
]


class Scribe:
    """Writes the words of a passage by a rule, three at a time, and breaks off before a line if it is told to."""

    name = "scribe"

    def __init__(self, breaks: int | None = None) -> None:
        self.breaks, self.wrote, self.released = breaks, 0, 0

    def write(self, chats: Sequence[Any], seeds: Sequence[int], done: Container[int]) -> Iterator[list[tuple[int, str]]]:
        waiting = [number for number in range(len(chats)) if number not in done]
        for start in range(0, len(waiting), 3):
            batch = waiting[start : start + 3]
            if self.breaks is not None and self.wrote + len(batch) > self.breaks:
                raise UserError("the writer is gone")
            self.wrote += len(batch)
            yield [
                (number, f"when does the {chats[number][-1]['content'].split()[2]} open {seeds[number]}") for number in batch
            ]

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def corpus() -> Corpus:
    return Corpus(DOCUMENTS)


@pytest.fixture
def template() -> QueryTemplate:
    return load_query_template("web-question")


# ---- templates


@pytest.mark.parametrize("name", ["web-question", "duplicate-question", "keywords", "code"])
def test_a_packaged_template_asks_with_its_examples_as_turns(name: str) -> None:
    template = load_query_template(name)
    chat = template.chat("the {passage} itself")
    assert [message["role"] for message in chat] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "the {passage} itself" in chat[-1]["content"]
    assert chat[2]["content"] == template.examples[0].query
    assert template.examples[0].passage in chat[1]["content"]
    assert set(packaged_query_templates()) == {"web-question", "duplicate-question", "keywords", "code"}


def test_ones_own_examples_take_the_place_of_the_packaged(tmp_path: Path) -> None:
    (file := tmp_path / "mine.jsonl").write_text('{"passage": "p", "query": "q"}\n')
    template = load_query_template("keywords", file)
    assert [message["content"] for message in template.chat("x")][1:] == [
        "Passage: p\n\nKeywords:",
        "q",
        "Passage: x\n\nKeywords:",
    ]
    assert template.digest != load_query_template("keywords").digest
    file.write_text('{"passage": "p"}\n')
    with pytest.raises(UserError, match=r'mine.jsonl:1: lacks "query"'):
        load_query_template("keywords", file)


def test_ones_own_template(tmp_path: Path) -> None:
    (file := tmp_path / "own.yaml").write_text("name: own\nsource: me\nsystem: s\nask: 'Why {passage}?'\n")
    assert load_query_template(str(file)).chat("x") == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "Why x?"},
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("name: a\nsource: b\nsystem: s\nask: no place", "ask: {passage} must stand in it once"),
        ("name: a\nsource: b\nask: '{passage}'", "system: must be given"),
        ("name: a\nsource: b\nsystem: s\nask: '{passage}'\nexample: []", "no setting 'example': did you mean 'examples'"),
        ("name: [", "not YAML"),
    ],
)
def test_a_template_that_is_not_sound_is_refused(tmp_path: Path, text: str, wanted: str) -> None:
    (file := tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError, match=f"own.yaml: {wanted}"):
        load_query_template(str(file))
    with pytest.raises(UserError, match="did you mean 'web-question'"):
        load_query_template("web-questions")
    with pytest.raises(UserError, match="not a template that can be read"):
        load_query_template(str(tmp_path / "nowhere.yaml"))


# ---- what is asked and written


def test_passages_are_chosen_at_random_and_short_ones_never() -> None:
    with Corpus([*DOCUMENTS, Document("short", "too short")]) as corpus:
        first, again, other = (choose(corpus, 4, 2, seed) for seed in (0, 0, 1))
        assert first == again != other
        assert len(first) == 8
        assert [ask.number for ask in first] == [0, 1] * 4
        assert len({ask.seed for ask in first}) == 8
        assert {ask.passage for ask in choose(corpus, 100)} == set(range(8))
        # Asking about more passages asks the same ones first, so that nothing is paid for again.
        assert choose(corpus, 6)[:4] == choose(corpus, 4)
    with Corpus([Document("short", "too short")]) as corpus, pytest.raises(UserError, match="no passage has 8 words"):
        choose(corpus, 1)


def test_what_was_written_is_never_written_again(corpus: Corpus, template: QueryTemplate, tmp_path: Path) -> None:
    asked = choose(corpus, 5)
    scribe = Scribe()
    lines = write(asked, corpus, scribe, template, QueryStore(tmp_path, scribe, template))
    assert [line.split()[3] for line in lines] == [corpus[ask.passage].text.split()[1] for ask in asked]
    again = Scribe()
    assert write(choose(corpus, 7), corpus, again, template, QueryStore(tmp_path, again, template))[:5] == lines
    assert (scribe.wrote, again.wrote) == (5, 2)
    other = load_query_template("keywords")
    write(asked, corpus, again, other, QueryStore(tmp_path, again, other))
    assert again.wrote == 7


def test_a_writer_that_breaks_off_loses_nothing(corpus: Corpus, template: QueryTemplate, tmp_path: Path) -> None:
    asked = choose(corpus, 8)
    whole = write(asked, corpus, Scribe(), template, QueryStore(tmp_path / "whole", Scribe(), template))
    store = QueryStore(tmp_path / "broken", Scribe(), template)
    with pytest.raises(UserError, match="the writer is gone"):
        write(asked, corpus, Scribe(breaks=6), template, store)
    assert len(store.lines()) == 6
    rest = Scribe()
    assert write(asked, corpus, rest, template, store) == whole
    assert rest.wrote == 2


def test_parts_are_kept_on_the_way(
    corpus: Corpus, template: QueryTemplate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_LINES", 3)
    store = QueryStore(tmp_path, Scribe(), template)
    write(choose(corpus, 8), corpus, Scribe(), template, store)
    assert len(list(store.folder.glob("part-*.parquet"))) == 3
    described = json.loads((store.folder / "writer.json").read_text())
    assert described == {"writer": "scribe", "template": template.digest}


def test_a_part_that_is_not_whole_is_named(corpus: Corpus, template: QueryTemplate, tmp_path: Path) -> None:
    store = QueryStore(tmp_path, Scribe(), template)
    (store.folder / "part-0.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"part-0\.parquet: not whole"):
        store.lines()


# ---- what is kept


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('Search query: "how to open a castle"', "how to open a castle"),
        ("1. when does it open?", "when does it open?"),
        ("- Question: when does it open?", "when does it open?"),
        ("“castle hours”", "castle hours"),
        ("query planner of a database", "query planner of a database"),
        ("如何安装", "如何安装"),
        ("castle", ""),
        ("", ""),
        ("?!", ""),
        ("word " * 41, ""),
        ("how to change the output device to change the output device to change the output device", ""),
    ],
)
def test_said_finds_the_query_in_a_line(line: str, wanted: str) -> None:
    assert said(line) == wanted


def test_what_does_not_lead_back_or_comes_again_is_dropped(
    corpus: Corpus, template: QueryTemplate, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = choose(corpus, 6)
    places = [corpus[ask.passage].text.split()[1] for ask in asked]
    lines = [
        f"when does the {places[0]} open",
        f"when does the {places[0]} open",  # to another passage
        "x",
        f"season of {places[3]}",
        template.examples[0].query,
        f"Season  of {places[3]}!",
    ]
    asked[5] = asked[3]
    retrievers = [Bm25Retriever(document.passage for document in corpus)]
    found = keep(asked, lines, corpus, retrievers, template, round_trip=1)
    name = {number: corpus[ask.passage].id for number, ask in enumerate(asked)}
    assert found == [
        Query(f"{name[0]}/0", f"when does the {places[0]} open", name[0]),
        Query(f"{name[3]}/0", f"season of {places[3]}", name[3]),
    ]
    assert (
        "2 of 6 queries are kept: 2 are no queries, 1 do not find their passage, 1 are near duplicates"
        in capsys.readouterr().err
    )
    assert len(keep(asked, lines, corpus, retrievers, template, round_trip=0, near_duplicates=0)) == 4
    with pytest.raises(UserError, match="no query is left"):
        keep(asked[:1], ["x"], corpus, retrievers, template)


@given(
    documents=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    share=st.sampled_from([0, 0.1, 0.25, 0.5]),
    seed=st.integers(0, 3),
)
def test_no_document_has_queries_in_both_parts(documents: list[int], share: float, seed: int) -> None:
    queries = [Query(str(number), "text", f"{document}.md#{number}") for number, document in enumerate(documents)]
    train, test = held_out(queries, share, seed)
    assert sorted([*train, *test], key=lambda query: int(query.id)) == queries
    assert (train, test) == held_out(queries, share, seed)
    if len(set(documents)) >= 10:
        assert not {q.passage.split("#")[0] for q in train if q.passage} & {
            q.passage.split("#")[0] for q in test if q.passage
        }
    biggest = max(documents.count(document) for document in documents)
    assert share * len(queries) <= len(test) <= share * len(queries) + biggest * (share > 0)
