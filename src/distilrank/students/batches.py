"""Steps of training: which queries share one, and the collator that turns their rows into what is forwarded."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from distilrank.engines.batches import in_order, length_sorted, padded_batch
from distilrank.engines.flat import Size, flat_batch, is_flat
from distilrank.students.dataset import IDS, NO_LABEL, SEGMENTS, Sizes, encoded_rows
from distilrank.students.losses import WeightedSum

TOKENS_STEP = 128


class BalancedBatches:
    """Batches of so many queries, drawn at random, that hold about as many tokens each: then steps cost alike.

    Of every 16 batches' worth of shuffled queries the longest are dealt out first, each to the batch that has the fewest
    tokens so far and a place left. Every query comes once an epoch; the same seed and epoch give the same batches.
    """

    WINDOW = 16

    drop_last = False

    def __init__(self, tokens: np.ndarray, batch_size: int, seed: int) -> None:
        """`tokens` of each row of the data set, int [rows]."""
        self.tokens, self.batch_size, self.seed, self.epoch = tokens, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """What the trainer calls before an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.tokens) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.tokens))
        for start in range(0, len(order), self.batch_size * self.WINDOW):
            yield from self._dealt(order[start : start + self.batch_size * self.WINDOW])

    def _dealt(self, rows: np.ndarray) -> list[list[int]]:
        return dealt(rows, self.tokens, -(-len(rows) // self.batch_size), self.batch_size)


class Shares:
    """Batches cut into a share for each process, of about as many tokens: first the shares of the first batch, in the
    processes' order, then those of the next. accelerate gives each process its own.

    The batches are those of one process, so that a step is the same on any number of them.
    """

    drop_last = False

    def __init__(self, batches: Any, tokens: np.ndarray, count: int) -> None:
        """`tokens` of each row of the data set, int [rows]; `count` processes."""
        self.batches, self.tokens, self.count = batches, tokens, count
        self.sampler = getattr(batches, "sampler", batches)
        """What accelerate tells the epoch, and replaces where it is random."""

    def __len__(self) -> int:
        return len(self.batches) * self.count

    def __iter__(self) -> Iterator[list[int]]:
        if self.sampler is not self.batches:
            self.batches.sampler = self.sampler
        for batch in self.batches:
            yield from dealt(np.asarray(batch), self.tokens, self.count, -(-len(batch) // self.count))


def dealt(rows: np.ndarray, tokens: np.ndarray, count: int, most: int) -> list[list[int]]:
    """Rows in so many lists of at most `most`, the longest first, each to the list with the fewest tokens so far."""
    lists: list[list[int]] = [[] for _ in range(count)]
    open_lists = [(0, number) for number in range(count)]
    for row in rows[np.argsort(-tokens[rows], kind="stable")].tolist():
        held, number = heapq.heappop(open_lists)
        lists[number].append(row)
        if len(lists[number]) < most:
            heapq.heappush(open_lists, (held + int(tokens[row]), number))
    return lists


@dataclass(frozen=True)
class StepSize:
    """A fixed size of steps: of the flat batch, and of the list of margins (0: every margin of a group counts)."""

    batch: Size
    margins: int


def step_size(sizes: Sizes, batches: Iterable[Sequence[int]]) -> StepSize:
    """The size that holds each of these batches of rows."""
    tokens = passages = margins = 0
    for batch in map(list, batches):
        tokens = max(tokens, int(sizes.tokens[batch].sum()))
        passages = max(passages, int(sizes.passages[batch].sum()))
        margins = max(margins, int(sizes.margins[batch].sum()))
    return StepSize(Size(-(-tokens // TOKENS_STEP) * TOKENS_STEP, passages, int(sizes.longest.max())), margins)


@dataclass(frozen=True)
class Rows:
    """The rows that a step was made of; wrapped, since whatever pins or moves a batch walks through every list in it."""

    of: Sequence[dict[str, Any]]


class GroupCollator:
    """Rows of the data set -> one step: pieces of whole groups under a token budget, flat where the model is.

    A step is `pieces` (the model's inputs, and what the loss needs, of some groups each), `units` (what the loss divides by,
    of the whole step) and `rows`. With a fixed size a step that fits it is one piece of that size (`fixed`): missing
    passages are groups of their own, missing margins are of a passage with itself, and neither changes a loss.
    """

    valid_label_columns: Sequence[str] = ()

    def __init__(
        self, config: Any, pad: int, loss: WeightedSum, budget: int, *, margins: bool, size: StepSize | None = None
    ) -> None:
        """`margins`: some row lists the margins that count, so every step does."""
        self.config, self.pad, self.loss, self.budget = config, pad, loss, budget
        self.margins, self.size = margins, size

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        if not rows:  # the share of a process in an epoch's last step
            units = self.loss.none()
            return {"step": {"pieces": [], "units": units, "fixed": False, "rows": Rows(rows)}}
        tokens = [[len(row[f"shared_{IDS}"]) + len(rest) for rest in row[f"rest_{IDS}"]] for row in rows]
        targets = self._targets(rows)
        units = self.loss.units(**targets)
        fixed = self._fits(tokens, targets)
        if fixed:
            pieces = [self._piece(rows, targets, self.size)]
        elif is_flat(self.config):
            places = in_order([sum(lengths) for lengths in tokens], self.budget)
            pieces = [self._piece([rows[place] for place in piece]) for piece in places]
        else:
            # A group is as wide as its longest passage, and so is a batch as its widest group.
            longest = max(len(lengths) for lengths in tokens)
            places = length_sorted([max(lengths) for lengths in tokens], self.budget // longest)
            pieces = [self._piece([rows[place] for place in piece]) for piece in places]
        return {"step": {"pieces": pieces, "units": units, "fixed": fixed, "rows": Rows(rows)}}

    def _piece(
        self, rows: list[dict[str, Any]], targets: dict[str, Any] | None = None, size: StepSize | None = None
    ) -> dict[str, Any]:
        import torch

        encoded, targets = encoded_rows(rows), targets or self._targets(rows)
        if not is_flat(self.config):
            return targets | {"inputs": padded_batch(encoded, self.pad)}
        inputs = flat_batch(encoded[IDS], encoded.get(SEGMENTS), self.config, size=size.batch if size else None)
        if size:
            missing = size.batch.pairs - len(targets["teacher"])
            alone = torch.arange(len(rows), len(rows) + missing)
            fill = {"teacher": torch.zeros(missing), "group": alone, "labels": torch.full((missing,), NO_LABEL)}
            if "pairs" in targets:
                fill["pairs"] = torch.zeros(size.margins - len(targets["pairs"]), 2, dtype=torch.long)
            targets = {key: torch.cat([value, fill[key].to(value.dtype)]) for key, value in targets.items()}
        return targets | {"inputs": inputs}

    def _targets(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        counts = [len(row["scores"]) for row in rows]
        targets = {
            "teacher": torch.tensor([score for row in rows for score in row["scores"]], dtype=torch.float32),
            "group": torch.from_numpy(np.repeat(np.arange(len(rows)), counts)),
            "labels": torch.tensor([label for row in rows for label in row["labels"] or [NO_LABEL] * len(row["scores"])]),
        }
        return targets | ({"pairs": torch.from_numpy(_margins(rows))} if self.margins else {})

    def _fits(self, tokens: Sequence[Sequence[int]], targets: dict[str, Any]) -> bool:
        lengths = np.array([length for of_row in tokens for length in of_row])
        margins = len(targets["pairs"]) if self.margins else 0
        return bool(self.size and self.size.batch.holds(lengths) and margins <= self.size.margins)


def _margins(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """The margins of all rows as indices of the step's passages, [margins, 2]."""
    starts = np.cumsum([0, *(len(row["scores"]) for row in rows)])
    found = [
        np.array(row["pairs"] or list(combinations(range(len(row["scores"])), 2)), dtype=np.int64).reshape(-1, 2) + start
        for row, start in zip(rows, starts[:-1], strict=True)
    ]
    return np.concatenate(found)
