"""An evaluation as a folder: written once, whole or absent, and read again without measuring anything anew.

`evaluation.json` holds what was found, `per_query.parquet` a row a query and system, `scores.parquet` a row a passage with
every system's score, and `review.jsonl` the queries and passages that a person should look at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from distilrank.errors import UserError
from distilrank.evidence.agreement import NAMES, Agreement
from distilrank.evidence.cost import Cost
from distilrank.evidence.diagnostics import Diagnostics, Finding
from distilrank.evidence.evaluate import Evaluation, System
from distilrank.evidence.forgetting import Forgetting
from distilrank.evidence.retrieval import Retrieval
from distilrank.evidence.significance import Paired
from distilrank.evidence.threshold import Level
from distilrank.metrics import Counting, Measured
from distilrank.records import Group, Passage
from distilrank.shards import whole_file, whole_folder, write_text

FORMAT = 2
FINDINGS: dict[str, Any] = {
    "counting": Counting,
    "reference": str | None,
    "against": Mapping[str, Mapping[str, Paired]],
    "agreement_change": Mapping[str, Paired],
    "levels": Mapping[str, Level],
    "retrieval": Retrieval | None,
    "diagnostics": Diagnostics | None,
    "costs": Mapping[str, Cost],
    "forgetting": Sequence[Forgetting],
}
"""The fields of an evaluation that stand in `evaluation.json` as they are."""
_SCORE, _AGREEMENT = "score: ", "agreement: "


FILE = "evaluation.json"
"""The file of an evaluation folder that says what was found."""


def save_evaluation(evaluation: Evaluation, folder: str | Path) -> None:
    """Write the evaluation folder, whole or absent."""
    with whole_folder(folder, ours=FILE) as whole:
        write_text(whole / FILE, json.dumps(summary(evaluation), indent=1, ensure_ascii=False) + "\n")
        for name, table in (("per_query", _per_query(evaluation)), ("scores", _scores(evaluation))):
            with whole_file(whole / f"{name}.parquet") as path:
                pq.write_table(table, path, compression="zstd")
        if evaluation.review:
            lines = (json.dumps(asdict(finding), ensure_ascii=False) for finding in evaluation.review)
            write_text(whole / "review.jsonl", "\n".join(lines) + "\n")


def load_evaluation(folder: str | Path) -> Evaluation:
    """Read an evaluation folder. Raises `UserError` when it is not one."""
    folder = Path(folder)
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError("another version of distilrank made it: evaluate again")
        table = pq.read_table(folder / "scores.parquet")
        groups, starts = _groups(table)
        systems = [
            System(entry["name"], entry["role"], np.split(values, starts[1:]), entry.get("source", ""))
            for entry in found["systems"]
            for values in [_float32(table, _SCORE + entry["name"])]
        ]
        per_query = pq.read_table(folder / "per_query.parquet")
        measured, agreement = _read_per_query(per_query, found, len(groups))
        return Evaluation(
            groups,
            systems,
            measured,
            tuple(found["measures"]),
            found["settings"],
            agreement=agreement,
            review=read_review(folder),
            **{name: TypeAdapter(kind).validate_python(found[name]) for name, kind in FINDINGS.items()},
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException, ValidationError) as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0]
        raise UserError(f"{folder}: not an evaluation folder (make one with `distilrank evaluate`): {reason}") from None


def read_review(folder: str | Path) -> list[Finding]:
    """The findings of an evaluation folder; none where there was nothing to review."""
    path = Path(folder) / "review.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    adapter = TypeAdapter(Finding)
    return [adapter.validate_python(json.loads(line)) for line in lines if line]


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """What `evaluation.json` holds, for machines: plain lists and mappings, null for NaN."""
    means = evaluation.means()
    systems = [
        {
            "name": system.name,
            "role": system.role,
            "source": system.source,
            "means": means.get(system.name, {}),
            "tied_share": evaluation.measured[system.name].tied_share if evaluation.measures else None,
        }
        for system in evaluation.systems
    ]
    agreement = {
        name: {key: one.mean(key) for key in NAMES} | {"queries": one.queries} for name, one in evaluation.agreement.items()
    }
    whole = {
        "format": FORMAT,
        "measures": evaluation.measures,
        "queries": len(evaluation.groups),
        "judged": int(evaluation.judged.sum()),
        "left_out": evaluation.left_out,
        "systems": systems,
        "means": means,
        "comparisons": evaluation.comparisons,
        "gap_closed": evaluation.gap_closed,
        "agreement": agreement,
        **{name: getattr(evaluation, name) for name in FINDINGS},
        "settings": evaluation.settings,
    }
    plain: dict[str, Any] = json.loads(to_json(whole, inf_nan_mode="null"))
    return plain


def _per_query(evaluation: Evaluation) -> pa.Table:
    """A row a query and system: its measures, and its agreement with the teacher."""
    count, systems = len(evaluation.groups), [system.name for system in evaluation.systems]
    empty = np.full(count, np.nan)
    columns: dict[str, Any] = {
        "number": list(range(count)) * len(systems),
        "query_id": [group.query_id for group in evaluation.groups] * len(systems),
        "query": [group.query for group in evaluation.groups] * len(systems),
        "system": [name for name in systems for _ in range(count)],
    }
    for key in evaluation.measures:
        columns[key] = np.concatenate([evaluation.measured[name].values[key] for name in systems])
    for key in NAMES if evaluation.agreement else ():
        values = [evaluation.agreement[name].values[key] if name in evaluation.agreement else empty for name in systems]
        columns[_AGREEMENT + key] = np.concatenate(values)
    return pa.table(columns)


def _read_per_query(table: pa.Table, found: dict[str, Any], count: int) -> tuple[dict[str, Measured], dict[str, Agreement]]:
    def values(key: str, place: int) -> np.ndarray:
        column: np.ndarray = table.column(key).to_numpy()
        return column[place * count : (place + 1) * count]

    entries = list(enumerate(found["systems"]))
    if len(table) != count * len(entries):
        raise ValueError("per_query.parquet and scores.parquet do not hold the same queries")
    measures = found["measures"]
    measured = {
        entry["name"]: Measured({key: values(key, place) for key in measures}, float(entry["tied_share"]))
        for place, entry in entries
        if measures
    }
    agreement = {
        entry["name"]: Agreement({key: values(_AGREEMENT + key, place) for key in NAMES})
        for place, entry in entries
        if entry["name"] in found["agreement"]
    }
    return measured, agreement


def _scores(evaluation: Evaluation) -> pa.Table:
    """A row a passage, with every system's score."""
    rows = [
        (number, group.query_id, group.query, passage.text, passage.id, passage.label, passage.source, passage.rank)
        for number, group in enumerate(evaluation.groups)
        for passage in group.passages
    ]
    columns: dict[str, Any] = {
        field.name: pa.array([row[place] for row in rows], field.type) for place, field in enumerate(_PASSAGES)
    }
    return pa.table(columns | {_SCORE + system.name: np.concatenate(system.scores) for system in evaluation.systems})


_PASSAGES = pa.schema(
    [
        ("number", pa.int64()),
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("passage", pa.string()),
        ("passage_id", pa.string()),
        ("label", pa.int64()),
        ("source", pa.string()),
        ("rank", pa.int64()),
    ]
)


def _groups(table: pa.Table) -> tuple[list[Group], list[int]]:
    """The groups of `scores.parquet`, and where each starts."""
    rows = table.select(_PASSAGES.names).to_pydict()
    starts = np.flatnonzero(np.diff(rows["number"], prepend=-1)).tolist()
    passages = [
        Passage(*values)
        for values in zip(*(rows[key] for key in ("passage", "passage_id", "label", "source", "rank")), strict=True)
    ]
    groups = [
        Group(rows["query_id"][start], rows["query"][start], tuple(passages[start:end]))
        for start, end in zip(starts, [*starts[1:], len(passages)], strict=True)
    ]
    return groups, starts


def _float32(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table.column(name).to_numpy(), dtype=np.float32)
