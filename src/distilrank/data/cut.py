"""The cut that teacher and student share: a margin must not teach text that the student cannot see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from distilrank.errors import UserError
from distilrank.records import Group


def cut_to_student(groups: Iterable[Group], tokenizer: Any, max_length: int) -> Iterator[Group]:
    """Cut each passage to the tokens that fit into `max_length` beside its query, by the student's tokenizer.

    Passages that fit stay as they are, to the letter. Raises `UserError` when a query leaves no room for a passage.
    """
    special = tokenizer.num_special_tokens_to_add(pair=True)
    for group in groups:
        room = max_length - special - len(tokenizer(group.query, add_special_tokens=False)["input_ids"])
        if room < 1:
            raise UserError(
                f"the query {group.query[:60]!r} fills the student's {max_length} tokens: raise student.max_length"
            )
        passages = [
            # A token is at least one byte long, so a short text always fits and need not be tokenised.
            passage if len(passage.text.encode()) <= room else replace(passage, text=_cut(passage.text, tokenizer, room))
            for passage in group.passages
        ]
        yield replace(group, passages=tuple(passages))


def _cut(text: str, tokenizer: Any, room: int) -> str:
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text if len(offsets) <= room else text[: offsets[room - 1][1]] or text


@dataclass(frozen=True)
class Loss:
    """What `max_length` costs: passages looked at and cut, their tokens, and those of them that are lost."""

    passages: int
    cut: int
    tokens: int
    lost: int


def tokens_lost(groups: Iterable[Group], tokenizer: Any, max_length: int) -> Loss:
    """What of the passages the student would not see, by its own tokenizer; a query that fills it loses them whole."""
    special = tokenizer.num_special_tokens_to_add(pair=True)
    passages = cut = tokens = lost = 0
    for group in groups:
        lengths = tokenizer([group.query, *(passage.text for passage in group.passages)], add_special_tokens=False)
        query, *texts = (len(ids) for ids in lengths["input_ids"])
        room = max(0, max_length - special - query)
        passages += len(texts)
        cut += sum(length > room for length in texts)
        tokens += sum(texts)
        lost += sum(max(0, length - room) for length in texts)
    return Loss(passages, cut, tokens, lost)
