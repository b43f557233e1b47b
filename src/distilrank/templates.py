"""Templates by data: YAML files in the package, and one's own."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from distilrank.errors import UserError
from distilrank.settings import BAD_YAML, Section, mistake

T = TypeVar("T", bound=Section)


def is_own(name_or_file: str) -> bool:
    """Whether a template is named by a file of the user's."""
    return name_or_file.endswith((".yaml", ".yml"))


def packaged(kind: type[T], package: str) -> dict[str, T]:
    """The templates in a package's folder `templates`, by name."""
    found = (entry for entry in files(package).joinpath("templates").iterdir() if entry.name.endswith(".yaml"))
    templates: list[Any] = [_parsed(kind, entry.read_text(encoding="utf-8"), entry.name) for entry in found]
    return {template.name: template for template in templates}


def read_own(kind: type[T], file: str) -> T:
    """A template of the user's. Raises `UserError` when it cannot be read or is not sound."""
    try:
        return _parsed(kind, Path(file).read_text(encoding="utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a template that can be read: {getattr(error, 'strerror', error)}") from None


def name_and_digest(template: Any) -> str:
    """`name-digest`: two templates of one name with different words are different; where they come from does not count."""
    text = json.dumps(template.model_dump(exclude={"source"}), sort_keys=True, ensure_ascii=False)
    return f"{template.name}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"


def _parsed(kind: type[T], text: str, source: str) -> T:
    try:
        data: Any = yaml.safe_load(text)
    except (yaml.YAMLError, *BAD_YAML) as error:
        raise UserError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{source}: {mistake(error)}") from None
