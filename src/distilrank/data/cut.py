"""The cut that teacher and student share: a margin must not teach text that the student cannot see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distilrank.progress import say
from distilrank.records import Group, Passage
from distilrank.rows import BadLines, refuse


def cut_to_student(
    groups: Iterable[Group], tokenizer: Any, max_length: int, skip: BadLines | None = None
) -> Iterator[Group]:
    """Cut each passage to the tokens that fit into `max_length` beside its query, by the student's tokenizer.

    Passages that fit stay as they are, to the letter. Passages of a query that differ only in what is cut off are one to
    teacher and student: they become one, at the place of the first, with the highest of their grades; how many were taken
    out is told at the end. Raises `UserError` when a query leaves no room for a passage (with `skip` it is counted and left
    out).
    """
    special = tokenizer.num_special_tokens_to_add(pair=True)
    merged = queries = 0
    for group in groups:
        room = max_length - special - len(tokenizer(group.query, add_special_tokens=False, verbose=False)["input_ids"])
        if room < 1:
            why = f"leaves no room for a passage in the student's {max_length} tokens: raise student.max_length"
            refuse(f"the query {group.query[:60]!r}", why if skip else f"{why}, or set data.skip_bad_lines", skip)
            continue
        cut = [
            # A token is at least one byte long, so a short text always fits and need not be tokenised.
            passage if len(passage.text.encode()) <= room else replace(passage, text=_cut(passage.text, tokenizer, room))
            for passage in group.passages
        ]
        passages = tuple(_told_apart(group.passages, cut))
        merged += len(cut) - len(passages)
        queries += len(cut) > len(passages)
        yield replace(group, passages=passages)
    if merged:
        say(
            f"  {merged:,} passages of {queries:,} queries are left out: within {max_length} tokens they are the same as "
            "another, which has the higher of the grades"
        )


def _told_apart(whole: Sequence[Passage], cut: Sequence[Passage]) -> Iterator[Passage]:
    """The cut passages, those that only the cut made equal as one; what was there twice before stays twice."""
    before: dict[str, set[str]] = {}
    grades: dict[str, list[int]] = {}
    for one, passage in zip(whole, cut, strict=True):
        before.setdefault(passage.text, set()).add(one.text)
        grades.setdefault(passage.text, []).extend([] if passage.label is None else [passage.label])
    for passage in cut:
        if len(before[passage.text]) == 1:
            yield passage
        elif passage.text in grades:
            yield replace(passage, label=max(grades.pop(passage.text), default=None))


def _cut(text: str, tokenizer: Any, room: int) -> str:
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
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
        of_group = [group.query, *(passage.text for passage in group.passages)]
        lengths = tokenizer(of_group, add_special_tokens=False, verbose=False)
        query, *texts = (len(ids) for ids in lengths["input_ids"])
        room = max(0, max_length - special - query)
        passages += len(texts)
        cut += sum(length > room for length in texts)
        tokens += sum(texts)
        lost += sum(max(0, length - room) for length in texts)
    return Loss(passages, cut, tokens, lost)
