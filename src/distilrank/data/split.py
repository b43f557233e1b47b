"""Train and test out of one set of groups, so that nothing of one is asked in the other."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from distilrank.data.duplicates import THRESHOLD, clusters
from distilrank.data.formats import read_any_groups
from distilrank.data.formats.tables import checked, table_rows
from distilrank.errors import UserError
from distilrank.progress import bar
from distilrank.records import Group, GroupFile, group_of, write_groups
from distilrank.rows import BadLines, BadRow, Row


def split(
    groups: Sequence[Group],
    share: float = 0.1,
    *,
    keys: Sequence[Iterable[Hashable]] | None = None,
    seed: int = 0,
    threshold: float = THRESHOLD,
) -> tuple[list[Group], list[Group]]:
    """Train and test groups, in the order of the data; test has at most `share` of them.

    Queries that are near duplicates stay together, and so do those that have a key in common (`keys`: some a group). Which
    of these families are test is decided by a hash of the seed and the family's queries, not by their places: the same
    data in another order is split alike. Raises `UserError` when no family is small enough for the test part.
    """
    test = held_places([group.query for group in groups], share, keys=keys, seed=seed, threshold=threshold)
    parts: tuple[list[Group], list[Group]] = ([], [])
    for place, group in enumerate(groups):
        parts[place in test].append(group)
    return parts


def held_places(
    queries: Sequence[str],
    share: float,
    *,
    keys: Sequence[Iterable[Hashable]] | None = None,
    seed: int = 0,
    threshold: float = THRESHOLD,
) -> set[int]:
    """The places of the queries that become test, as `split` has them."""
    from scipy.cluster.hierarchy import DisjointSet

    if not 0 < share < 1:
        raise UserError(f"the test part is a share above 0 and below 1, not {share}")
    if not queries:
        raise UserError("there are no groups to split")
    families = DisjointSet(range(len(queries)))
    first: dict[Hashable, int] = {}
    numbers = clusters(queries, threshold).tolist()
    for place, number in enumerate(numbers):
        for key in [("query", number), *(("key", key) for key in (keys[place] if keys else ()))]:
            families.merge(first.setdefault(key, place), place)

    def fate(family: set[int]) -> bytes:
        named = min(queries[place] for place in family)
        return hashlib.sha256(f"{seed}\n{named}".encode()).digest()

    test: set[int] = set()
    for family in sorted(families.subsets(), key=fate):
        if len(test) + len(family) <= share * len(queries):
            test |= family
    if not test:
        raise UserError(
            f"no family of queries is as small as {share:.0%} of the {len(queries):,}: what belongs together is too large; "
            "take a larger share or another key"
        )
    return test


def split_file(
    source: Sequence[Path] | str,
    folder: Path,
    share: float = 0.1,
    *,
    by: str = "query",
    seed: int = 0,
    threshold: float = THRESHOLD,
    skip: BadLines | None = None,
    offline: bool = False,
) -> tuple[int, int]:
    """Split a source into `train.jsonl` and `test.jsonl` of a folder; returns how many queries each has.

    `by` is `query`, `document` (of the ids of positive passages), or a column of the file, like `product`: what has the
    same value there stays together. The groups wait in a temporary file: in memory are the queries' texts and their keys.
    """
    queries: list[str] = []
    keys: list[list[str]] = []

    def noted() -> Iterator[Group]:
        with bar("groups", None, "queries") as advance:
            for group, of_group in _with_keys(source, by, skip, offline):
                queries.append(group.query)
                keys.append(of_group)
                advance(1)
                yield group

    with tempfile.TemporaryDirectory(prefix="distilrank-split-") as scratch:
        waiting = Path(scratch) / "groups.parquet"
        write_groups(waiting, noted())
        test = held_places(queries, share, keys=None if by == "query" else keys, seed=seed, threshold=threshold)
        for name, wanted in (("train", False), ("test", True)):
            part = (group for place, group in enumerate(GroupFile(waiting)) if (place in test) == wanted)
            write_groups(folder / f"{name}.jsonl", part)
    return len(queries) - len(test), len(test)


def _with_keys(
    source: Sequence[Path] | str, by: str, skip: BadLines | None, offline: bool
) -> Iterator[tuple[Group, list[str]]]:
    if by in ("query", "document"):
        for group in read_any_groups(source, skip=skip, offline=offline):
            yield group, documents(group) if by == "document" else []
    else:
        rows = checked(table_rows(source, {}, skip, offline=offline), _with_key(by), skip)
        for number, (_, (group, key)) in enumerate(rows):
            yield group if group.query_id else replace(group, query_id=str(number)), [key]


def _with_key(column: str) -> Callable[[Row], tuple[Group, str]]:
    def check(row: Row) -> tuple[Group, str]:
        if row.get(column) is None:
            raise BadRow(f"lacks {column!r}, the column to split by; it has {', '.join(map(repr, row))}")
        return group_of(row), json.dumps(row[column], sort_keys=True, default=str)

    return check


def documents(group: Group) -> list[str]:
    """The documents of a group's positive passages: what stands before `#` in their ids. Raises `UserError` without."""
    positives = [passage for passage in group.passages if passage.label]
    if not positives or not all(passage.id for passage in positives):
        raise UserError(f"--by document: a positive passage with an id is needed, which {group.query[:60]!r} lacks")
    return [str(passage.id).rpartition("#")[0] or str(passage.id) for passage in positives]
