"""Each format gives back the groups that were written in it; each is read as its own tool writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.data.formats import FORMATS, Parts, convert, read_any_groups, read_items, write_items
from distilrank.data.formats.item import Item
from distilrank.errors import UserError
from distilrank.records import Group, Passage, read_groups, write_groups
from distilrank.rows import BadLines

ENDINGS = {
    "reranking": ("jsonl", "jsonl.gz", "parquet"),
    "flagembedding": ("jsonl", "parquet"),
    "tevatron": ("jsonl", "parquet"),
    "sentence-transformers": ("jsonl", "parquet", "csv", "tsv"),
    "pairs": ("jsonl", "parquet", "csv", "tsv"),
    "beir": ("",),
    "mteb": ("",),
    "trec": ("",),
}
CASES = [(name, ending) for name, endings in ENDINGS.items() for ending in endings]
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() == text and text
)


@st.composite
def sets(draw: Any) -> list[Group]:
    """Queries with at least one positive and one negative, as every training format can hold them."""
    groups = []
    for number, query in enumerate(draw(st.lists(TEXTS, min_size=1, max_size=4, unique=True))):
        texts = draw(st.lists(TEXTS, min_size=2, max_size=5, unique=True))
        count = draw(st.integers(1, len(texts) - 1))
        groups.append(Group(str(number), query, tuple(Passage(t, label=int(i < count)) for i, t in enumerate(texts))))
    return groups


def content(groups: Any) -> dict[str, set[tuple[str, int]]]:
    """Each query's passages with their labels; ids and places are a format's own."""
    return {group.query: {(p.text, int(bool(p.label))) for p in group.passages} for group in groups}


@pytest.mark.parametrize(("name", "ending"), CASES)
@settings(max_examples=12)
@given(groups=sets())
def test_what_is_written_is_read_again(tmp_path_factory: Any, name: str, ending: str, groups: list[Group]) -> None:
    path = tmp_path_factory.mktemp("set") / (f"data.{ending}" if ending else "data")
    assert write_items(path, map(Item, groups), name) > 0
    assert content(read_any_groups([path])) == content(groups)  # the format is told by the file alone
    assert content(item.group for item in read_items([path], name)) == content(groups)


def test_every_format_is_tried() -> None:
    assert set(ENDINGS) | {"training-groups", "msmarco"} == set(FORMATS)


def test_training_groups_keep_scores_pairs_and_labels(tmp_path: Path) -> None:
    group = Group("0", "q", (Passage("a", label=1), Passage("b"), Passage("c", label=0)))
    write_items(tmp_path / "g.jsonl", [Item(group, (2.0, -1.5, 0.25), ((0, 1),))], "training-groups")
    (item,) = read_items([tmp_path / "g.jsonl"])
    assert (item.scores, item.pairs) == ((2.0, -1.5, 0.25), ((0, 1),))
    assert [passage.label for passage in item.group.passages] == [1, None, 0]


def test_mined_margins_reach_other_trainers_and_come_back(tmp_path: Path) -> None:
    group = Group("0", "q", (Passage("a"), Passage("b"), Passage("c")))
    write_items(tmp_path / "groups.jsonl", [Item(group, (2.0, -1.5, 0.25))], "training-groups")
    convert([tmp_path / "groups.jsonl"], tmp_path / "triplets.jsonl", write_as="sentence-transformers")
    rows = [json.loads(line) for line in (tmp_path / "triplets.jsonl").read_text().splitlines()]
    found = {(row["positive"], row["negative"]): next(v for v in row.values() if isinstance(v, float)) for row in rows}
    assert found == {("a", "b"): 3.5, ("a", "c"): 1.75, ("c", "b"): 1.75}
    convert([tmp_path / "groups.jsonl"], tmp_path / "flag.jsonl", write_as="flagembedding")
    flag = json.loads((tmp_path / "flag.jsonl").read_text())
    assert (flag["pos"], flag["pos_scores"]) == (["a"], [2.0])
    assert dict(zip(flag["neg"], flag["neg_scores"], strict=True)) == {"b": -1.5, "c": 0.25}


def test_ms_marco_triples_and_collections(tmp_path: Path) -> None:
    (tmp_path / "triples.tsv").write_text("what is it\ta thing\tno thing\nwhat is it\ta thing\tanother\n")
    assert content(read_any_groups([tmp_path / "triples.tsv"])) == {
        "what is it": {("a thing", 1), ("no thing", 0), ("another", 0)}
    }


def test_a_trec_run_with_its_texts_and_labels(tmp_path: Path) -> None:
    (tmp_path / "run.txt").write_text("7 Q0 d2 1 9.5 x\n7 Q0 d1 2 8.5 x\n")
    (tmp_path / "collection.tsv").write_text("d1\tfirst text\nd2\tsecond text\n")
    (tmp_path / "queries.tsv").write_text("7\twhich one\n")
    (tmp_path / "qrels.txt").write_text("7 0 d1 2\n")
    parts = Parts(corpus=tmp_path / "collection.tsv", queries=tmp_path / "queries.tsv", qrels=tmp_path / "qrels.txt")
    (group,) = read_any_groups([tmp_path / "run.txt"], parts)
    assert [(p.text, p.label, p.rank) for p in group.passages] == [("second text", None, 1), ("first text", 2, 2)]
    with pytest.raises(UserError, match="add --corpus and --queries"):
        list(read_any_groups([tmp_path / "run.txt"]))


def test_columns_are_told_and_a_query_of_duckdb_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("question,doc,clicked\nwhy,because,1\nwhy,never,0\n")
    parts = Parts(columns={"query": "question", "passage": "doc", "label": "clicked"})
    expected = {"why": {("because", 1), ("never", 0)}}
    assert content(read_any_groups([tmp_path / "log.csv"], parts)) == expected
    sql = f"duckdb:SELECT question AS query, doc AS passage, clicked AS label FROM '{tmp_path / 'log.csv'}'"
    assert content(read_any_groups(sql)) == expected
    with pytest.raises(UserError, match=r"log.csv:2: no known format has these columns.*--column query=NAME"):
        list(read_any_groups([tmp_path / "log.csv"]))


def real_groups(real_data: Path, name: str, path: Path, most: int) -> list[Group]:
    """A real set's queries with positives and negatives, written as a reranking set."""
    whole = read_groups(real_data / name / "test.jsonl", BadLines())
    groups = list(islice((g for g in whole if {bool(p.label) for p in g.passages} == {False, True}), most))
    write_groups(path, groups)
    return groups


def merged(groups: Iterable[Group]) -> dict[str, set[tuple[str, int]]]:
    """The same as `content`, rows of one query taken together, spaces apart."""
    found: dict[str, set[tuple[str, int]]] = {}
    for group in groups:
        passages = {(" ".join(p.text.split()), int(bool(p.label))) for p in group.passages}
        found.setdefault(" ".join(group.query.split()), set()).update(passages)
    return found


@pytest.mark.parametrize("name", ["askubuntu_dup", "cosqa", "epqa", "trecqa", "xquadr_zh"])
def test_real_sets_go_through_every_format(name: str, real_data: Path, tmp_path: Path) -> None:
    groups = real_groups(real_data, name, tmp_path / "set.jsonl", 60)
    scored = [Item(group, tuple(float(place) for place in range(len(group.passages)))) for group in groups]
    write_items(tmp_path / "set.groups.jsonl", scored, "training-groups")
    more = [("msmarco", "tsv"), ("msmarco", "tsv.gz"), ("training-groups", "parquet")]
    for number, (form, ending) in enumerate([*CASES, *more]):
        path = tmp_path / (f"{number}.{ending}" if ending else str(number))
        convert([tmp_path / ("set.groups.jsonl" if form == "training-groups" else "set.jsonl")], path, write_as=form)
        assert merged(read_any_groups([path])) == merged(groups), form
    assert [item.scores for item in read_items([path], margins=True)] == [item.scores for item in scored]


def test_a_real_set_is_read_by_id_and_out_of_duckdb(real_data: Path, tmp_path: Path) -> None:
    groups = real_groups(real_data, "epqa", tmp_path / "set.jsonl", 40)
    texts = {passage.text: f"d{n}" for n, passage in enumerate(p for group in groups for p in group.passages)}
    places = [(f"q{n}", group, [texts[p.text] for p in group.passages]) for n, group in enumerate(groups)]

    def tsv(name: str, rows: Iterable[Iterable[object]]) -> Path:
        lines = ("\t".join(" ".join(str(field).split()) for field in row) + "\n" for row in rows)
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
        return tmp_path / name

    corpus = tsv("collection.tsv", ((identity, text) for text, identity in texts.items()))
    queries = tsv("queries.tsv", ((identity, group.query) for identity, group, _ in places))
    asked = {q: group.query for q, group, _ in places}
    judged = [(q, ids[n], p) for q, group, ids in places for n, p in enumerate(group.passages)]
    qrels = tsv("qrels.tsv", ((q, 0, identity, p.label) for q, identity, p in judged))
    triples = tsv("ids.tsv", ((q, i, j) for q, i, p in judged if p.label for r, j, n in judged if r == q and not n.label))
    top = tsv("top.tsv", ((q, identity, asked[q], p.text) for q, identity, p in judged))
    run = tsv("run.tsv", ((q, "Q0", i, n, -n, "x") for n, (q, i, _) in enumerate(judged)))
    rows = []
    for identity, group, ids in places:
        row = {"query_id": identity, "query_text": group.query, "positive_document_ids": [], "negative_document_ids": []}
        for n, p in enumerate(group.passages):
            row["positive_document_ids" if p.label else "negative_document_ids"].append(ids[n])
        rows.append(row)
    (tmp_path / "tevatron.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = Parts(corpus=corpus, queries=queries)
    # A text that two queries share has one id, and collections know a text by its id alone: spaces apart, all is there.
    for source, parts in [
        (triples, both), (top, Parts(qrels=qrels)), (run, replace(both, qrels=qrels)), (tmp_path / "tevatron.jsonl", both),
    ]:  # fmt: skip
        assert merged(read_any_groups([source], parts)) == merged(groups), source.name
    convert([tmp_path / "set.jsonl"], tmp_path / "pairs.parquet", write_as="pairs")
    select = f"duckdb:SELECT query, passage, label FROM '{tmp_path}/pairs.parquet'"
    assert merged(read_any_groups(select)) == merged(groups)


def test_other_tools_own_readers_see_what_was_written(real_data: Path, tmp_path: Path) -> None:
    import datasets
    import ir_measures

    groups = real_groups(real_data, "trecqa", tmp_path / "set.jsonl", 20)
    positives, pairs = 0, 0
    for form in ("trec", "sentence-transformers", "flagembedding", "tevatron"):
        convert([tmp_path / "set.jsonl"], tmp_path / (form if form == "trec" else f"{form}.jsonl"), write_as=form)
    for group in groups:
        labels = [bool(p.label) for p in group.passages]
        positives += sum(labels)
        pairs += sum(labels) * (len(labels) - sum(labels))
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "trec/qrels.txt")))
    assert (len({line.query_id for line in qrels}), sum(line.relevance for line in qrels)) == (len(groups), positives)
    run = {(line.query_id, line.doc_id): line.score for line in ir_measures.read_trec_run(str(tmp_path / "trec/run.txt"))}
    assert len(run) == sum(len(group.passages) for group in groups)

    def opened(form: str) -> Any:
        where = {"data_files": str(tmp_path / f"{form}.jsonl"), "cache_dir": str(tmp_path / "cache")}
        return datasets.load_dataset("json", split="train", **where)

    triplets = opened("sentence-transformers")
    assert (triplets.column_names, len(triplets)) == (["query", "positive", "negative"], pairs)
    assert [len(row["pos"]) + len(row["neg"]) for row in opened("flagembedding")] == [len(g.passages) for g in groups]
    assert [row["positive_passages"][0]["text"] for row in opened("tevatron")] == [
        next(p.text for p in group.passages if p.label) for group in groups
    ]


def test_a_beir_corpus_has_a_title_for_beirs_own_loader(tmp_path: Path) -> None:
    write_items(tmp_path / "b", [Item(Group("7", "q", (Passage("a", label=1), Passage("b", label=0))))], "beir")
    rows = [json.loads(line) for line in (tmp_path / "b/corpus.jsonl").read_text().splitlines()]
    # As beir 2.2.0 (retrieval/models) joins them; a title of none would be an error there.
    assert [(row["title"] + " " + row["text"]).strip() for row in rows] == ["a", "b"]


# ---- texts by id, texts in a database


def by_id(folder: Path, *rows: dict[str, Any]) -> Path:
    """Tevatron's newer layout: rows with ids beside a corpus, here a folder of two files."""
    (folder / "corpus").mkdir(exist_ok=True)
    for number, (identity, title, text) in enumerate([("d1", "", "one"), ("d2", "Two", "second")]):
        line = json.dumps({"docid": identity, "title": title, "text": text, "image": None})
        (folder / f"corpus/part-{number}.jsonl").write_text(line + "\n")
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


ROW = {
    "query_id": 7,
    "query_text": "q",
    "query_image": None,
    "positive_document_ids": ["d2"],
    "negative_document_ids": ["d1"],
    "answer": None,
    "source": "made up",
}


def test_tevatrons_rows_that_name_passages_by_id_take_the_texts_of_its_corpus(tmp_path: Path) -> None:
    file = by_id(tmp_path, ROW)
    (group,) = read_any_groups([file], Parts(corpus=tmp_path / "corpus"))
    assert (group.query_id, group.query) == ("7", "q")
    assert [(p.id, p.text, p.label) for p in group.passages] == [("d2", "Two\n\nsecond", 1), ("d1", "one", 0)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"negative_document_ids": ["d9"]}, 'the passage "d9" has no text in the corpus'),
        ({"negative_document_ids": ["d2"]}, "the passage 'd2' is both positive and negative"),
        ({"query_text": None}, "query_text is null, not a text"),
        ({"positive_document_ids": "d2"}, '"positive_document_ids" is a text, not a list'),
    ],
)
def test_what_is_wrong_with_such_a_row_is_told(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    file = by_id(tmp_path, ROW, ROW | {"query_id": 8} | change)
    with pytest.raises(UserError) as caught:
        list(read_any_groups([file], Parts(corpus=tmp_path / "corpus")))
    assert f"{file}:2" in str(caught.value)
    assert told in str(caught.value)
    with pytest.raises(UserError, match="add --corpus"):
        list(read_any_groups([file]))


def test_a_table_of_sqlite_is_read_by_duckdbs_extension_or_the_extension_is_named(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "d.db") as database:
        database.execute("CREATE TABLE pairs (query TEXT, passage TEXT, label INTEGER)")
        database.executemany("INSERT INTO pairs VALUES (?, ?, ?)", [("q", "a", 1), ("q", "b", 0)])
    database.close()
    query = f"duckdb:ATTACH '{tmp_path}/d.db' AS d (TYPE sqlite, READ_ONLY); SELECT * FROM d.pairs"
    told, groups = "", []
    try:
        groups = list(read_any_groups(query, offline=True))
    except UserError as error:
        told = str(error)
    if told:
        # DuckDB before 1.4 names it by its other name.
        assert re.search(r"its extension (sqlite\w*) is not on this machine: run the query INSTALL \1 once", told)
        pytest.skip("DuckDB's sqlite extension is not on this machine")
    (group,) = groups
    assert [(p.text, p.label) for p in group.passages] == [("a", 1), ("b", 0)]
