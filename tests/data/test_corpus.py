"""Corpus and query files there and back, and a corpus on disk read by number."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.data.corpus import Corpus, Document, Query, read_corpus, read_queries, write_corpus, write_queries
from distilrank.errors import UserError
from distilrank.rows import BadLines

TEXTS = st.text(min_size=1, max_size=20).filter(
    lambda text: text.strip() and text.encode("utf-8", "replace").decode() == text
)
DOCUMENTS = st.lists(st.builds(Document, TEXTS, TEXTS, st.one_of(st.just(""), TEXTS)), min_size=1, max_size=6)
QUERIES = st.lists(st.builds(Query, TEXTS, TEXTS, st.one_of(st.none(), TEXTS)), min_size=1, max_size=6)
ENDINGS = st.sampled_from(["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])


@settings(max_examples=40)
@given(documents=DOCUMENTS, queries=QUERIES, ending=ENDINGS)
def test_files_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, documents: list[Document], queries: list[Query], ending: str
) -> None:
    folder = tmp_path_factory.mktemp("files")
    assert write_corpus(folder / f"corpus.{ending}", documents) == len(documents)
    assert list(read_corpus(folder / f"corpus.{ending}")) == documents
    assert write_queries(folder / f"queries.{ending}", queries) == len(queries)
    assert list(read_queries(folder / f"queries.{ending}")) == queries


@settings(max_examples=40)
@given(documents=DOCUMENTS, data=st.data())
def test_a_corpus_on_disk_is_the_list_it_was_made_of(documents: list[Document], data: st.DataObject) -> None:
    with Corpus(documents) as corpus:
        assert len(corpus) == len(documents)
        assert list(corpus) == documents
        number = data.draw(st.integers(0, len(documents) - 1))
        assert corpus[number] == documents[number]


def test_what_is_read_is_title_blank_line_text() -> None:
    assert Document("1", "text", "title").passage == "title\n\ntext"
    assert Document("1", "text").passage == "text"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"text": "a"}', 'lacks "_id"'),
        ('{"_id": "1"}', 'lacks "text"'),
        ('{"_id": "1", "text": ""}', "text is an empty text"),
        ('{"_id": "1", "text": "a", "title": 3}', "title is a number, not a text"),
        ('{"_id": [], "text": "a"}', "_id is a list, not a text"),
    ],
)
def test_a_bad_row_is_named_or_skipped(tmp_path: Path, line: str, why: str) -> None:
    (path := tmp_path / "corpus.jsonl").write_text(f'{{"_id": 7, "text": "good", "more": 1}}\n{line}\n')
    with pytest.raises(UserError, match=f"corpus.jsonl:2: {why}"):
        list(read_corpus(path))
    skip = BadLines()
    assert list(read_corpus(path, skip)) == [Document("7", "good")]
    assert skip.reasons == {f"{path}:2": why}
