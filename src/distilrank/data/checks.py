"""What is wrong with groups, found before a teacher is paid for them: duplicates, leaks, cuts, languages, candidates.

Groups are read once, one at a time. What is kept of them is 8 bytes a passage, the queries' texts, and a sample.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from distilrank.data.cut import Loss, tokens_lost
from distilrank.data.duplicates import THRESHOLD, clusters, plain, shingles
from distilrank.data.words import words
from distilrank.errors import GateError
from distilrank.progress import bar
from distilrank.records import Group
from distilrank.rows import EMPTY, BadLines

SAMPLE = 1_000
"""Languages and cuts are judged by so many queries, or up to twice as many, spread evenly over all."""
SAMPLE_PASSAGES = 100
"""Of a query in the sample, so many passages are looked at."""
SHOWN = 3
_ENDS = (1, 5, 10, 20, 30, 50, 100)
_NAMES = ("1", *(f"{low + 1}-{high}" for low, high in pairwise(_ENDS)), f"over {_ENDS[-1]}")


@dataclass(frozen=True)
class Findings:
    """What `check` found. Examples are texts of the data, at most `SHOWN` of each."""

    queries: int
    passages: int
    empty_texts: int
    """Rows with a query or a passage that is empty, or spaces only; no other command reads such a row."""
    bad_lines: int
    """Rows that are wrong in another way."""
    first_bad_line: str | None
    candidates: dict[str, int]
    """Queries by their number of candidates: `1`, `2-5`, `6-10`, ..."""
    single: int
    """Queries with a single candidate: they teach nothing."""
    repeated_queries: int
    """Rows whose query has been there before, to the letter."""
    exact_duplicates: int
    """Passages that repeat another of their group, but for case, punctuation and spaces."""
    near_duplicates: int
    """Further passages that are nearly another of their group."""
    labelled: int
    """Queries with a positive passage."""
    never_found: int
    """Of them, those whose positives share no word with the query: BM25 finds none at any depth."""
    languages: dict[str, float]
    """Share of a sample's queries, each read with its passages, by language (py3langid); those of at least 1 %."""
    cut: Loss | None
    """What the student's `max_length` cuts off in a sample; none without a tokenizer."""
    leaked: int | None
    """Queries that are, exactly or nearly, also in the other data; none where there is no other."""
    leaks: tuple[tuple[str, str], ...]
    """Examples of them with what they equal there."""
    shared_passages: int | None
    """Passages that are also in the other data: harmless without labels, to be stated where labels are used."""


def check(
    groups: Iterable[Group],
    against: Iterable[Group] | None = None,
    *,
    tokenizer: Any = None,
    max_length: int = 512,
    threshold: float = THRESHOLD,
    bad: BadLines | None = None,
) -> Findings:
    """Look at groups, and at what they share with `against` (test beside train). Nothing is changed.

    `threshold` is the share of common shingles from which two texts are near duplicates; `bad` holds the lines that turn
    out to be no groups while `groups` is read.
    """
    here = _Seen(threshold)
    here.read(groups, "groups")
    there = None
    if against is not None:
        there = _Known()
        there.read(against, "other groups")
    leaks = None if there is None else _leaks(here.queries, there.queries, threshold)
    reasons = bad.reasons if bad else {}
    empty = sum(why.endswith(EMPTY) for why in reasons.values())
    return Findings(
        queries=here.count,
        passages=here.pairs,
        empty_texts=empty,
        bad_lines=len(reasons) - empty,
        first_bad_line=next((f"{where}: {why}" for where, why in reasons.items()), None),
        candidates={name: here.candidates[place] for place, name in enumerate(_NAMES) if here.candidates[place]},
        single=here.candidates[0],
        repeated_queries=here.count - len(here.queries),
        exact_duplicates=here.exact,
        near_duplicates=here.near,
        labelled=here.labelled,
        never_found=here.never_found,
        languages=_languages(here.sample),
        cut=tokens_lost(here.sample, tokenizer, max_length) if tokenizer is not None else None,
        leaked=None if leaks is None else len(leaks),
        leaks=tuple(leaks or ())[:SHOWN],
        shared_passages=None if there is None else len(np.intersect1d(here.passages, there.passages)),
    )


class _Known:
    """What is kept of groups for a comparison with others: each query's text once, 8 bytes a passage."""

    def __init__(self) -> None:
        self.queries: dict[str, None] = {}
        self.passages = array("Q")

    def read(self, groups: Iterable[Group], title: str) -> None:
        with bar(title, None, "queries") as advance:
            for group in groups:
                self.add(group)
                advance(1)

    def add(self, group: Group) -> None:
        self.queries[group.query] = None
        for passage in group.passages:
            self.passages.append(_number(passage.text))


class _Seen(_Known):
    """The same, and what is counted as the groups pass by."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.count = self.pairs = self.exact = self.near = self.labelled = self.never_found = 0
        self.candidates: Counter[int] = Counter()
        """Groups by the place of their number of candidates among `_NAMES`."""
        self.sample: list[Group] = []
        self._step = 1

    def add(self, group: Group) -> None:
        super().add(group)
        if self.count % self._step == 0:
            self.sample.append(replace(group, passages=group.passages[:SAMPLE_PASSAGES]))
            if len(self.sample) > 2 * SAMPLE:
                self.sample, self._step = self.sample[::2], 2 * self._step
        self.count += 1
        self.pairs += len(group.passages)
        self.candidates[sum(len(group.passages) > end for end in _ENDS)] += 1
        exact, near = _duplicates(group, self.threshold)
        self.exact += exact
        self.near += near
        positives = [passage.text for passage in group.passages if passage.label]
        self.labelled += bool(positives)
        # BM25 is above zero wherever a word is shared.
        self.never_found += bool(positives) and set(words(group.query)).isdisjoint(words("\n".join(positives)))


def _number(text: str) -> int:
    """64 bits of a text; among 100 million texts, two are taken for one with a chance of 1 in 4,000."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def in_words(findings: Findings) -> list[tuple[str, str, str]]:
    """The findings as the rows of a short table: what, how much, and what it means. What was not looked at is left out."""
    f = findings

    def share(part: int, whole: int) -> str:
        return f"{part:,} ({part / whole:.1%})" if whole else f"{part:,}"

    rows = [
        ("queries, pairs", f"{f.queries:,}, {f.passages:,}", ""),
        ("candidates a query", ", ".join(f"{name}: {count:,}" for name, count in f.candidates.items()), ""),
        (
            "languages",
            ", ".join(f"{name} {part:.0%}" for name, part in f.languages.items()),
            "of a sample, each query with its passages",
        ),
        ("single candidate", share(f.single, f.queries), "nothing to compare: such queries teach nothing"),
        ("repeated queries", share(f.repeated_queries, f.queries), "the same query in another row"),
        ("exact duplicates", share(f.exact_duplicates, f.passages), "of a passage of the same query"),
        ("near duplicates", share(f.near_duplicates, f.passages), "of a passage of the same query"),
        ("labelled queries", share(f.labelled, f.queries), "with a positive passage"),
    ]
    if f.labelled:
        rows.append(("never found", share(f.never_found, f.labelled), "no word in common with a positive: BM25 is blind"))
    if f.cut:
        cut = share(f.cut.cut, f.cut.passages)
        lost = f.cut.lost / max(1, f.cut.tokens)
        rows.append(("passages cut", cut, f"of a sample; {lost:.1%} of its tokens are lost at max_length"))
    if f.empty_texts:
        rows.append(("empty texts", f"{f.empty_texts:,}", "rows with an empty query or passage: no command reads them"))
    if f.bad_lines:
        rows.append(("bad lines", f"{f.bad_lines:,}", "rows that are wrong in another way"))
    if f.first_bad_line:
        rows.append(("", "", f.first_bad_line))
    if f.leaked is not None:
        rows.append(("queries shared", share(f.leaked, f.queries), "a leak" if f.leaked else ""))
        rows += [("", "", one if one == other else f"{one}  ~  {other}") for one, other in f.leaks]
    if f.shared_passages is not None:
        rows.append(("passages shared", f"{f.shared_passages:,}", "harmless without labels"))
    return rows


def demand_no_leak(findings: Findings) -> None:
    """Raise `GateError` when a query is in both data sets: what is measured on it would not be held out."""
    if findings.leaked:
        one, other = findings.leaks[0]
        shown = f"{one[:60]!r}" + (f" (there {other[:60]!r})" if one != other else "")
        raise GateError(
            f"{findings.leaked:,} queries are also in the other data, like {shown}: make the parts with `distilrank split`, "
            "or allow it with --allow-leak"
        )


def _duplicates(group: Group, threshold: float) -> tuple[int, int]:
    texts = list(dict.fromkeys(plain(passage.text) for passage in group.passages))
    sets = [shingles(text) for text in texts]
    joined: set[int] = set()
    for one, other in combinations(range(len(sets)), 2):
        small, large = sorted((len(sets[one]), len(sets[other])))
        # Two sets are at most as alike as their sizes are.
        if small >= threshold * large and other not in joined:
            common = len(sets[one] & sets[other])
            if common >= threshold * (small + large - common):
                joined.add(other)
    return len(group.passages) - len(texts), len(joined)


def _languages(sample: Sequence[Group]) -> dict[str, float]:
    from py3langid import classify

    # A query alone is often too short to tell.
    texts = [" ".join((group.query, *(passage.text for passage in group.passages)))[:1_000] for group in sample]
    counts = Counter(classify(text)[0] for text in texts)
    return {name: count / len(texts) for name, count in counts.most_common() if count >= 0.01 * len(texts)}


def _leaks(here: Iterable[str], there: Iterable[str], threshold: float) -> list[tuple[str, str]]:
    here, there = list(here), list(there)
    numbers = clusters([*here, *there], threshold).tolist()
    found: dict[int, str] = {}
    for number, query in zip(numbers[len(here) :], there, strict=True):
        found.setdefault(number, query)
    return [(query, found[number]) for number, query in zip(numbers, here, strict=False) if number in found]
