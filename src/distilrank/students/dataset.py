"""The training data as an Arrow data set: groups tokenised once, memory-mapped, a row a query.

What a query's pairs begin with (its own tokens, as a rule) is kept once a row.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.engines.batches import Encoded, split_like
from distilrank.engines.classifier import encode_pairs
from distilrank.progress import Advance
from distilrank.records import TrainingGroup, Triplet
from distilrank.shards import whole_file

GROUPS_AT_A_TIME = 256
"""So many are handed to the tokenizer at once, which works on them with all cores."""
NO_LABEL = -1
IDS, SEGMENTS = "input_ids", "token_type_ids"


@dataclass(frozen=True)
class Sizes:
    """How large the rows of a data set are: an array a measure."""

    tokens: np.ndarray
    passages: np.ndarray
    longest: np.ndarray
    margins: np.ndarray


def training_rows(groups: Iterable[TrainingGroup], tokenizer: Any, max_length: int) -> Iterator[dict[str, Any]]:
    """A row a group: the tokens that all of its pairs begin with, the rest of each, and what the losses need."""
    waiting, number = iter(groups), count()
    while some := list(islice(waiting, GROUPS_AT_A_TIME)):
        queries = [group.query for group in some for _ in group.passages]
        encoded = encode_pairs(tokenizer, queries, [text for group in some for text in group.passages], max_length)
        pairs_of = split_like(np.arange(len(queries)), [group.passages for group in some])
        for group, places in zip(some, pairs_of, strict=True):
            chosen = {key: [values[place] for place in places] for key, values in encoded.items()}
            shared = _shared(chosen[IDS])
            row: dict[str, Any] = {"number": next(number), "scores": list(group.scores)}
            row |= {"pairs": [list(pair) for pair in group.pairs or ()]}
            row["labels"] = [NO_LABEL if label is None else label for label in group.labels or ()]
            for key, values in chosen.items():
                row |= {f"shared_{key}": values[0][:shared], f"rest_{key}": [ids[shared:] for ids in values]}
            yield row


def _shared(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with."""
    first, last = min(rows), max(rows)
    differ = (place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return next(differ, min(len(first), len(last)))


def encoded_rows(rows: Sequence[dict[str, Any]]) -> Encoded:
    """The tokens of all pairs of some rows, whole again."""
    keys = [key for key in (IDS, SEGMENTS) if f"shared_{key}" in rows[0]]
    return {key: [row[f"shared_{key}"] + rest for row in rows for rest in row[f"rest_{key}"]] for key in keys}


def tokenised(
    groups: Iterable[TrainingGroup], tokenizer: Any, max_length: int, folder: Path, fingerprint: Any, advance: Advance
) -> Any:
    """The data set of `groups` in a folder, as `_kept` has it."""
    from datasets import List, Value

    columns: dict[str, Any] = {"number": Value("int64"), "scores": List(Value("float32")), "labels": List(Value("int64"))}
    columns |= {"pairs": List(List(Value("int32")))}
    for key in (IDS, SEGMENTS):
        if key in tokenizer.model_input_names:
            columns |= {f"shared_{key}": List(Value("int32")), f"rest_{key}": List(List(Value("int32")))}
    return _kept(training_rows(groups, tokenizer, max_length), columns, folder, fingerprint, advance)


def as_they_are(triplets: Iterable[Triplet], folder: Path, fingerprint: Any, advance: Advance) -> Any:
    """The data set of triplets in a folder, as `_kept` has it: texts, a row a triplet."""
    from datasets import Value

    columns = dict.fromkeys(("query", "positive", "negative"), Value("string")) | {"score": Value("float64")}
    return _kept((asdict(row) for row in triplets), columns, folder, fingerprint, advance)


def _kept(rows: Iterable[dict[str, Any]], columns: dict[str, Any], folder: Path, fingerprint: Any, advance: Advance) -> Any:
    """The data set of `rows` in a folder; the one that is there is taken when its fingerprint is the same.

    `fingerprint` is anything that JSON can hold and that decides the rows. Other data sets in the folder are deleted.
    """
    from datasets import Dataset, Features
    from datasets.arrow_writer import ArrowWriter

    path = folder / f"{hashlib.sha256(json.dumps([fingerprint, *columns]).encode()).hexdigest()[:24]}.arrow"
    if not path.exists():
        shutil.rmtree(folder, ignore_errors=True)
        with whole_file(path) as partial, ArrowWriter(path=str(partial), features=Features(columns)) as writer:
            for row in rows:
                writer.write(row)
                advance(1)
            writer.finalize()
    return Dataset.from_file(str(path))


def sizes_of(dataset: Any) -> Sizes:
    """Measured on the Arrow columns, without reading a row."""
    import pyarrow.compute as pc

    table = dataset.data
    passages = _lengths(pc, table["scores"])
    rests = _lengths(pc, pc.list_flatten(table[f"rest_{IDS}"]))
    starts = np.concatenate([[0], np.cumsum(passages)[:-1]])
    shared = _lengths(pc, table[f"shared_{IDS}"])
    listed = _lengths(pc, table["pairs"])
    return Sizes(
        tokens=shared * passages + np.add.reduceat(rests, starts),
        passages=passages,
        longest=shared + np.maximum.reduceat(rests, starts),
        margins=np.where(listed > 0, listed, passages * (passages - 1) // 2),
    )


def has_labels(dataset: Any) -> bool:
    """Whether any row has labels."""
    import pyarrow.compute as pc

    return bool(_lengths(pc, dataset.data["labels"]).any())


def has_pairs(dataset: Any) -> bool:
    """Whether any row lists the margins that count."""
    import pyarrow.compute as pc

    return bool(_lengths(pc, dataset.data["pairs"]).any())


def used_tokens(dataset: Any) -> np.ndarray:
    """The numbers of the tokens that occur in the rows, ascending."""
    import pyarrow.compute as pc

    table = dataset.data
    shared = pc.list_flatten(table[f"shared_{IDS}"])
    rests = pc.list_flatten(pc.list_flatten(table[f"rest_{IDS}"]))
    return np.union1d(pc.unique(shared).to_numpy(), pc.unique(rests).to_numpy())


def _lengths(pc: Any, column: Any) -> np.ndarray:
    return np.asarray(pc.list_value_length(column).to_numpy(), dtype=np.int64)
