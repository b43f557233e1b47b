"""A reranking set made of Python's standard library: the first sentence of a docstring asks for its function.

Query: the first sentence of a function's docstring. Passage: the function's source without the docstring, cut at 400
characters. Modules are split into train and test, so that no module is in both. The same for one Python version.
"""

from __future__ import annotations

import ast
import hashlib
import random
import re
import sysconfig
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from distilrank.data.bm25 import bm25_index
from distilrank.data.words import words
from distilrank.records import Group, Passage

MOST_CHARACTERS = 400
TEST_SHARE = 0.3
NOTES = [
    "A query's own function is always among its candidates, as with any query that was made from a passage; no label is "
    "used for training otherwise.",
    "BM25 is handicapped: half of the other candidates are its own best hits.",
    "No module of the standard library is in both the training and the test part.",
]
"""What a sceptic should know about figures on this set."""
_SKIPPED = {
    "test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "turtledemo", "_bundled", "__pycache__",
    "_pyrepl", "pydoc_data", "encodings",
}  # fmt: skip
_NO_QUERY = ("test", "internal", "helper", "see ", "todo", "return self", "return repr")


@dataclass(frozen=True)
class Function:
    """A function of the standard library and the sentence that describes it."""

    file: str
    query: str
    passage: str

    @property
    def module(self) -> str:
        """The top-level module it belongs to."""
        return self.file.split("/")[0].removesuffix(".py")


def demo_groups(part: str, queries: int | None, candidates: int, seed: int = 0) -> list[Group]:
    """Groups of the `train` or `test` part: a function's own code among `candidates` passages, in random order.

    Half of the others are BM25's best, a quarter from the same file, the rest random, all of the same part. The label
    is 1 for the function itself and 0 for the others; training never reads it.
    """
    functions = [function for function in _functions() if _in_test(function.module) == (part == "test")]
    rng = random.Random(f"{part} {seed}")
    asked = rng.sample(range(len(functions)), min(queries or len(functions), len(functions)))
    passages = [function.passage for function in functions]
    index = bm25_index(passages)
    groups = []
    for own in asked:
        chosen = [own]
        scores = index.get_scores(words(functions[own].query))
        _add(chosen, np.argsort(-scores, kind="stable")[: candidates + 1].tolist(), candidates // 2)
        same = [i for i, function in enumerate(functions) if function.file == functions[own].file]
        _add(chosen, rng.sample(same, len(same)), candidates // 4)
        _add(chosen, rng.sample(range(len(functions)), 2 * candidates), candidates - len(chosen))
        rng.shuffle(chosen)
        entries = tuple(Passage(passages[i], id=f"{functions[i].file}#{i}", label=int(i == own)) for i in chosen)
        groups.append(Group(f"{part}-{own}", functions[own].query, entries))
    return groups


def _add(chosen: list[int], others: Sequence[int], most: int) -> None:
    chosen += [i for i in others if i not in chosen][:most]


def _in_test(module: str) -> bool:
    return int(hashlib.sha1(module.encode()).hexdigest()[:8], 16) / 2**32 < TEST_SHARE


@cache
def _functions() -> list[Function]:
    queries: set[str] = set()
    passages: set[str] = set()
    found = []
    for function in _described(Path(sysconfig.get_paths()["stdlib"])):
        known = function.query.lower() in queries or function.passage in passages
        if _good(function) and not known:
            queries.add(function.query.lower())
            passages.add(function.passage)
            found.append(function)
    return found


def _good(function: Function) -> bool:
    query = function.query
    return (
        5 <= len(query.split()) <= 25
        and query.isascii()
        and len(function.passage) >= 60
        and not query.lower().startswith(_NO_QUERY)
        and not re.search(r">>>|::|->", query)
    )


def _described(root: Path) -> Iterator[Function]:
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).parts):
        file = path.relative_to(root)
        if any(part in _SKIPPED or part.startswith("config-") for part in file.parts):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        lines = source.splitlines()
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
                continue
            if documentation := ast.get_docstring(node):
                first = node.body[0]
                code = lines[node.lineno - 1 : first.lineno - 1] + lines[first.end_lineno : node.end_lineno]
                kept = [line.rstrip() for line in code if line.strip() and not line.strip().startswith("#")]
                passage = textwrap.dedent("\n".join(kept))[:MOST_CHARACTERS]
                yield Function(file.as_posix(), _first_sentence(documentation), passage)


def _first_sentence(documentation: str) -> str:
    paragraph = " ".join(re.split(r"\n\s*\n", documentation.strip())[0].split())
    match = re.match(r"(.+?[.!?])(?=\s+[A-Z(`\"']|$)", paragraph)
    return (match.group(1) if match else paragraph).strip()
