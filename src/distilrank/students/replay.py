"""Next month: the last student goes on with new queries, and with some of the old ones so that it does not forget them.

What replay is and why it helps: Robins 1995, Catastrophic forgetting, rehearsal and pseudorehearsal; Rolnick et al. 2019,
Experience replay for continual learning (arXiv 1811.11682).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.engines.load import weights_digest
from distilrank.errors import UserError
from distilrank.progress import say
from distilrank.records import (
    holds_triplets,
    read_training_groups,
    read_triplets,
    write_training_groups,
    write_triplets,
)
from distilrank.rows import BadLines
from distilrank.shards import digest
from distilrank.students.folder import RECORD
from distilrank.students.train import TrainResult, TrainSettings, train
from distilrank.students.validation import query_hash

SALT = 1
"""Added to the seed, so that which old queries come back does not depend on which are for validation."""


@dataclass(frozen=True)
class Mixture:
    """What a continued training is made of; queries, not rows, are counted."""

    new_queries: int
    old_queries: int
    """So many of them were taken."""
    of_old_queries: int
    """So many there were, without those that are among the new ones."""


def continue_training(
    data: str | Path,
    last: str | Path,
    output: str | Path,
    settings: TrainSettings,
    *,
    replay: str | Path | None = None,
    share: float = 0.2,
    skip: BadLines | None = None,
) -> TrainResult:
    """Train on from the student in folder `last` on new data, of which `share` of the queries are old ones from `replay`.

    The new model's record says from which model it goes on (name, digest, how many trainings lie behind it) and what came
    back. Scores of both files must be one teacher's. Raises `UserError` like `train`, when `last` is no student of ours, or
    when the files are of different kinds.
    """
    last, output = Path(last), Path(output)
    before = record_of(last)
    origin = {"from": {"name": last.resolve().name, "digest": weights_digest(last), "generation": generation(before)}}
    if replay is None:
        say("  no old queries come back (--replay): what the student knew and the new queries do not need may be lost")
        return train(data, last, output, settings, skip=skip, origin=origin)
    mixed = output.with_name(f".{output.name}.mixed.parquet")
    try:
        mixture = mix(data, replay, mixed, share, settings.seed, skip)
        say(f"  {mixture.new_queries:,} new queries and {mixture.old_queries:,} of {mixture.of_old_queries:,} old ones")
        origin["replay"] = asdict(mixture) | {"name": Path(replay).name, "digest": digest(replay), "share": share}
        return train(mixed, last, output, settings, origin=origin)
    finally:
        mixed.unlink(missing_ok=True)


def record_of(folder: Path) -> dict[str, Any]:
    """The record that a training leaves in a model folder. Raises `UserError` where there is none."""
    try:
        record = dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
        record["settings"]["max_length"]
        return record
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder}: no student of ours: it has no {RECORD} that can be read; use --student") from None


def generation(record: dict[str, Any]) -> int:
    """How many trainings lie behind a model, one after the other."""
    return int(record.get("origin", {}).get("from", {}).get("generation", 0)) + 1


def mix(new: str | Path, old: str | Path, output: Path, share: float, seed: int, skip: BadLines | None = None) -> Mixture:
    """Write the new rows and behind them those of some old queries, chosen by a hash, so that `share` of all are old.

    Old queries that are among the new ones do not come back, since their new scores count. Where there are fewer old
    queries than that, all are taken. The same input gives the same file. Raises `UserError` when one file holds triplets and
    the other training groups, or when no old query is left.
    """
    triplets = holds_triplets(new, skip)
    if holds_triplets(old) != triplets:
        kinds = ("training groups", "triplets")
        raise UserError(f"{old}: holds {kinds[not triplets]}, and {new} {kinds[triplets]}: mine both in the same format")
    read: Callable[..., Iterator[Any]] = read_triplets if triplets else read_training_groups
    fresh = {row.query for row in read(new, skip)}
    known = {row.query for row in read(old)} - fresh
    if not known:
        raise UserError(f"{old}: every query of it is among the new ones: there is nothing to replay")
    wanted = min(len(known), round(share / (1 - share) * len(fresh)))
    hashes = np.sort(np.fromiter((query_hash(query, seed + SALT) for query in known), dtype=np.uint64))
    highest = int(hashes[wanted - 1]) if wanted else -1

    def rows() -> Iterator[Any]:
        yield from read(new, skip)
        yield from (row for row in read(old) if row.query in known and query_hash(row.query, seed + SALT) <= highest)

    write: Callable[[Path, Iterable[Any]], int] = write_triplets if triplets else write_training_groups
    write(output, rows())
    return Mixture(len(fresh), wanted, len(known))
