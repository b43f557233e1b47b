"""Token sequences laid out as a prefix trie, a row at a time: what neighbours share is read once.

A row holds its sequences in depth-first order. The queries q that may see key k are then one interval, so the whole
attention mask is `k <= q < ends[k]`, where `ends[k]` is the place at which the subtree that k opens closes. Any causal
model with explicit positions then computes for every token what it computes in the token's own sequence alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Row:
    """Int32 [tokens] each of ids, positions and ends; `places[i]` are the places of the last tokens of `numbers[i]`."""

    ids: np.ndarray
    positions: np.ndarray
    ends: np.ndarray
    numbers: list[int]
    places: list[np.ndarray]


def lay_out(sequences: Sequence[np.ndarray], tails: Sequence[int], budget: int) -> Iterator[Row]:
    """Rows of at most `budget` tokens that hold every sequence; a longer sequence has a row of its own length to itself.

    `tails[i]` is how many of the last tokens of sequence i are asked for. Sequences are sorted, so that those which share
    most are neighbours; where a row is full the next one repeats the shared prefix.
    """
    row = _Open(budget)
    for number in sorted(range(len(sequences)), key=lambda i: sequences[i].astype(">u4").tobytes()):
        sequence = sequences[number]
        if row.numbers and not row.fits(sequence):
            yield row.close()
            row = _Open(budget)
        row.add(number, sequence, tails[number])
    if row.numbers:
        yield row.close()


class _Open:
    """A row that is being filled. `path` is the sequence added last, `where` the place of each of its tokens."""

    def __init__(self, budget: int) -> None:
        self.budget, self.used = budget, 0
        self.ids: list[np.ndarray] = []
        self.positions: list[np.ndarray] = []
        self.closed: list[tuple[np.ndarray, int]] = []
        self.path, self.where = np.empty(0, np.int32), np.empty(0, np.int32)
        self.numbers: list[int] = []
        self.places: list[np.ndarray] = []

    def fits(self, sequence: np.ndarray) -> bool:
        return self.used + len(sequence) - _shared(self.path, sequence) <= self.budget

    def add(self, number: int, sequence: np.ndarray, tail: int) -> None:
        shared = _shared(self.path, sequence)
        self.closed.append((self.where[shared:], self.used))
        fresh = len(sequence) - shared
        self.ids.append(sequence[shared:])
        self.positions.append(np.arange(shared, len(sequence), dtype=np.int32))
        added = np.arange(self.used, self.used + fresh, dtype=np.int32)
        self.path, self.where, self.used = sequence, np.concatenate([self.where[:shared], added]), self.used + fresh
        self.numbers.append(number)
        self.places.append(self.where[len(sequence) - tail :])

    def close(self) -> Row:
        ends = np.empty(self.used, dtype=np.int32)
        for where, end in [*self.closed, (self.where, self.used)]:
            ends[where] = end
        ids = np.concatenate(self.ids).astype(np.int32)
        return Row(ids, np.concatenate(self.positions), ends, self.numbers, self.places)


def _shared(first: np.ndarray, second: np.ndarray) -> int:
    """How many leading tokens two sequences have in common."""
    length = min(len(first), len(second))
    differ = np.flatnonzero(first[:length] != second[:length])
    return int(differ[0]) if len(differ) else length


def dense_mask(ends: Any, dtype: Any) -> Any:
    """What to add to attention scores, [1, 1, tokens, tokens]: 0 where `k <= q < ends[k]`, else the least number."""
    import torch

    q = torch.arange(len(ends), device=ends.device)[:, None]
    sees = (q >= q.T) & (q < ends[None])
    return torch.zeros(sees.shape, dtype=dtype, device=ends.device).masked_fill(~sees, torch.finfo(dtype).min)[None, None]
