"""Documents to passages: a folder of .txt, .md, .html, .pdf and .docx becomes a corpus.

A document is cut at its headings, and what stands under a heading at the largest units that fit: paragraphs, sentences,
words (semantic-text-splitter). The headings become the passage's title.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from distilrank.data.corpus import Document
from distilrank.errors import UserError
from distilrank.progress import bar, say
from distilrank.rows import BadLines

FEWEST_TOKENS = 16
LEAVE_OUT = "--skip-bad-documents, in a recipe data.skip_bad_lines"
_HEADING = "\0"
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_BLOCKS = re.compile(
    "address|article|aside|blockquote|br|dd|details|div|dl|dt|fieldset|figcaption|figure|h[1-6]|header|hr|li|main|ol|p|pre|"
    "section|summary|table|td|th|tr|ul"
)
_HEADINGS = re.compile("h[1-6]")
_NO_TEXT = re.compile("script|style|template|noscript|nav|footer|aside|form|svg|iframe|head")


@dataclass(frozen=True)
class Section:
    """What stands under a heading; `headings` are those above it, the document's own first."""

    headings: tuple[str, ...]
    text: str


def passages(
    source: Path, tokenizer: Any, tokens: int = 256, overlap: int = 0, skip: BadLines | None = None
) -> Iterator[Document]:
    """The passages of a document, or of the documents in a folder, in the order of their names.

    A passage with its title has at most `tokens` of the tokenizer's tokens (special ones apart); `overlap` of them are
    repeated from the passage before. A text that occurs again is left out. Raises `UserError` when a document cannot be
    read (with `skip` it is counted and left out), or when none holds text.
    """
    if tokens < FEWEST_TOKENS or not 0 <= overlap <= tokens // 2:
        raise UserError(f"tokens must be at least {FEWEST_TOKENS} and overlap at most half of it: {tokens} and {overlap}")
    files = _documents(source)
    seen: set[str] = set()
    without_text = []
    with bar("passages", len(files), "documents") as advance:
        for file in files:
            name = file.relative_to(source).as_posix() if source.is_dir() else file.name
            try:
                found = sections(file)
            except UserError as error:
                if skip is None:
                    raise UserError(f"{error} (or leave such documents out: {LEAVE_OUT})") from None
                skip.reasons[str(file)] = str(error).removeprefix(f"{file}: ")
                found = []
            else:
                without_text += [name] * (not any(section.text.strip() for section in found))
            number = 0
            for title, text in _cut(found, tokenizer, tokens, overlap, markdown=file.suffix.lower() in _MARKDOWN):
                document = Document(f"{name}#{number}", text, title)
                if document.passage not in seen:
                    seen.add(document.passage)
                    yield document
                    number += 1
            advance(1)
    if without_text:
        shown = ", ".join(without_text[:5]) + (", ..." if len(without_text) > 5 else "")
        say(f"  {len(without_text):,} of {len(files):,} documents without text: {shown}")
    if not seen:
        raise UserError(f"{source}: no document in it holds text")


def sections(file: Path) -> list[Section]:
    """A document as sections. Raises `UserError` when it cannot be read, or a library for its format is missing."""
    ending = file.suffix.lower()
    try:
        return _READERS[ending](file)
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start + 1}): save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # on a broken file its library leaves through many doors
        why = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{file}: not a {ending} file that can be read: {why}") from None


def _documents(source: Path) -> list[Path]:
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    known = ", ".join(_READERS)
    if source.is_file():
        if source.suffix.lower() not in _READERS:
            raise UserError(f"{source}: a document ends in {known}")
        return [source]
    inside = sorted(source.rglob("*"), key=lambda file: file.relative_to(source).as_posix())
    files = [file for file in inside if file.suffix.lower() in _READERS and file.is_file()]
    visible = [file for file in files if not any(part.startswith(".") for part in file.relative_to(source).parts)]
    if not visible:
        raise UserError(f"{source}: no document in it (they end in {known})")
    return visible


def _cut(
    found: Iterable[Section], tokenizer: Any, tokens: int, overlap: int, *, markdown: bool
) -> Iterator[tuple[str, str]]:
    """Titles and texts that fit together; a title takes at most half of the tokens."""
    library = _library("semantic_text_splitter", "semantic-text-splitter", "cutting documents")
    kind = library.MarkdownSplitter if markdown else library.TextSplitter

    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    for section in found:
        title = " > ".join(section.headings)
        if length(title) > tokens // 2:
            title = section.headings[-1] if length(section.headings[-1]) <= tokens // 2 else ""
        room = tokens - (length(f"{title}\n\n") if title else 0)
        splitter = kind.from_callback(length, room, min(overlap, room // 2))
        for text in splitter.chunks(section.text):
            if any(map(str.isalnum, text)):
                yield title, text


# ---- formats ----------------------------------------------------------------------------------------------------------


def _plain(file: Path) -> list[Section]:
    return [Section((file.stem,), file.read_text(encoding="utf-8-sig"))]


def _markdown(file: Path) -> list[Section]:
    """Headings as CommonMark sees them, so that a # inside a code block is none."""
    from markdown_it import MarkdownIt

    text = _FRONT_MATTER.sub("", file.read_text(encoding="utf-8-sig"))
    lines = text.splitlines()
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    marked: list[str] = []
    at = 0
    for token, following in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map:
            marked += [*lines[at : token.map[0]], f"{_HEADING}{token.tag[1]} {following.content}"]
            at = token.map[1]
    return _by_heading([*marked, *lines[at:]], file.stem)


def _html(file: Path) -> list[Section]:
    bs4 = _library("bs4", "beautifulsoup4", f"{file}: reading it")
    soup = bs4.BeautifulSoup(file.read_bytes(), "html.parser")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    for tag in _tags(soup, _NO_TEXT):
        tag.decompose()
    for string in soup.find_all(string=True):
        if not isinstance(string, bs4.element.PreformattedString) and string.find_parent("pre") is None:
            string.replace_with(re.sub(r"\s+", " ", string))
    for tag in _tags(soup, _HEADINGS):
        tag.string = f"{_HEADING}{tag.name[1]} {' '.join(tag.get_text().split())}"
    for tag in _tags(soup, _BLOCKS):
        tag.insert_before("\n\n")
        tag.insert_after("\n\n")
    text = re.sub(r"\n[ \t]*\n\s*\n", "\n\n", soup.get_text())
    return _by_heading(text.splitlines(), title or file.stem)


def _tags(soup: Any, names: re.Pattern[str]) -> Any:
    return soup.find_all(lambda tag: names.fullmatch(tag.name))


def _docx(file: Path) -> list[Section]:
    docx = _library("docx", "python-docx", f"{file}: reading it")
    document = docx.Document(str(file))
    lines = []
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            lines += [" | ".join(cell.text.strip() for cell in row.cells) for row in block.rows]
        elif (style := block.style.name if block.style else "").startswith("Heading ") and style[8:].isdigit():
            lines.append(f"{_HEADING}{style[8:]} {block.text}")
        else:
            lines += block.text.splitlines()
        lines.append("")
    return _by_heading(lines, document.core_properties.title or file.stem)


def _pdf(file: Path) -> list[Section]:
    pypdf = _library("pypdf", "pypdf", f"{file}: reading it")
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what goes wrong is told in our words
    reader = pypdf.PdfReader(file)
    pages = [page.extract_text() for page in reader.pages]
    title = reader.metadata.title if reader.metadata else ""
    text = re.sub(r"(\w)-\n(?=[a-z])", r"\1", "\n".join(pages))  # a word broken at the end of a line
    return [Section((title or file.stem,), re.sub(r"(?<=\S)\n(?=\S)", " ", text).strip())]


_MARKDOWN = (".md", ".markdown")
_READERS: dict[str, Callable[[Path], list[Section]]] = {
    ".txt": _plain,
    **dict.fromkeys(_MARKDOWN, _markdown),
    **dict.fromkeys((".html", ".htm"), _html),
    ".pdf": _pdf,
    ".docx": _docx,
}


def _by_heading(lines: Iterable[str], name: str) -> list[Section]:
    """Sections of lines in which a heading is marked with its level; the first headline stands for the name."""
    above: list[tuple[int, str]] = []
    found: list[tuple[tuple[str, ...], list[str]]] = [((name,), [])]
    for line in lines:
        if line.lstrip(" ").startswith(_HEADING):
            level, _, heading = line.strip(f" {_HEADING}").partition(" ")
            above = [*(entry for entry in above if entry[0] < int(level)), (int(level), heading)]
            headings = tuple(text for _, text in above if text)
            found.append((headings if above[0][0] == 1 and headings else (name, *headings), []))
        else:
            found[-1][1].append(line)
    return [Section(headings, text) for headings, of_section in found if (text := "\n".join(of_section)).strip()]


def _library(module: str, package: str, what: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise UserError(f"{what} needs {package}: pip install 'distilrank[docs]'") from None
