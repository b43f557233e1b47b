"""Mining rules over scored pairs of any size: DuckDB sorts on disk, rows stream out."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, groupby, islice
from pathlib import Path

import pyarrow as pa

from distilrank.errors import UserError, did_you_mean
from distilrank.mining.sampling import Samples, drawn, draws
from distilrank.records import (
    ScoredPair,
    TrainingGroup,
    Triplet,
    read_scored,
    write_training_groups,
    write_triplets,
)
from distilrank.rows import BadLines
from distilrank.spill import spilling_database

STRATEGIES = ("adjacent", "all_pairs", "quantile", "random")


@dataclass(frozen=True)
class MiningSettings:
    """Which pairs of a query's passages are taught.

    `adjacent` is the reference's rule: the `top_k` best passages are positives, and the negatives of the positive at
    rank i are the `num_negatives` passages that follow it. `all_pairs` takes every two passages; `quantile` and `random`
    every two of `passages` that are drawn (`mining.sampling`), in `samples` draws a query, a training group each; `auto`:
    as many as come nearest to one pass over the query's passages.
    """

    strategy: str = "adjacent"
    top_k: int = 8
    num_negatives: int = 4
    passages: int = 8
    samples: Samples = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise UserError(f"no mining strategy {self.strategy!r}: {did_you_mean(self.strategy, STRATEGIES)}")
        if self.top_k < 1 or self.num_negatives < 1 or (self.samples != "auto" and self.samples < 1):
            raise UserError("top_k, num_negatives and samples must be at least 1")
        if self.passages < 2:
            raise UserError("passages must be at least 2: a margin is between two")


def mine(
    scored: str | Path,
    output: str | Path,
    settings: MiningSettings | None = None,
    *,
    triplets: bool = True,
    skip: BadLines | None = None,
) -> int:
    """Mine a file of scored pairs into a file of triplets or of training groups; returns how many were written.

    Scores are read as doubles and subtracted as doubles. Raises `UserError` when a line is malformed, or when nothing
    can be taught because every query has one passage or equal scores.
    """
    groups: Iterator[TrainingGroup] = mine_groups(read_scored(scored, skip), settings or MiningSettings())
    first = next(groups, None)
    if first is None:
        raise UserError(f"{scored}: no query has two passages with different scores, so there is no margin to teach")
    groups = chain([first], groups)
    return write_triplets(output, triplets_of(groups)) if triplets else write_training_groups(output, groups)


def mine_groups(scored: Iterable[ScoredPair], settings: MiningSettings) -> Iterator[TrainingGroup]:
    """Training groups in the order in which their queries first appear; each with the pairs that count."""
    for query, passages, scores in ranked_queries(scored):
        if not math.isfinite(scores[0] - scores[-1]):
            raise UserError(f"the scores of the query {query[:60]!r} are too far apart for a margin to be a number")
        for ranks in _choices(query, len(passages), settings):
            taught, of_teacher = tuple(passages[rank] for rank in ranks), tuple(scores[rank] for rank in ranks)
            pairs = [
                (i, j)
                for i, j in _pairs(len(taught), settings)
                if taught[i] != taught[j] and of_teacher[i] - of_teacher[j] > 0
            ]
            if pairs:
                complete = len(pairs) == len(taught) * (len(taught) - 1) // 2
                yield TrainingGroup(query, taught, of_teacher, None if complete else tuple(pairs))


def _choices(query: str, count: int, settings: MiningSettings) -> Iterator[Sequence[int]]:
    """The ranks that are taught, for each training group of a query."""
    if settings.strategy == "all_pairs":
        yield range(count)
    elif settings.strategy == "adjacent":  # the passages further down are in no pair
        yield range(min(count, settings.top_k + settings.num_negatives))
    else:
        rng = random.Random(f"{settings.seed} {query}")
        for _ in range(draws(count, settings.passages, settings.samples)):
            yield drawn(count, settings.passages, settings.strategy, rng)


def triplets_of(groups: Iterable[TrainingGroup]) -> Iterator[Triplet]:
    """The margins of training groups, one a pair, in the order of the pairs."""
    for group in groups:
        for i, j in group.pairs or combinations(range(len(group.passages)), 2):
            yield Triplet(group.query, group.passages[i], group.passages[j], group.scores[i] - group.scores[j])


def ranked_queries(scored: Iterable[ScoredPair]) -> Iterator[tuple[str, tuple[str, ...], tuple[float, ...]]]:
    """Each distinct query, in order of first appearance, with its passages from the highest score to the lowest.

    Equal scores keep the order of the lines; repeated lines are kept, as in the reference.
    """
    with spilling_database() as database:
        database.execute("CREATE TABLE scored (line BIGINT, query VARCHAR, passage VARCHAR, score DOUBLE)")
        for batch in _batches(scored):
            database.register("batch", batch)
            database.execute("INSERT INTO scored SELECT * FROM batch")
        rows = database.execute(
            """
            SELECT query, passage, score FROM scored
            JOIN (SELECT query, min(line) AS first_line FROM scored GROUP BY query) USING (query)
            ORDER BY first_line, score DESC, line
            """
        )
        for query, ranked in groupby(iter(_fetched(rows)), key=lambda row: row[0]):
            _, passages, scores = zip(*ranked, strict=True)
            yield query, passages, scores


_SCHEMA = pa.schema([("line", pa.int64()), ("query", pa.string()), ("passage", pa.string()), ("score", pa.float64())])


def _batches(scored: Iterable[ScoredPair], size: int = 20_000) -> Iterator[pa.Table]:
    pairs, line = iter(scored), 0
    while batch := list(islice(pairs, size)):
        lines = range(line, line + len(batch))
        line += len(batch)
        columns = [lines, [p.query for p in batch], [p.passage for p in batch], [p.score for p in batch]]
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
        yield pa.table(arrays, schema=_SCHEMA)


def _fetched(rows: object, size: int = 20_000) -> Iterator[tuple[str, str, float]]:
    while batch := rows.fetchmany(size):  # type: ignore[attr-defined]
        yield from batch


def _pairs(count: int, settings: MiningSettings) -> Iterator[tuple[int, int]]:
    if settings.strategy != "adjacent":
        return combinations(range(count), 2)
    return (
        (i, j) for i in range(min(settings.top_k, count)) for j in range(i + 1, min(i + 1 + settings.num_negatives, count))
    )
