"""Places in a YAML file: changed by their path, and found again by line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from distilrank.errors import UserError
from distilrank.settings import yaml_value

NULLS = {"null": "None", "~": "None", "": "None"}


def change_at(data: dict[str, Any], change: str) -> None:
    """Carry out a change like `train.epochs=2`. Raises `UserError` where there is no such place."""
    path, equals, text = change.partition("=")
    if not equals or not path:
        raise UserError(f"--set {change}: write it as key=value, like train.epochs=2")
    value = yaml_value(text, f"--set {change}: {text!r} is not a YAML value")
    *parents, last = path.split(".")
    place: Any = data
    try:
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
        if isinstance(place, list) and int(last) >= 0:
            place[int(last)] = value
        elif isinstance(place, dict):
            place[last] = value
        else:
            raise TypeError
    except (ValueError, IndexError, AttributeError, TypeError):
        raise UserError(f"--set {change}: there is no place {path} in the recipe") from None


def concerns(change: str, place: Sequence[str | int]) -> bool:
    """Whether a change set what stands at a place of the recipe, something in it, or something around it."""
    keys = change.partition("=")[0].split(".")
    return bool(place) and all(key == str(part) for key, part in zip(keys, place, strict=False))


def line_of(node: Any, location: Sequence[str | int]) -> int:
    """The line of the deepest part of `location` that the file has; an unknown key has its own line."""
    line = int(node.start_mark.line) + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if part in (key.value, NULLS.get(str(key.value)))]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = [(node.value[part], node.value[part])]
        else:
            found = []
        if not found:
            return line
        line, node = int(found[0][0].start_mark.line) + 1, found[0][1]
    return line
