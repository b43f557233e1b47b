"""Several systems' scores on the same candidates, measured, compared and kept in a folder.

An evaluation folder holds `evaluation.json` (means, tests, settings), `per_query.parquet` (a row a query and system) and
`scores.parquet` (a row a passage with every system's score).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distilrank.errors import UserError
from distilrank.evidence.significance import Paired, paired_t
from distilrank.metrics import DEFAULT_MEASURES, Measured, Scores, measure
from distilrank.records import Group, Passage
from distilrank.shards import whole_file, whole_folder, write_text

Role = Literal["baseline", "before", "after", "teacher", "member", "model"]


@dataclass(frozen=True)
class System:
    """Something that scores candidates, by its scores alone; `before` and `after` are the student's two states."""

    name: str
    role: Role
    scores: Scores


@dataclass(frozen=True)
class Evaluation:
    """What was measured. `comparisons` holds, by measure, the paired test of after against before, where both are there."""

    groups: Sequence[Group]
    systems: Sequence[System]
    measured: Mapping[str, Measured]
    measures: Sequence[str]
    comparisons: Mapping[str, Paired]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def with_role(self, role: Role) -> System | None:
        """The first system with a role."""
        return next((system for system in self.systems if system.role == role), None)

    @property
    def judged(self) -> np.ndarray:
        """Bool [queries]: those with a positive and a negative passage; the others are in no mean."""
        return self.measured[self.systems[0].name].judged

    def means(self) -> dict[str, dict[str, float]]:
        """System -> measure -> mean over the judged queries."""
        return {
            system.name: {name: self.measured[system.name].mean(name) for name in self.measures} for system in self.systems
        }


def evaluate(
    groups: Sequence[Group],
    systems: Sequence[System],
    measures: Sequence[str] = DEFAULT_MEASURES,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Measure every system on the same groups.

    Raises `UserError` when two systems share a name, or when there is nothing to measure.
    """
    names = [system.name for system in systems]
    if not systems:
        raise UserError("there is no system to measure")
    if len(set(names)) < len(names):
        raise UserError(f"two systems have one name: {', '.join(names)}")
    measured = {system.name: measure(groups, system.scores, measures) for system in systems}
    before = next((system.name for system in systems if system.role == "before"), None)
    after = next((system.name for system in systems if system.role == "after"), None)
    comparisons = {}
    if before and after:
        comparisons = {name: paired_t(measured[after].values[name], measured[before].values[name]) for name in measures}
    return Evaluation(groups, systems, measured, tuple(measures), comparisons, settings or {})


def save_evaluation(evaluation: Evaluation, folder: str | Path) -> None:
    """Write the evaluation folder, whole or absent."""
    measures, means = list(evaluation.measures), evaluation.means()
    summary = {
        "measures": measures,
        "queries": len(evaluation.groups),
        "judged": int(evaluation.judged.sum()),
        "systems": [
            {
                "name": system.name,
                "role": system.role,
                "means": means[system.name],
                "tied_share": evaluation.measured[system.name].tied_share,
            }
            for system in evaluation.systems
        ],
        "comparisons": {name: _without_nan(asdict(paired)) for name, paired in evaluation.comparisons.items()},
        "settings": dict(evaluation.settings),
    }
    per_query = [
        {"query_id": group.query_id, "query": group.query, "system": system.name}
        | {name: float(evaluation.measured[system.name].values[name][number]) for name in measures}
        for system in evaluation.systems
        for number, group in enumerate(evaluation.groups)
    ]
    scores: dict[str, list[Any]] = {key: [] for key in ("number", "query_id", "query", "passage", "label")}
    for number, group in enumerate(evaluation.groups):
        for passage in group.passages:
            for key, value in zip(scores, (number, group.query_id, group.query, passage.text, passage.label), strict=True):
                scores[key].append(value)
    columns = scores | {_column(system.name): np.concatenate(system.scores) for system in evaluation.systems}
    with whole_folder(folder, ours="evaluation.json") as whole:
        write_text(whole / "evaluation.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
        for name, table in (("per_query", pa.Table.from_pylist(per_query)), ("scores", pa.table(columns))):
            with whole_file(whole / f"{name}.parquet") as path:
                pq.write_table(table, path, compression="zstd")


def load_evaluation(folder: str | Path) -> Evaluation:
    """Read an evaluation folder. Raises `UserError` when it is not one."""
    folder = Path(folder)
    try:
        summary = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        table = pq.read_table(folder / "scores.parquet")
        rows = table.to_pydict()
        starts = np.flatnonzero(np.diff(rows["number"], prepend=-1)).tolist()
        groups = [
            Group(
                rows["query_id"][start],
                rows["query"][start],
                tuple(Passage(rows["passage"][i], label=rows["label"][i]) for i in range(start, end)),
            )
            for start, end in zip(starts, [*starts[1:], len(rows["number"])], strict=True)
        ]
        flat = {entry["name"]: table.column(_column(entry["name"])).to_numpy() for entry in summary["systems"]}
        systems = [
            System(entry["name"], entry["role"], np.split(flat[entry["name"]].astype(np.float32), starts[1:]))
            for entry in summary["systems"]
        ]
        measures, settings = summary["measures"], summary["settings"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{folder}: not an evaluation folder (make one with `distilrank evaluate`): {reason}") from None
    return evaluate(groups, systems, measures, settings)


def _column(name: str) -> str:
    return f"score: {name}"


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """Strict JSON has no NaN."""
    return {key: None if value != value else value for key, value in values.items()}
