"""A set outside the demo's domain: prose of Python's language reference, which every Python carries for `help()`.

Query: the first sentence of a paragraph. Passage: how that paragraph goes on, cut at 400 characters. Another kind of text
than the code that the demo teaches on, though not another field. The same for one Python version.
"""

from __future__ import annotations

import ast
import random
import re
import sysconfig
from functools import cache
from pathlib import Path

import numpy as np

from distilrank.data.bm25 import bm25_index
from distilrank.data.words import words
from distilrank.errors import UserError
from distilrank.records import Group, Passage

MOST_CHARACTERS = 400
REFERENCE_NOTE = (
    "The set outside the domain is prose of Python's language reference: which text goes on after this sentence? It is "
    "another kind of text than what was taught, and not another field."
)


def reference_groups(queries: int, candidates: int) -> list[Group]:
    """At most so many queries: a paragraph's own rest among `candidates` passages, in random order.

    Half of the others are BM25's best, the rest random. The label is 1 for the own rest and 0 for the others. Raises
    `UserError` where this Python came without its reference.
    """
    paragraphs = _paragraphs()
    rng = random.Random("reference")
    index = bm25_index([rest for _, rest in paragraphs])
    groups = []
    for own in rng.sample(range(len(paragraphs)), min(queries, len(paragraphs))):
        best = np.argsort(-index.get_scores(words(paragraphs[own][0])), kind="stable").tolist()
        chosen = [own, *[i for i in best if i != own][: candidates // 2]]
        others = [i for i in range(len(paragraphs)) if i not in chosen]
        chosen += rng.sample(others, min(candidates - len(chosen), len(others)))
        rng.shuffle(chosen)
        passages = tuple(Passage(paragraphs[i][1], id=str(i), label=int(i == own)) for i in chosen)
        groups.append(Group(f"reference-{own}", paragraphs[own][0], passages))
    return groups


def reference_file() -> Path:
    """Where the reference lies; a Python that was cut down may lack it."""
    return Path(sysconfig.get_paths()["stdlib"]) / "pydoc_data/topics.py"


@cache
def _paragraphs() -> list[tuple[str, str]]:
    """First sentence and rest of each paragraph of prose, no text twice."""
    path = reference_file()
    try:
        topics: dict[str, str] = ast.literal_eval(ast.parse(path.read_text(encoding="utf-8")).body[-1].value)  # type: ignore[attr-defined]
    except (OSError, SyntaxError, ValueError, AttributeError) as error:
        raise UserError(f"demo:reference: this Python came without the text of its language reference: {error}") from None
    found: dict[str, str] = {}
    for text in topics.values():
        for block in re.split(r"\n\s*\n", text):
            whole = " ".join(block.split())
            match = re.match(r"(.+?[.!?])\s+(?=[A-Z])(.{80,})", whole)
            if (
                block[:1].isalpha()
                and match
                and 6 <= len(match[1].split()) <= 30
                and not re.search(r"::|->|>>>|\*\*\*|===", whole)
            ):
                sentence, rest = match[1], match[2][:MOST_CHARACTERS]
                if sentence not in found and rest not in found.values():
                    found[sentence] = rest
    return list(found.items())
