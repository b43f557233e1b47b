"""Whatever is wrong in a file is one line that names it, never a traceback: 300 damaged files over all readers."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny
from distilrank.cli import run
from distilrank.data.corpus import read_corpus, read_queries
from distilrank.data.formats import FORMATS
from distilrank.data.passages import _READERS, passages
from distilrank.data.queries import load_query_template
from distilrank.errors import UserError
from distilrank.rows import BadLines

CORPUS = b'{"_id": "d1", "title": "One", "text": "first"}\n{"_id": "d2", "text": "second"}\n'
QUERIES = b'{"_id": "7", "text": "seven"}\n'
JUDGED = b"query-id\tcorpus-id\tscore\n7\td1\t1\n7\td2\t0\n"
TRIPLET = {"anchor": "q", "positive": "a", "negative_1": "b", "negative_2": "c"}


def parquet(row: dict[str, Any]) -> bytes:
    pq.write_table(pa.Table.from_pylist([row] * 2), sink := io.BytesIO())
    return sink.getvalue()


SETS: dict[str, tuple[list[str], dict[str, bytes]]] = {
    "reranking": (["convert", "set.jsonl"], {
        "set.jsonl": b'{"query": "q", "positive": ["a"], "negative": ["b"]}\n'
        b'{"query": "r", "passages": [{"text": "c", "label": 1}]}\n',
    }),
    "parquet": (["convert", "set.parquet"], {
        "set.parquet": parquet({"query": "q", "passages": [{"text": "c", "label": 1}]}),
    }),
    "training-groups": (["convert", "groups.jsonl"], {
        "groups.jsonl": b'{"query": "q", "passages": ["a", "b"], "scores": [1.0, 0.5], "pairs": [[0, 1]], '
        b'"labels": [1, null]}\n',
    }),
    "pairs": (["convert", "pairs.jsonl"], {
        "pairs.jsonl": b'{"query": "q", "passage": "a", "label": 1}\n{"query": "q", "passage": "b", "score": 0.5}\n',
    }),
    "csv": (["convert", "log.csv"], {"log.csv": b"query,passage,label\nq,a,1\nq,b,0\n"}),
    "tsv": (["convert", "log.tsv"], {"log.tsv": b"query\tpassage\tlabel\nq\ta\t1\nq\tb\t0\n"}),
    "flagembedding": (["convert", "flag.jsonl"], {
        "flag.jsonl": b'{"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": [1.5], "neg_scores": [0.5]}\n',
    }),
    "sentence-transformers": (["convert", "triplets.parquet"], {"triplets.parquet": parquet(TRIPLET)}),
    "margins": (["convert", "margins.jsonl"], {
        "margins.jsonl": b'{"query": "q", "positive": "a", "negative": "b", "score": 1.5}\n',
    }),
    "tevatron": (["convert", "tevatron.jsonl"], {
        "tevatron.jsonl": b'{"query_id": "1", "query": "q", "positive_passages": [{"docid": "1", "title": "", "text": "a"}],'
        b' "negative_passages": [{"docid": "2", "title": "", "text": "b"}]}\n',
    }),
    "tevatron by id": (["convert", "ids.jsonl", "--corpus", "docs.jsonl"], {
        "ids.jsonl": b'{"query_id": 7, "query_text": "q", "positive_document_ids": ["d1"], '
        b'"negative_document_ids": ["d2"]}\n',
        "docs.jsonl": b'{"docid": "d1", "title": "One", "text": "first"}\n{"docid": "d2", "text": "second"}\n',
    }),
    "msmarco": (["convert", "triples.tsv"], {"triples.tsv": b"what\ta thing\tno thing\nwhy\tso\tnot so\n"}),
    "msmarco by id": (["convert", "ids.tsv", "--corpus", "collection.tsv", "--queries", "queries.tsv"], {
        "ids.tsv": b"7\td1\td2\n", "collection.tsv": b"d1\tone\nd2\ttwo\n", "queries.tsv": b"7\tseven\n",
    }),
    "msmarco top": (["convert", "top.tsv", "--qrels", "qrels.tsv"], {
        "top.tsv": b"7\td1\tseven\tone\n7\td2\tseven\ttwo\n", "qrels.tsv": b"7\t0\td1\t1\n",
    }),
    "trec": (["convert", "run.txt", "--corpus", "texts.tsv", "--queries", "asked.csv", "--qrels", "qrels.txt"], {
        "run.txt": b"7 Q0 d2 1 9.5 x\n7 Q0 d1 2 8.5 x\n", "texts.tsv": b"d1\tone\nd2\ttwo\n",
        "asked.csv": b"_id,text\n7,seven\n", "qrels.txt": b"7 0 d1 2\n",
    }),
    "beir": (["convert", "."], {"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels/test.tsv": JUDGED}),
    "mteb": (["convert", "."], {
        "corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels/test.tsv": JUDGED,
        "top_ranked.jsonl": b'{"query-id": "7", "corpus-ids": ["d2", "d1"]}\n',
    }),
}  # fmt: skip
"""Good files of each format, told apart by themselves: the command that reads them, and what they hold."""
JUNK = [
    b"", b"\x00", b"\xff\xfe", b"{", b"}", b"[]", b"null", b"NaN", b"1e999", b'"', b"\t", b",", b"\n\n",
    b"\xf0\x9f", b"-1", b"true",
    b"\\ud800", b"&#x110000;", b"<!--", b"<![CDATA[",
    b"/Kids[2 0 R]", b"9999999999999999999999", b"#" * 7,
]  # fmt: skip


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes with a few taken out, put in, doubled or cut off."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.randint(1, 12))
        junk = data[:at] + rng.choice(JUNK) + data[at:]
        data = rng.choice([data[:at] + data[to:], junk, data[:to] + data[at:], data[:at]])
    return data


def packed(rng: random.Random, data: bytes, ending: str) -> bytes:
    """Compressed, one time in three without its end or with a byte changed."""
    whole = bytearray(gzip.compress(data) if ending == ".gz" else pa.compress(data, codec="zstd", asbytes=True))
    change = rng.randrange(6)
    if change == 0:
        del whole[-rng.randint(1, 12) :]
    elif change == 1:
        whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
    return bytes(whole)


def test_every_format_is_tried() -> None:
    assert set(FORMATS) <= set(SETS)
    assert set(DOCUMENTS) == set(_READERS)


def test_damaged_sets_end_in_a_line_or_in_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rng, refused = random.Random(7), 0
    for number in range(8 * len(SETS)):
        command, files = list(SETS.values())[number % len(SETS)]
        (folder := tmp_path / str(number)).mkdir()
        monkeypatch.chdir(folder)
        spoilt = rng.choice(sorted(files))
        for name, content in files.items():
            data = damaged(rng, content) if name == spoilt else content
            ending = rng.choice(["", "", ".gz", ".zst"]) if name == spoilt and not name.endswith(".parquet") else ""
            Path(name).parent.mkdir(exist_ok=True)
            Path(name + ending).write_bytes(packed(rng, data, ending) if ending else data)
            command = [f"{name}{ending}" if word == name else word for word in command]
        code = run([*command, "-o", "made.jsonl"])
        said = capfd.readouterr()
        assert code in (0, 2), (command, said.err)
        assert "Traceback" not in said.out + said.err
        if code == 2:
            refused += 1
            (line,) = (line for line in said.err.splitlines() if line.startswith("error: "))
            # Two texts of one id are told by what they are: `the corpus has two texts with the id "d1"`.
            assert any(name in line for name in (*files, "two texts with the id", "no folder of BEIR", "no qrels")), line
            assert not Path("made.jsonl").exists()
    assert 40 < refused < 8 * len(SETS)


# ---- documents, corpora, queries, examples

HTML = (
    b"<html><head><title>T</title></head><body><h1>River</h1><p>stone &amp; <b>paper</b></p><pre>a\n b</pre>"
    b"<table><tr><td>x</td></tr></table><!-- not seen --></body></html>"
)
MARKDOWN = (
    b"---\na: b\n---\n# River\n\nstone\n\n```\n# code\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nHarbour\n---\n\nwindow\n"
)


def docx() -> bytes:
    made = pytest.importorskip("docx").Document()
    made.add_heading("River", 1)
    made.add_paragraph("stone")
    made.add_table(1, 2).rows[0].cells[0].text = "left"
    made.save(sink := io.BytesIO())
    return sink.getvalue()


def pdf() -> bytes:
    from test_passages import pdf

    return pdf("The har-", "bour is open")


DOCUMENTS = {".txt": lambda: b"river stone\n", ".md": lambda: MARKDOWN, ".markdown": lambda: MARKDOWN}
DOCUMENTS |= {".html": lambda: HTML, ".htm": lambda: HTML, ".pdf": pdf, ".docx": docx}


def spoilt_docx(rng: random.Random, whole: bytes) -> bytes:
    """Half of the time a part of the archive is damaged, and not the archive."""
    if rng.random() < 0.5:
        return damaged(rng, whole)
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(sink, "w") as target:
        parts = ["word/document.xml", "word/styles.xml", "[Content_Types].xml", "_rels/.rels", "docProps/core.xml"]
        part = rng.choice(parts)
        for name in source.namelist():
            target.writestr(name, damaged(rng, source.read(name)) if name == part else source.read(name))
    return sink.getvalue()


def told(where: Path, read: Iterator[Any]) -> bool:
    """Whether a reader refuses a file, by a line that names it; whatever else it raises fails the test."""
    why = ""
    try:
        for _ in read:
            pass
    except UserError as error:
        why = str(error)
    assert not why or (where.name in why and "\n" not in why), why
    return bool(why)


def read_examples(file: Path) -> Iterator[Any]:
    yield load_query_template("code", file)


def test_damaged_documents_are_named_or_cut(tmp_path: Path) -> None:
    rng, tokenizer, refused = random.Random(8), tiny.words_tokenizer(), set()
    good = {ending: make() for ending, make in DOCUMENTS.items()}
    for number in range(15 * len(good)):
        ending = sorted(good)[number % len(good)]
        file = tmp_path / f"{number}{ending}"
        file.write_bytes((spoilt_docx if ending == ".docx" else damaged)(rng, good[ending]))
        if told(file, passages(file, tokenizer, 64)):
            refused.add(ending)
            skip = BadLines()
            assert told(file, passages(file, tokenizer, 64, skip=skip))  # nothing else is there to be cut
    assert {".txt", ".md", ".pdf", ".docx"} <= refused


@pytest.mark.parametrize("read", [read_corpus, read_queries, read_examples])
def test_damaged_corpora_queries_and_examples_are_named_or_read(tmp_path: Path, read: Any) -> None:
    rng, refused = random.Random(9), 0
    row = b'{"_id": "d1", "title": "t", "text": "one", "passage": "p", "query": "q"}\n'
    for number in range(20):
        ending = rng.choice(["", ".gz", ".zst"])
        file = tmp_path / f"{number}.jsonl{ending}"
        data = damaged(rng, row * 2)
        file.write_bytes(packed(rng, data, ending) if ending else data)
        refused += told(file, read(file))
    assert refused > 3
