"""What collections are made of: texts by id, judgements (qrels), and where the files of a folder lie."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilrank.data.formats.item import Item
from distilrank.data.formats.tables import kind, table_rows, text_lines
from distilrank.errors import UserError
from distilrank.rows import BadLines, BadRow, Row, checked_name, checked_text, kind_of, refuse, shortened

_IDS = ("_id", "id", "docid", "pid", "qid", "query_id")
_TEXTS = ("text", "contents", "query", "passage")
ENDINGS = (".jsonl", ".parquet", ".tsv", ".csv", ".json")
_SPLIT = re.compile(r"(?P<split>[A-Za-z_]+?)(-\d+-of-\d+)?$")


@dataclass(frozen=True, slots=True)
class Judgement:
    """A line of qrels: the grade of a passage for a query; grades below 0 (spam) become 0."""

    where: str
    query_id: str
    id: str
    label: int


def titled(row: Row, where: str = "") -> str:
    """A passage as teacher and student read it: title, blank line, text. Empty where both are. Raises `BadRow`."""
    inside = f"{where}." if where else ""
    key = next((key for key in _TEXTS if key in row), "text")
    parts = []
    for name in ("title", key):
        value = row.get(name) or ""
        if not isinstance(value, str):
            raise BadRow(f"{inside}{name} is {kind_of(value)}, not a text")
        parts += [checked_text(value, f"{inside}{name}")] if value.strip() else []
    return "\n\n".join(parts)


def read_texts(files: Sequence[Path], skip: BadLines | None) -> Iterator[tuple[str, str]]:
    """Ids and texts of a corpus or of queries: JSON lines, Parquet or CSV with `_id`, `title`, `text`, or plain TSV.

    TSV has no header here; the usual other names of the columns are known, too.
    """
    for path in files:
        if kind(path) == ".tsv":
            yield from _tsv_texts(path, skip)
            continue
        for where, row in table_rows([path], {}, skip):
            key = next((key for key in _IDS if key in row), "_id")
            try:
                identity = checked_name(row.get(key), key)
                if identity is None:
                    raise BadRow(f'lacks "{key}"')
                yield identity, titled(row)
            except BadRow as bad:
                refuse(where, str(bad), skip)


def read_qrels(files: Sequence[Path], skip: BadLines | None) -> Iterator[Judgement]:
    """Judgements: TREC's four columns, BEIR's three with a header, or a table with `query-id`, `corpus-id`, `score`."""
    for path in files:
        if kind(path) in (".jsonl", ".parquet", ".json"):
            for where, row in table_rows([path], {}, skip):
                query_id, identity, label = (row.get(key) for key in ("query-id", "corpus-id", "score"))
                if query_id is None or identity is None or label is None:
                    refuse(where, 'a judgement has "query-id", "corpus-id" and "score"', skip)
                else:
                    yield from _judgement(where, str(query_id), str(identity), str(label), skip)
            continue
        for number, line in enumerate(text_lines(path), start=1):
            fields = line.split("\t") if "\t" in line else line.split()
            fields = [field.strip() for field in fields]
            if not any(fields) or (number == 1 and fields[-1].lower() in ("score", "rel", "relevance", "label")):
                continue
            if len(fields) not in (3, 4):
                refuse(f"{path}:{number}", f"{len(fields)} fields, not the 4 of TREC's qrels or the 3 of BEIR's", skip)
            else:
                yield from _judgement(f"{path}:{number}", fields[0], fields[-2], fields[-1], skip)


def find(folder: Path, name: str, split: str | None = None) -> list[Path]:
    """The files of a part of a folder: `name.jsonl`, or those in the folder `name`, of a split where there are several."""
    single = [path for path in sorted(folder.glob(f"{name}.*")) if path.is_file() and kind(path) in ENDINGS]
    if single:
        return single[:1]
    inside = [path for path in sorted((folder / name).glob("*")) if path.is_file() and kind(path) in ENDINGS]
    splits: dict[str, list[Path]] = {}
    for path in inside:
        match = _SPLIT.match(path.name.removesuffix("".join(path.suffixes[-2:])).removesuffix(kind(path)))
        splits.setdefault(match["split"] if match else path.name, []).append(path)
    if len(splits) > 1 and split not in splits:
        raise UserError(f"{folder / name}: there are several splits, choose one with --split: {', '.join(sorted(splits))}")
    return splits.get(split or "", inside)


def text_files(path: Path) -> list[Path]:
    """A file of texts, or all of a folder's. Raises `UserError` where it has none."""
    if not path.is_dir():
        return [path]
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and kind(file) in ENDINGS]
    if not files:
        raise UserError(f"{path}: no file in it that ends in {', '.join(ENDINGS)}")
    return files


def needed(folder: Path, name: str, split: str | None = None) -> list[Path]:
    """The same, where they must be there."""
    files = find(folder, name, split)
    if not files:
        raise UserError(f"{folder}: no {name}.jsonl and no folder {name}/ with files in it")
    return files


def write_collection(folder: Path, items: Iterable[Item]) -> Iterator[tuple[Item, str, list[str]]]:
    """Write `corpus.jsonl` and `queries.jsonl` while the items pass through, with each one's query id and passage ids.

    A passage keeps its id; one without gets `p<number>`, the same for the same text. Raises `UserError` where two texts
    have one id, or an id has a space in it.
    """
    given: dict[bytes, str] = {}
    known: dict[str, dict[str, bytes]] = {"corpus": {}, "queries": {}}
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / f"{name}.jsonl").open("w", encoding="utf-8")) for name in known}

        def add(name: str, identity: str, text: str, content: bytes) -> None:
            if not identity or any(letter.isspace() for letter in identity):
                raise UserError(f"the id {shortened(identity)} has a space in it, which this format cannot hold")
            if identity not in known[name]:
                known[name][identity] = content
                # BEIR's own loader joins title and text, so a passage must have one, if empty.
                row = {"_id": identity, **({"title": ""} if name == "corpus" else {}), "text": text}
                files[name].write(json.dumps(row, ensure_ascii=False) + "\n")
            elif known[name][identity] != content:
                raise UserError(f"two of the {name} have the id {shortened(identity)}: the second is {shortened(text)}")

        for number, item in enumerate(items):
            query_id = item.group.query_id or str(number)
            add("queries", query_id, item.group.query, str(number).encode())
            ids = []
            for passage in item.group.passages:
                content = hashlib.sha256(passage.text.encode()).digest()[:16]
                identity = passage.id or given.setdefault(content, f"p{len(given)}")
                add("corpus", identity, passage.text, content)
                ids.append(identity)
            yield item, query_id, ids


def _tsv_texts(path: Path, skip: BadLines | None) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text_lines(path), start=1):
        fields = line.rstrip("\r\n").split("\t")
        if fields == [""]:
            continue
        if len(fields) not in (2, 3) or not fields[0].strip():
            refuse(f"{path}:{number}", f"{len(fields)} fields, not an id, a tab and a text (or a title in between)", skip)
        else:
            yield fields[0], titled({"title": fields[1] if len(fields) == 3 else "", "text": fields[-1]})


def _judgement(where: str, query_id: str, identity: str, label: str, skip: BadLines | None) -> Iterator[Judgement]:
    try:
        grade: Any = float(label)
        whole = int(grade)
    except (ValueError, OverflowError):
        grade, whole = None, 0
    if grade != whole or not query_id or not identity:
        refuse(where, f"a judgement is a query's id, a passage's id and a whole number, not {shortened(label)}", skip)
    else:
        yield Judgement(where, query_id, identity, max(0, min(whole, 2**31)))
