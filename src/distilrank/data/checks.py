"""What is wrong with groups, found before a teacher is paid for them: duplicates, leaks, cuts, languages, candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

from distilrank.data.bm25 import bm25_scores
from distilrank.data.cut import Loss, tokens_lost
from distilrank.data.duplicates import THRESHOLD, clusters, plain, shingles
from distilrank.errors import GateError
from distilrank.progress import bar
from distilrank.records import Group
from distilrank.rows import BadLines

SAMPLE = 2_000
"""Queries by which languages and cuts are judged, spread evenly over all."""
SHOWN = 3


@dataclass(frozen=True)
class Findings:
    """What `check` found. Examples are texts of the data, at most `SHOWN` of each."""

    queries: int
    passages: int
    bad_lines: int
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
    groups: Sequence[Group],
    against: Sequence[Group] | None = None,
    *,
    tokenizer: Any = None,
    max_length: int = 512,
    threshold: float = THRESHOLD,
    bad: BadLines | None = None,
) -> Findings:
    """Look at groups, and at what they share with `against` (test beside train). Nothing is changed.

    `threshold` is the share of common shingles from which two texts are near duplicates; `bad` holds the lines that were
    no groups when they were read.
    """
    exact, near = _duplicates(groups, threshold)
    labelled = [group for group in groups if any(passage.label for passage in group.passages)]
    sample = groups[:: max(1, len(groups) // SAMPLE)]
    leaks = None if against is None else _leaks(groups, against, threshold)
    return Findings(
        queries=len(groups),
        passages=sum(len(group.passages) for group in groups),
        bad_lines=len(bad.reasons) if bad else 0,
        first_bad_line=next((f"{where}: {why}" for where, why in bad.reasons.items()), None) if bad else None,
        candidates=_histogram(groups),
        single=sum(len(group.passages) == 1 for group in groups),
        repeated_queries=len(groups) - len({group.query for group in groups}),
        exact_duplicates=exact,
        near_duplicates=near,
        labelled=len(labelled),
        never_found=_never_found(labelled),
        languages=_languages(sample),
        cut=tokens_lost(sample, tokenizer, max_length) if tokenizer is not None else None,
        leaked=None if leaks is None else len(leaks),
        leaks=tuple(leaks or ())[:SHOWN],
        shared_passages=None if against is None else len(_texts(groups) & _texts(against)),
    )


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
    if f.bad_lines:
        rows.append(("bad lines", f"{f.bad_lines:,}", f.first_bad_line or ""))
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


def _duplicates(groups: Sequence[Group], threshold: float) -> tuple[int, int]:
    exact = near = 0
    with bar("duplicates in groups", len(groups), "queries") as advance:
        for group in groups:
            texts = list(dict.fromkeys(plain(passage.text) for passage in group.passages))
            exact += len(group.passages) - len(texts)
            sets = [shingles(text) for text in texts]
            joined: set[int] = set()
            for one, other in combinations(range(len(sets)), 2):
                small, large = sorted((len(sets[one]), len(sets[other])))
                # Two sets are at most as alike as their sizes are.
                if small >= threshold * large and other not in joined:
                    common = len(sets[one] & sets[other])
                    if common >= threshold * (small + large - common):
                        joined.add(other)
            near += len(joined)
            advance(1)
    return exact, near


def _histogram(groups: Iterable[Group]) -> dict[str, int]:
    ends = (1, 5, 10, 20, 30, 50, 100)
    names = ["1", *(f"{low + 1}-{high}" for low, high in pairwise(ends)), f"over {ends[-1]}"]
    counts = Counter(sum(len(group.passages) > end for end in ends) for group in groups)
    return {name: counts[number] for number, name in enumerate(names) if counts[number]}


def _never_found(labelled: Sequence[Group]) -> int:
    never = 0
    for group, scores in zip(labelled, bm25_scores(labelled), strict=True) if labelled else ():
        positives = [score for score, passage in zip(scores, group.passages, strict=True) if passage.label]
        never += bool(max(positives) <= 0)
    return never


def _languages(sample: Sequence[Group]) -> dict[str, float]:
    from py3langid import classify

    # A query alone is often too short to tell.
    texts = [" ".join((group.query, *(passage.text for passage in group.passages)))[:1_000] for group in sample]
    counts = Counter(classify(text)[0] for text in texts)
    return {name: count / len(texts) for name, count in counts.most_common() if count >= 0.01 * len(texts)}


def _leaks(groups: Sequence[Group], against: Sequence[Group], threshold: float) -> list[tuple[str, str]]:
    here, there = (list(dict.fromkeys(group.query for group in some)) for some in (groups, against))
    numbers = clusters([*here, *there], threshold).tolist()
    found: dict[int, str] = {}
    for number, query in zip(numbers[len(here) :], there, strict=True):
        found.setdefault(number, query)
    return [(query, found[number]) for number, query in zip(numbers, here, strict=False) if number in found]


def _texts(groups: Iterable[Group]) -> set[str]:
    return {passage.text for group in groups for passage in group.passages}
