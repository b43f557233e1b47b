"""Documents to passages: nothing lost, nothing too long, headings as titles, each format read."""

from __future__ import annotations

import sys
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from distilrank.data.corpus import Document
from distilrank.data.passages import passages, sections
from distilrank.errors import UserError
from distilrank.rows import BadLines

SENTENCES = st.lists(st.sampled_from(tiny.WORDS), min_size=1, max_size=9)
PARAGRAPHS = st.lists(st.lists(SENTENCES, min_size=1, max_size=4), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny.words_tokenizer()


def length(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def cut(folder: Path, tokenizer: Any, tokens: int = 64, overlap: int = 0, **options: Any) -> list[Document]:
    return list(passages(folder, tokenizer, tokens, overlap, **options))


def written(folder: Path, **files: str | bytes) -> Path:
    """A folder with these files; `__` in a name stands for its dot, `_` for a slash."""
    for name, content in files.items():
        path = folder / name.replace("__", ".").replace("_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@settings(max_examples=20)
@given(paragraphs=PARAGRAPHS, tokens=st.integers(16, 40))
def test_every_letter_is_in_one_passage_in_order_and_none_is_too_long(
    tokenizer: Any, tmp_path_factory: pytest.TempPathFactory, paragraphs: list[list[list[str]]], tokens: int
) -> None:
    numbers = count()  # no two words alike, since a text that occurs again is left out
    words = [[[f"{word}{next(numbers)}" for word in words] for words in sentences] for sentences in paragraphs]
    text = "\n\n".join(" ".join(" ".join(words).capitalize() + "." for words in sentences) for sentences in words)
    found = cut(written(tmp_path_factory.mktemp("docs"), a__txt=text), tokenizer, tokens)
    assert "".join("".join(document.text for document in found).split()) == "".join(text.split())
    assert all(length(tokenizer, document.passage) <= tokens for document in found)
    assert [document.id for document in found] == [f"a.txt#{number}" for number in range(len(found))]


def test_overlap_repeats_the_end_of_the_passage_before(tokenizer: Any, tmp_path: Path) -> None:
    text = " ".join(f"{word} {number}." for number, word in enumerate(tiny.WORDS))
    found = cut(written(tmp_path, a__txt=text), tokenizer, 24, 8)
    for one, other in pairwise(found):
        shared = [size for size in range(1, 40) if one.text.endswith(other.text[:size])]
        assert shared
        assert length(tokenizer, other.text[: max(shared)]) <= 8


MARKDOWN = """---
title: not shown
---
Before any heading.

# Castle

River stone.

```
# no heading inside code
window
```

## Garden

Silver paper.

Harbour
-------

### Winter *forest*

Candle engine.

# Letter

Summer.
"""


def test_markdown_headings_become_titles(tokenizer: Any, tmp_path: Path) -> None:
    found = cut(written(tmp_path, guide__md=MARKDOWN), tokenizer)
    assert [(document.title, document.text) for document in found] == [
        ("guide", "Before any heading."),
        ("Castle", "River stone.\n\n```\n# no heading inside code\nwindow\n```"),
        ("Castle > Garden", "Silver paper."),
        ("Castle > Harbour > Winter *forest*", "Candle engine."),
        ("Letter", "Summer."),
    ]
    assert found[2].passage == "Castle > Garden\n\nSilver paper."


def test_a_title_takes_at_most_half_of_a_passage(tokenizer: Any, tmp_path: Path) -> None:
    heading = " ".join(tiny.WORDS[:14])
    found = cut(written(tmp_path, a__md=f"# {heading}\n\n## silver\n\nriver stone {heading}"), tokenizer, 16)
    assert {document.title for document in found} == {"silver"}
    assert all(length(tokenizer, document.passage) <= 16 for document in found)


HTML = """<html><head><title>The page</title><style>p { color: red }</style></head><body>
<nav><ul><li>menu</li></ul></nav>
<header><h1>River <b>stone</b></h1></header>
<p>One
  line &amp; more.</p><div>Another<p>nested</p></div>
<h2>Code</h2><pre>a = 1
  b = 2</pre><script>alert(1)</script>
<table><tr><td>left</td><td>right</td></tr></table>
<footer>imprint</footer></body></html>"""


def test_html_is_read_as_it_is_seen(tmp_path: Path) -> None:
    found = sections(written(tmp_path, a__html=HTML) / "a.html")
    assert [section.headings for section in found] == [("River stone",), ("River stone", "Code")]
    assert found[0].text.strip().split("\n\n") == ["One line & more.", "Another", "nested"]
    assert "a = 1\n  b = 2" in found[1].text
    assert not any(word in str(found) for word in ("menu", "imprint", "alert", "color"))


def test_a_docx_is_read_with_its_headings_and_tables(tmp_path: Path) -> None:
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.add_paragraph("Before.")
    document.add_heading("Castle", 1)
    document.add_heading("Garden", 2)
    document.add_paragraph("Silver paper.")
    row = document.add_table(1, 2).rows[0]
    row.cells[0].text, row.cells[1].text = "left", "right"
    document.save(tmp_path / "a.docx")
    found = [(section.headings, section.text.split()) for section in sections(tmp_path / "a.docx")]
    name = found[0][0]
    assert found == [(name, ["Before."]), (("Castle", "Garden"), ["Silver", "paper.", "left", "|", "right"])]


def pdf(*lines: str) -> bytes:
    """A PDF of one page, written out by its rules (ISO 32000): a line of text under the other."""
    shown = " ".join(f"({line}) Tj T*" for line in lines)
    stream = f"BT /F 12 Tf 14 TL 72 720 Td {shown} ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        body += b"%d 0 obj%s endobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(objects) + 1
    return body + b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        count, table, count, len(body)
    )  # fmt: skip


def test_a_pdf_is_read_with_its_broken_words_joined(tmp_path: Path) -> None:
    (section,) = sections(written(tmp_path, paper__pdf=pdf("The har-", "bour is open", "in winter.")) / "paper.pdf")
    assert (section.headings, section.text) == (("paper",), "The harbour is open in winter.")


def test_documents_come_in_the_order_of_their_names_and_once(tokenizer: Any, tmp_path: Path) -> None:
    folder = written(tmp_path, b__txt="stone", a_c__md="river", __hidden_x__txt="window", z__txt="stone", k__json="{}")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.txt").write_text("window")
    assert [(document.id, document.text) for document in cut(folder, tokenizer)] == [
        ("a/c.md#0", "river"),
        ("b.txt#0", "stone"),
        ("z.txt#0", "stone"),  # under another title, so it is another passage
    ]
    (folder / "b.txt").rename(folder / "z.md")
    assert [document.id for document in cut(folder, tokenizer)] == ["a/c.md#0", "z.md#0"]
    assert [document.id for document in cut(folder / "a" / "c.md", tokenizer)] == ["c.md#0"]


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("a.pdf", b"%PDF-1.4 and then nothing", r"a\.pdf: not a \.pdf file that can be read: \w+"),
        ("a.docx", b"no zip", r"a\.docx: not a \.docx file that can be read: \w+"),
        ("a.txt", b"caf\xe9", r"a\.txt: not UTF-8 text \(byte 4\)"),
        ("a.md", b"\xff\xfe", r"a\.md: not UTF-8 text \(byte 1\)"),
    ],
)
def test_a_document_that_cannot_be_read_is_named_or_skipped(
    tokenizer: Any, tmp_path: Path, name: str, content: bytes, wanted: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=wanted):
        cut(tmp_path, tokenizer)
    (tmp_path / "b.txt").write_text("river stone")
    skip = BadLines()
    assert [document.text for document in cut(tmp_path, tokenizer, skip=skip)] == ["river stone"]
    assert list(skip.reasons) == [str(tmp_path / name)]


def test_what_holds_no_text_is_told(tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path, a__txt="  \n", b__md="# \n", c__txt="river")
    assert len(cut(folder, tokenizer)) == 1
    assert "2 of 3 documents without text: a.txt, b.md\n" in capsys.readouterr().err
    (folder / "c.txt").unlink()
    with pytest.raises(UserError, match="no document in it holds text"):
        cut(folder, tokenizer)


@pytest.mark.parametrize(("tokens", "overlap"), [(8, 0), (32, 17), (32, -1)])
def test_sizes_that_make_no_sense_are_refused(tokenizer: Any, tmp_path: Path, tokens: int, overlap: int) -> None:
    with pytest.raises(UserError, match="overlap at most half"):
        cut(written(tmp_path, a__txt="river"), tokenizer, tokens, overlap)


def test_a_place_without_documents_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        cut(tmp_path / "nowhere", tokenizer)
    with pytest.raises(UserError, match=r"no document in it \(they end in \.txt"):
        cut(tmp_path, tokenizer)
    with pytest.raises(UserError, match=r"a document ends in \.txt"):
        cut(written(tmp_path, a__json="{}") / "a.json", tokenizer)


@pytest.mark.parametrize(("library", "name"), [("pypdf", "a.pdf"), ("docx", "a.docx"), ("bs4", "a.html")])
def test_a_library_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, name: str
) -> None:
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=r"pip install 'distilrank\[docs\]'"):
        sections(tmp_path / name)
