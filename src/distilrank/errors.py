"""Errors that are told to the user in one line, and the exit code that each one means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: one clear line that says where and what to do. Exit code 2."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split("\n")))


class GateError(UserError):
    """A gate that the user asked for (leak, forgetting, parity) said no. Exit code 3."""

    exit_code = 3


def first_line(error: BaseException) -> str:
    """The first line of what another library's error says, or its name where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append to a message: the nearest known word, or all of them when none is near."""
    choices = sorted(known)
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(choices)}"
