"""What models, sets and recipes are called where others may read it: short, told apart, without this machine's folders."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

HUBS = ("hf:", "modelscope:")


def published_name(source: str) -> str:
    """A source as a published page may name it: a hub name without `hf:`, a path without its folders."""
    if source.startswith("hf:"):
        return source.removeprefix("hf:").removeprefix("datasets/").partition("@")[0].partition(":")[0]
    return Path(os.path.abspath(source)).name if _is_path(source) else source


def published_source(source: str) -> str:
    """The whole of a source that a published page may hold: a path below the working folder as it is from there, of any
    other path the last part; everything else as it was given.
    """
    if not _is_path(source):
        return source
    path = Path(os.path.abspath(Path(source).expanduser()))
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.name


def short_names(sources: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """A name for each source, all different and none of them `taken`: its last part, longer only where it must be, and
    numbered where even the whole is not enough.
    """
    forms = [_forms(source) for source in sources]
    lengths = [0] * len(sources)
    while True:
        names = [of_one[length] for of_one, length in zip(forms, lengths, strict=True)]
        found = Counter([*names, *taken])
        longer = [n for n, name in enumerate(names) if found[name] > 1 and lengths[n] + 1 < len(forms[n])]
        if not longer:
            return _numbered(names, taken)
        for number in longer:
            lengths[number] += 1


def published_recipe(text: str) -> str:
    """A recipe's text with every local path as `published_source` has it."""
    import yaml

    return yaml.safe_dump(_published(yaml.safe_load(text)), sort_keys=False, allow_unicode=True, width=120)


def _is_path(source: str) -> bool:
    return source.startswith(("/", "~/", "./", "../")) or os.path.exists(source)


def _forms(source: str) -> list[str]:
    """The names that a source may have, from the shortest to the whole."""
    scheme = next((hub for hub in HUBS if source.startswith(hub)), "")
    if scheme and not _is_path(source):
        rest = source.removeprefix(scheme).removeprefix("datasets/")
        owned = re.split("[@:]", rest, maxsplit=1)[0]
        return list(dict.fromkeys([owned.rpartition("/")[2], owned, rest, source]))
    if source.startswith("demo:"):
        return list(dict.fromkeys([":".join(source.split(":")[:2]), source]))
    if source.startswith("pypi:"):
        wheel, _, inside = source.partition("#")[0].removeprefix("pypi:").partition(":")
        return list(dict.fromkeys([inside.rpartition("/")[2] or wheel, f"{wheel}:{inside}" if inside else wheel, source]))
    if not _is_path(source) and (":" in source or "/" not in source):
        return [source]
    parts = Path(os.path.abspath(Path(source).expanduser())).parts[1:] if _is_path(source) else tuple(source.split("/"))
    return ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)] or [source]


def _numbered(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    result: list[str] = []
    for name in names:
        number, free = 1, name
        while free in (*result, *taken):
            number += 1
            free = f"{name} ({number})"
        result.append(free)
    return result


def _published(value: object) -> object:
    if isinstance(value, dict):
        return {key: _published(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_published(entry) for entry in value]
    if not isinstance(value, str) or "\n" in value:
        return value
    if value.startswith("duckdb:"):
        return re.sub(r"'([^']*/[^']*)'", lambda quoted: f"'{published_source(quoted[1])}'", value)
    return published_source(value) if value.startswith(("/", "~/", "../")) else value
