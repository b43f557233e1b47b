"""TREC's run and qrels files, in and out, so that trec_eval, ranx or any other tool can check us.

A run line is `query Q0 passage rank score tag`, a qrels line `query 0 passage grade`. Queries and passages go by their ids
where these are there, distinct and without blanks, else by their number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from distilrank.errors import UserError
from distilrank.evidence.evaluate import Evaluation
from distilrank.metrics import float32_in_order, ranking
from distilrank.records import Group
from distilrank.shards import whole_folder, write_text

QRELS = "qrels.txt"


def write_trec(evaluation: Evaluation, folder: str | Path) -> None:
    """Write `qrels.txt` and a `.run` a system. Queries that are in no mean are in no file, so that means agree.

    Scores are the raw ones; where they tie, the lower in our order is written a rounding step of float32 lower, since
    every tool breaks ties in its own way.
    """
    groups, kept = evaluation.groups, np.flatnonzero(evaluation.judged).tolist()
    if not kept:
        raise UserError("no query is labelled: there is nothing to write for trec_eval")
    queries = query_names(groups)
    names = [passage_names(group) for group in groups]
    qrels = (
        f"{queries[n]} 0 {name} {passage.label}"
        for n in kept
        for name, passage in zip(names[n], groups[n].passages, strict=True)
        if passage.label is not None
    )
    with whole_folder(folder, ours=QRELS) as whole:
        write_text(whole / QRELS, "\n".join(qrels) + "\n")
        for system, tag in zip(evaluation.systems, _tags([system.name for system in evaluation.systems]), strict=True):
            lines = (
                f"{queries[n]} Q0 {names[n][place]} {rank} {score!s} {tag}"
                for n in kept
                for rank, (place, score) in enumerate(_strictly_falling(groups[n], system.scores[n]), start=1)
            )
            write_text(whole / f"{tag}.run", "\n".join(lines) + "\n")


def run_scores(path: str | Path, groups: Sequence[Group]) -> list[np.ndarray]:
    """The scores of a TREC run on the groups, float32 [passages] a group, in the run's order of scores even where float32
    could not tell them apart; a passage that it lacks comes last.

    Raises `UserError` with file and line on a malformed line, and for a query that the run lacks.
    """
    found: dict[str, dict[str, float]] = {}
    for line, (query, _, passage, _, score, _) in _fields(path, 6):
        value = _number(score, path, line)
        found.setdefault(query, {})[passage] = value
    result = []
    for query, group in zip(query_names(groups), groups, strict=True):
        known = found.get(query, {})
        names = passage_names(group)
        if not any(name in known for name in names):
            raise UserError(f"{path}: no passage of the query {query!r}: are its ids those of the test set?")
        least = min(known.values())
        last = min(least - 1, float(np.nextafter(least, -np.inf)))
        result.append(float32_in_order(np.asarray([known.get(name, last) for name in names])))
    return result


def with_qrels(groups: Sequence[Group], path: str | Path) -> list[Group]:
    """The groups with the labels of a TREC qrels file; a passage that it lacks has none. A grade below 0 counts as 0.

    Raises `UserError` with file and line on a malformed line, and when the file has no label for any passage.
    """
    found = _grades(path)
    result = [
        replace(
            group,
            passages=tuple(
                replace(passage, label=found.get((query, name)))
                for name, passage in zip(passage_names(group), group.passages, strict=True)
            ),
        )
        for query, group in zip(query_names(groups), groups, strict=True)
    ]
    if not any(passage.label is not None for group in result for passage in group.passages):
        raise UserError(f"{path}: no label for any passage: are its ids those of the test set?")
    return result


def positives_beyond(groups: Sequence[Group], path: str | Path) -> int:
    """How many positives a qrels file has for the queries of the groups that are not among their candidates."""
    names = {query: set(passage_names(group)) for query, group in zip(query_names(groups), groups, strict=True)}
    return sum(grade > 0 and q in names and passage not in names[q] for (q, passage), grade in _grades(path).items())


def query_names(groups: Sequence[Group]) -> list[str]:
    """What each query is called in TREC files."""
    return _names([group.query_id for group in groups])


def passage_names(group: Group) -> list[str]:
    """What each passage of a group is called in TREC files."""
    return _names([passage.id for passage in group.passages])


def _grades(path: str | Path) -> dict[tuple[str, str], int]:
    """(query, passage) -> grade."""
    rows = _fields(path, 4)
    return {(query, passage): max(0, int(_number(grade, path, line))) for line, (query, _, passage, grade) in rows}


def _tags(names: Sequence[str]) -> list[str]:
    """A file name for each system, all different, where upper and lower case are one, too."""
    tags: list[str] = []
    for name in names:
        tag = wanted = re.sub(r"\W+", "-", name).strip("-") or "system"
        number = 1
        while tag.casefold() in map(str.casefold, tags):
            number += 1
            tag = f"{wanted}-{number}"
        tags.append(tag)
    return tags


def _names(ids: Sequence[str | None]) -> list[str]:
    usable = len(set(ids)) == len(ids) and all(name and not re.search(r"\s", name) for name in ids)
    return [str(name) if usable else str(number) for number, name in enumerate(ids)]


def _strictly_falling(group: Group, scores: np.ndarray) -> Iterator[tuple[int, np.float32]]:
    last = np.float32(np.inf)
    for place in ranking(group, scores).tolist():
        last = min(np.float32(scores[place]), np.nextafter(last, np.float32(-np.inf)))
        yield place, last


def _fields(path: str | Path, count: int) -> Iterator[tuple[int, list[str]]]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    for line, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        fields = row.split()
        if len(fields) != count:
            raise UserError(f"{path}:{line}: {len(fields)} fields, a line of this TREC file has {count}")
        yield line, fields


def _number(text: str, path: str | Path, line: int) -> float:
    try:
        value = float(text)
        if np.isfinite(value):
            return value
    except ValueError:
        pass
    raise UserError(f"{path}:{line}: {text!r} is not a finite number")
