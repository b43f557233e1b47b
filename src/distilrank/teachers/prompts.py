"""Prompts: templates by data, and groups turned into token sequences. No template calls a tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Formatter

import numpy as np
import yaml
from pydantic import Field, model_validator

from distilrank.errors import UserError, did_you_mean
from distilrank.records import Group
from distilrank.settings import Section
from distilrank.templates import is_own, name_and_digest, packaged, read_own

Tokenise = Callable[[list[str]], list[np.ndarray]]
NOTHING = np.empty(0, dtype=np.int32)
FIELDS = {"instruction", "query", "passage"}


class Template(Section):
    """A prompt as pieces of text, tokenised apart and joined as token ids.

    What is to be merged before it is tokenised stands in one piece. The piece with `{passage}` ends with it and is cut on
    the right, which cuts the passage and never the prompt. With a `positive` answer the score is its logit, less that of
    the `negative` one where there is one; without answers the last piece is `{query}`, and its likelihood is the score.
    """

    name: str
    pieces: tuple[str, ...] = Field(min_length=2, description="texts with {instruction}, {query} and {passage}")
    source: str = Field(description="where the words come from")
    positive: str | None = Field(None, min_length=1, description="the answer that means relevant: one token")
    negative: str | None = Field(None, min_length=1, description="the answer that means irrelevant: one token")
    start: bool = Field(False, description="begin with the tokens that the tokenizer itself puts before a text, like <bos>")

    @model_validator(mode="after")
    def _sound(self) -> Template:
        named = [(piece, field) for piece in self.pieces for field in _fields(piece)]
        if unknown := {field for _, field in named} - FIELDS:
            raise ValueError(
                f"unknown field {sorted(unknown)[0]!r} in a piece: {', '.join(sorted(FIELDS))}, or double the brace"
            )
        for wanted in ("query", "passage"):
            if [field for _, field in named].count(wanted) != 1:
                raise ValueError(f"{{{wanted}}} must stand in the pieces once")
        if not any(piece.endswith("{passage}") for piece in self.pieces):
            raise ValueError("the piece with {passage} must end with it, so that only the passage is cut: split it there")
        if self.negative and not self.positive:
            raise ValueError("a negative answer needs a positive one")
        if not self.positive and self.takes_instruction:
            raise ValueError("a likelihood template takes no {instruction}: write the words out")
        if not self.positive and (self.pieces[-1] != "{query}" or "{passage}" in self.pieces[-1]):
            raise ValueError("without answers the last piece must be {query} alone: its likelihood is the score")
        if self.positive and self.pieces[-1].endswith("{passage}"):
            raise ValueError("something must stand between {passage} and the answer")
        return self

    @property
    def digest(self) -> str:
        """`name-digest`: two templates of one name with different words are different."""
        return name_and_digest(self)

    @property
    def takes_instruction(self) -> bool:
        return any("instruction" in _fields(piece) for piece in self.pieces)


@cache
def packaged_templates() -> dict[str, Template]:
    """The templates inside the package, by name."""
    return packaged(Template, "distilrank.teachers")


def load_template(name_or_file: str, *, answers: bool) -> Template:
    """A packaged template by its name, or one of the user's in a YAML file.

    `answers` says whether it must have a positive answer (causal) or none (likelihood). Raises `UserError` when there is no
    such template, when it is not sound, or when it is of the other kind.
    """
    if is_own(name_or_file):
        template = read_own(Template, name_or_file)
    else:
        of_kind = {name: found for name, found in packaged_templates().items() if bool(found.positive) == answers}
        if name_or_file not in of_kind:
            kind = "causal" if answers else "likelihood"
            hint = did_you_mean(name_or_file, of_kind)
            raise UserError(f"no {kind} template {name_or_file!r}: {hint}; a file of your own ends in .yaml")
        template = of_kind[name_or_file]
    if bool(template.positive) != answers:
        wanted = "a positive answer, which it lacks" if answers else "no answers, and it has some"
        raise UserError(f"template {name_or_file}: a teacher of this kind needs {wanted}")
    return template


@cache
def instructions() -> dict[str, str]:
    """Good instructions by task."""
    found: dict[str, str] = yaml.safe_load(files("distilrank.teachers").joinpath("instructions.yaml").read_text("utf-8"))
    return found


def instruction_text(name_or_text: str) -> str:
    """The text of a named instruction, or the text itself. Raises `UserError` for one word that names none."""
    known = instructions()
    if name_or_text not in known and " " not in name_or_text and name_or_text.isascii():
        raise UserError(f"no instruction {name_or_text!r}: {did_you_mean(name_or_text, known)}; or write a sentence")
    return known.get(name_or_text, name_or_text)


@dataclass(frozen=True)
class Prompts:
    """Token ids [tokens] of each pair's prompt, in order; of each, the last `tails[i]` tokens are what the score reads.

    `cut` tells which passages did not fit.
    """

    sequences: list[np.ndarray]
    tails: list[int]
    cut: np.ndarray


def prompts(
    template: Template, groups: Sequence[Group], tokenise: Tokenise, start: np.ndarray, max_length: int, instruction: str
) -> Prompts:
    """The prompts of all pairs of the groups. Raises `UserError` when a query leaves no room for a passage."""
    place = next(i for i, piece in enumerate(template.pieces) if piece.endswith("{passage}"))

    def filled(piece: str, group: Group, passage: str) -> str:
        # In one pass, so that braces in a query or a passage stay what they are.
        return piece.format(instruction=instruction, query=group.query, passage=passage)

    texts = [
        filled(piece, group, passage)
        for group in groups
        for number, piece in enumerate(template.pieces)
        for passage in ("", *((passage.text for passage in group.passages) if number == place else ()))
    ]
    ids = _each_once(texts, tokenise)
    sequences, tails, cut = [], [], []
    for group in groups:
        around = [ids[filled(piece, group, "")] for piece in template.pieces]
        before, after = [start, *around[:place]], around[place + 1 :]
        room = max_length - sum(map(len, before)) - sum(map(len, after))
        if len(around[place]) >= room:
            raise too_long(group.query, max_length - room + len(around[place]), max_length)
        tail = 1 if template.positive else len(around[-1]) + 1
        for passage in group.passages:
            body = ids[filled(template.pieces[place], group, passage.text)]
            sequences.append(np.concatenate([*before, body[:room], *after]))
            tails.append(tail)
            cut.append(len(body) > room)
    return Prompts(sequences, tails, np.array(cut, dtype=bool))


def too_long(query: str, tokens: int, most: int, of: str = "max_length") -> UserError:
    """The error of a query that leaves no room for a passage: a query is never cut. `most` tokens may be its own."""
    return UserError(
        f"the query {query[:60]!r} takes {tokens} tokens with its prompt, more than {of} {most}: "
        "raise max_length, or leave the query out"
    )


def _each_once(texts: Iterable[str], tokenise: Tokenise) -> dict[str, np.ndarray]:
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, tokenise(distinct), strict=True)) if distinct else {}


def _fields(piece: str) -> list[str]:
    """The names in braces. Raises `ValueError` where a brace stands for something else."""
    try:
        found = [(field, form, conversion) for _, field, form, conversion in Formatter().parse(piece) if field is not None]
    except ValueError as error:
        raise ValueError(f"a piece is no format text ({error}): double a brace that is meant as itself") from None
    for field, form, conversion in found:
        if form or conversion:
            raise ValueError(f"{{{field}}} must stand plain, without '!' or ':'")
    return [field for field, _, _ in found]
