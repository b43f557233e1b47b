"""Looking after a score store: what it holds, whether it is whole, and fewer, larger parts."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from distilrank.errors import UserError, first_line
from distilrank.scoring.store import PART, ScoreStore, is_part, part_schema, show_parts
from distilrank.shards import append_part, parts, remove_leftovers
from distilrank.spill import spilling_database
from distilrank.teachers import TeacherIdentity

COMPACT_PAIRS = 4_000_000
"""Pairs of a compacted part: about 80 MB."""


class Known(NamedTuple):
    """A teacher of a store, and the name that it was given when it was first asked (empty in an older store)."""

    identity: TeacherIdentity
    model: str


def identities(store: Path) -> dict[str, Known]:
    """Digest -> every teacher in a store. Raises `UserError` when the folder is no store."""
    found = {}
    for described in sorted(store.glob("*/identity.json")):
        try:
            content = json.loads(described.read_text(encoding="utf-8"))
            model = str(content.pop("model", ""))
            found[described.parent.name] = Known(TeacherIdentity(**content), model)
        except (ValueError, TypeError, AttributeError):
            raise UserError(f"{described}: not an identity of ours: no scores can be read beside it") from None
    if not found:
        raise UserError(f"{store}: no score store: it has no folder with an identity.json")
    return found


def open_store(store: Path, beginning: str | None) -> ScoreStore:
    """The scores of one teacher of a store, named by the first digits of its digest where there are several."""
    known = identities(store)
    chosen = [digest for digest in known if digest.startswith(beginning or "") and (beginning or parts(store / digest))]
    if len(chosen) != 1:
        listed = ", ".join(
            f"{digest[:8]} ({' '.join(filter(None, (identity.kind, model)))})"
            for digest, (identity, model) in known.items()
            if parts(store / digest)
        )
        which = f"whose identity begins with {beginning}" if beginning else "with scores"
        raise UserError(
            f"{store}: {len(chosen)} teachers {which}; {f'name one of {listed}' if listed else 'it holds no scores yet'}"
        )
    return ScoreStore(store, known[chosen[0]].identity)


def list_store(store: Path) -> list[dict[str, Any]]:
    """A row a teacher: its identity and model, pairs, parts, bytes, and pairs by engine and machine."""
    rows = []
    for digest, (identity, model) in identities(store).items():
        found = parts(store / digest)
        pairs: Counter[str] = Counter()
        for part in found:
            made = {key.decode(): value.decode() for key, value in (part_schema(part).metadata or {}).items()}
            pairs[f"{made.get('engine', '?')} on {made.get('machine', '?')}"] += _rows(part)
        rows.append(
            {"digest": digest, "pairs": pairs.total(), "parts": len(found), "bytes": sum(p.stat().st_size for p in found)}
            | {"made": dict(pairs), "model": model, "identity": vars(identity)}
        )
    return rows


def print_store(rows: Sequence[dict[str, Any]]) -> None:
    """The rows of `list_store` as a table on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("identity", "teacher", "model", "dtype, tokens", "prompt", "pairs", "parts", "MB", "made by"):
        table.add_column(name, overflow="fold", no_wrap=name in ("identity", "teacher", "pairs", "parts", "MB"))
    for row in rows:
        known = row["identity"]
        read = ", ".join(filter(None, (known["dtype"], known["max_length"] and f"{known['max_length']:,}")))
        prompt = " ".join(filter(None, (known["template"], known["instruction"])))
        made = ", ".join(f"{how}: {count:,}" for how, count in row["made"].items())
        sizes = (f"{row['pairs']:,}", f"{row['parts']:,}", f"{row['bytes'] / 1e6:.1f}")
        table.add_row(row["digest"][:8], known["kind"], row["model"], read, prompt, *sizes, made)
    # What people wrote is shown as it is: an instruction may hold [brackets] or :colons:.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140, markup=False, emoji=False).print(table)


def verify_store(store: Path) -> list[str]:
    """What is wrong with a store, a line a problem; empty when it is whole."""
    problems: list[str] = []
    for digest, (identity, _) in identities(store).items():
        folder = store / digest
        if identity.digest != digest:
            problems.append(f"{folder}: its identity.json is another teacher's ({identity.digest})")
        whole: list[Path] = []
        for part in parts(folder):
            try:
                schema = _read(part).schema
            except UserError as error:
                problems.append(str(error))
                continue
            if not is_part(schema):
                found = ", ".join(f"{column.name} ({column.type})" for column in schema)
                problems.append(f"{part}: not ours, delete it: it has {found} and not pair (binary), score (float)")
            else:
                whole.append(part)
        if whole:
            with spilling_database() as database:
                show_parts(database, whole)
                odd = database.execute("SELECT count(*) FROM have WHERE NOT isfinite(score)").fetchone()[0]
                torn = database.execute(
                    "SELECT count(*) FROM (SELECT pair FROM have GROUP BY pair HAVING min(score) <> max(score))"
                ).fetchone()[0]
            if odd:
                problems.append(f"{folder}: {odd:,} scores are not finite")
            if torn:
                problems.append(f"{folder}: {torn:,} pairs have two different scores (two engines, or two runs at once)")
    return problems


def compact_store(store: Path) -> tuple[int, int]:
    """Join parts with one provenance into large ones, each pair once; returns the numbers of parts before and after.

    The new part is whole on disk before the old ones go, so a kill in between leaves pairs twice, never lost.
    """
    before = after = 0
    for digest in identities(store):
        folder = store / digest
        remove_leftovers(folder)
        found = parts(folder)
        before += len(found)
        by_provenance: dict[tuple[Any, ...], list[Path]] = {}
        for part in found:
            made = part_schema(part).metadata or {}
            by_provenance.setdefault(tuple(sorted(made.items())), []).append(part)
        for small in by_provenance.values():
            after += _joined(folder, small)
    return before, after


def _joined(folder: Path, small: Sequence[Path]) -> int:
    """Join some parts of one provenance; returns how many there are now."""
    made = pairs = 0
    waiting: list[Path] = []
    for position, part in enumerate(small):
        waiting.append(part)
        pairs += _rows(part)
        last = position == len(small) - 1
        if last or pairs >= COMPACT_PAIRS:
            if len(waiting) > 1:
                table = pa.concat_tables([_read(path) for path in waiting])
                once = table.group_by("pair").aggregate([("score", "max")]).rename_columns(["pair", "score"])
                append_part(folder, once.cast(PART.with_metadata(table.schema.metadata)))
                for path in waiting:
                    path.unlink()
            made += 1
            waiting, pairs = [], 0
    return made


def _rows(part: Path) -> int:
    with part.open("rb") as stream:
        return int(pq.read_metadata(stream).num_rows)


def _read(part: Path) -> pa.Table:
    try:
        with part.open("rb") as stream:
            return pq.read_table(stream)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{part}: not whole, delete it: {first_line(error)}") from None
