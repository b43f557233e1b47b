"""Sections of settings that know their own keys, and what is wrong with a setting in plain words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from distilrank.errors import UserError, did_you_mean

BAD_YAML = (ValueError, RecursionError, IndexError, KeyError, AttributeError, TypeError)
"""What PyYAML raises on a value that contradicts its own tag."""


def yaml_value(text: str, otherwise: str) -> Any:
    """What an option's text is as YAML. Raises `UserError` with the words of `otherwise` where it is none."""
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, *BAD_YAML):
        raise UserError(otherwise) from None


class Section(BaseModel):
    """A part of a recipe: frozen, and it knows its own keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    message = f"no setting {key!r}: {did_you_mean(str(key), cls.model_fields)}"
                    raise PydanticCustomError("unknown_key", "{message}", {"message": message, "key": str(key)})
        return data


class Mistake(NamedTuple):
    """What is wrong with a setting: where it stands, the key that is not known there (if that is it), and the words."""

    location: list[str | int]
    unknown: str
    told: str

    @property
    def place(self) -> list[str | int]:
        """The keys down to the one that is wrong."""
        return [*self.location, self.unknown] if self.unknown else self.location

    def __str__(self) -> str:
        section = ".".join(map(str, self.location))
        return f"{section}: {self.told}" if section else self.told


def mistake(error: ValidationError) -> Mistake:
    """The first mistake in plain words; of the forms that a setting may have, all are named."""
    found = [(_location(each["loc"]), each) for each in error.errors(include_url=False)]
    first = found[0][0]
    forms = [(location, each) for location, each in found if location[: len(first)] == first]
    deepest = max((location for location, _ in forms), key=len)
    same = [each for location, each in forms if location == deepest]
    kind, context = same[0]["type"], same[0].get("ctx", {})
    if kind == "unknown_key":
        return Mistake(deepest, context["key"], context["message"])
    if kind == "value_error":
        return Mistake(deepest, "", str(context["error"]))
    if kind == "missing":
        return Mistake(deepest, "", "must be given")
    if kind.startswith("union_tag_"):
        deepest = [*deepest, context["discriminator"].strip("'")]
        tag = context.get("tag")
        told = f"must be {context['expected_tags']}, but is {_shown(tag)}" if tag else "must be given"
        return Mistake(deepest, "", told)
    wanted = dict.fromkeys(_WANTED.get(each["type"], "something else").format(**each.get("ctx", {})) for each in same)
    return Mistake(deepest, "", f"must be {', or '.join(wanted)}, but is {_shown(same[0]['input'])}")


_WANTED = {
    "string_type": "a text",
    "string_unicode": "a text of whole characters",
    "string_too_short": "a text that is not empty",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "greater_than": "above {gt:.12g}",
    "greater_than_equal": "at least {ge:.12g}",
    "less_than": "below {lt:.12g}",
    "less_than_equal": "at most {le:.12g}",
    "literal_error": "{expected}",
    "tuple_type": "a list",
    "too_short": "a list that is not empty",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
"""What must stand there, by pydantic's name of the mistake (https://docs.pydantic.dev/latest/errors/validation_errors/)."""
_BRANCHES = {"causal", "likelihood", "cross-encoder", "embedder", "http", "ensemble", "float", "constrained-float"}


def _location(parts: tuple[str | int, ...]) -> list[str | int]:
    """The keys of a setting, without the names that pydantic gives to the forms of a union."""
    return [part for part in parts if part not in _BRANCHES and "[" not in str(part)]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int) and value.bit_length() > 64:
        return "too large a number"
    return (repr(value) if isinstance(value, str) else str(value))[:60]


def from_options(section: Any, called: Mapping[str, str] | None = None, /, **settings: Any) -> Any:
    """A section out of command-line options; `called` names those that are not called like their setting.

    Raises `UserError` with the option that is wrong.
    """
    try:
        return section(**settings)
    except ValidationError as error:
        found = mistake(error)
        name = str(found.location[0]) if found.location else ""
        raise UserError(f"{option((called or {}).get(name, name))}: {found.told}" if name else found.told) from None


def option(name: str) -> str:
    """A setting's name as typed on the command line."""
    return f"--{name.replace('_', '-')}"
