"""The data of the quality bench: real, human-labelled sets and the demo's; each cut into train, validation and test.

The demo's, stdlib, is made of the standard library of the Python that runs the bench (3.12 in the results here).

Labels are never seen by a student. On validation queries they choose between arms, on test queries they judge.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distilrank.data import cut_to_student
from distilrank.demo import demo_groups
from distilrank.records import Group, read_groups
from distilrank.rows import BadLines

FOLDER = Path(os.environ.get("DISTILRANK_DATA", "../shared/data"))
NAMES = ("askubuntu_dup", "cosqa", "epqa", "trecqa", "stdlib")
MADE = ("packages", "manuals", "mathematics", "web")
"""Those that `fresh.py` makes, in the folder DISTILRANK_FRESH names."""
MAX_LENGTH = {"askubuntu_dup": 128, "cosqa": 192, "epqa": 128, "trecqa": 128, "stdlib": 128} | dict.fromkeys(MADE, 160)
"""Tokens of query and passage."""


@dataclass(frozen=True)
class Splits:
    """Groups to teach on, to choose on and to judge on."""

    train: list[Group]
    validation: list[Group]
    test: list[Group]


def splits(name: str) -> Splits:
    """A set, its candidates in an order that tells nothing (the files list positives first)."""
    train, validation, test = _parts(name)
    return Splits(*([_shuffled(group) for group in part] for part in (train, validation, test)))


def _parts(name: str) -> tuple[Sequence[Group], Sequence[Group], Sequence[Group]]:
    if name == "stdlib":
        taught = demo_groups("train", 1_000, 12)
        return taught[:700], taught[700:], demo_groups("test", 400, 12)
    if name in MADE:
        made = Path(os.environ.get("DISTILRANK_FRESH", "fresh")) / name
        return _read(made / "train.jsonl"), _read(made / "validation.jsonl"), _read(made / "test.jsonl")
    folder = FOLDER / name
    train, test = _read(folder / "train.jsonl"), _read(folder / "test.jsonl")
    if name == "askubuntu_dup":
        return _read(folder / "train_unlabelled.jsonl"), train, test
    if name == "trecqa":
        return train, _read(folder / "dev.jsonl"), test
    kept = {"cosqa": 75, "epqa": 177}[name]
    random.Random(name).shuffle(train)
    return train[kept:], train[:kept], test


def _read(path: Path) -> list[Group]:
    """A file without the queries that hold an empty passage (one of epqa's test part)."""
    return list(read_groups(path, BadLines()))


def _shuffled(group: Group) -> Group:
    passages = list(group.passages)
    random.Random(group.query).shuffle(passages)
    return Group(group.query_id, group.query, tuple(passages))


def cut(name: str, groups: Sequence[Group], tokenizer: object) -> list[Group]:
    """The groups with their passages cut to what the student sees."""
    return list(cut_to_student(groups, tokenizer, MAX_LENGTH[name]))
