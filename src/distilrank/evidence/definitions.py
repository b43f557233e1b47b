"""What the report's numbers mean: one text a term, one click away from each place where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STEMS = {"AP": "ap", "RR": "rr", "nDCG": "ndcg"}


def key_of(measure: str) -> str:
    """The key of a measure's definition."""
    return STEMS.get(measure.partition("@")[0], "measure")


class Definitions:
    """The definitions of a YAML text. Templates take terms from it, and the page defines those that were taken."""

    def __init__(self, source: str) -> None:
        import yaml

        self._known: Mapping[str, Mapping[str, str]] = yaml.safe_load(source)
        self._taken: set[str] = set()

    def term(self, key: str, text: str = "") -> Any:
        """A button that opens a definition. Raises `KeyError` where there is none."""
        from markupsafe import Markup

        name = text or self._known[key]["term"]
        self._taken.add(key)
        return Markup('<button type="button" class="term" popovertarget="means-{}">{}</button>').format(key, name)

    def used(self) -> list[tuple[str, Mapping[str, str]]]:
        """The definitions of the terms taken so far, in the order of the file."""
        return [(key, value) for key, value in self._known.items() if key in self._taken]
