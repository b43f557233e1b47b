"""What a reader can look up query by query: each query's values, and the rankings side by side.

The values of all queries are one small JSON text that the page reads at once. The rankings with their texts are large:
they lie in the page gzipped, a block of queries at a time, and a block is unpacked when one of its queries is opened.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distilrank.evidence.evaluate import Evaluation, System
from distilrank.evidence.table import AGREEMENT
from distilrank.evidence.wording import cut
from distilrank.metrics import ranking
from distilrank.progress import bar
from distilrank.records import Group

BLOCK = 40
"""Queries in a block."""
LENGTHS = (600, 450, 300, 250, 200, 150, 125, 100, 75, 50)
"""Characters kept of a text: the first of these with which everything fits."""
LIMIT = 14_000_000
"""Bytes that all this may take in the page, so that a report can be sent by mail."""
SAMPLE = 20
"""Blocks by which the size of all is told beforehand."""
QUERY = 200
"""Characters of a query that the table shows and searches."""
SIDES = 3
"""Rankings side by side, where there is no student before and after."""


@dataclass(frozen=True)
class Rankings:
    """What the page's script reads. `length` is what was kept of each text, none where no text is in it."""

    index: str
    blocks: Sequence[str]
    length: int | None


def side_by_side(evaluation: Evaluation) -> list[System]:
    """The systems whose rankings are compared: before, after and teacher, or the first few where there is no pair."""
    before, after, teacher = (evaluation.with_role(role) for role in ("before", "after", "teacher"))
    if before and after:
        return [before, after, *([teacher] if teacher else [])]
    return list(evaluation.systems)[:SIDES]


def query_values(evaluation: Evaluation) -> dict[str, dict[str, np.ndarray]]:
    """Measure -> system -> a value a query, float64 [queries]; NaN where there is none. The teacher agrees with itself."""
    values = {
        name: {s.name: evaluation.measured[s.name].values[name] for s in evaluation.systems} for name in evaluation.measures
    }
    if evaluation.agreement:
        none = np.full(len(evaluation.groups), np.nan)
        agreement = {name: found.values["ndcg"] for name, found in evaluation.agreement.items()}
        values[AGREEMENT] = {system.name: agreement.get(system.name, none) for system in evaluation.systems}
    return values


def rankings(evaluation: Evaluation, *, texts: bool) -> Rankings:
    """All queries with the values and the rankings of `side_by_side`; without `texts`, ids and places only."""
    systems = side_by_side(evaluation)
    by_measure = query_values(evaluation)
    columns = [of_system[system.name] for of_system in by_measure.values() for system in systems]
    values = np.stack(columns, axis=1) if columns else np.empty((len(evaluation.groups), 0))
    rows = [
        [group.query_id, *([cut(group.query, QUERY)] if texts else []), [_short(value, 4) for value in row]]
        for group, row in zip(evaluation.groups, values.tolist(), strict=True)
    ]
    index = script_json(
        {
            "measures": list(by_measure),
            "systems": [system.name for system in systems],
            "pair": evaluation.with_role("before") is not None and evaluation.with_role("after") is not None,
            "texts": texts,
            "block": BLOCK,
            "rows": rows,
        }
    )
    starts = range(0, len(evaluation.groups), BLOCK)

    def block(start: int, length: int | None) -> str:
        numbers = range(start, min(start + BLOCK, len(evaluation.groups)))
        return _packed([_detail(evaluation.groups[number], number, systems, length) for number in numbers])

    sample = starts[:: max(1, len(starts) // SAMPLE)]

    def fits(length: int) -> bool:
        blocks = sum(len(block(start, length)) for start in sample) / len(sample) * len(starts)
        return blocks + len(index.encode("utf-8", "replace")) <= LIMIT

    length = next(filter(fits, LENGTHS), None) if texts else None
    blocks = []
    with bar("report", len(starts), "blocks of queries") as advance:
        for start in starts:
            blocks.append(block(start, length))
            advance(1)
    return Rankings(index, blocks, length)


def script_json(value: Any) -> str:
    """JSON that can stand in a `<script>` element: no text in it can end the element or open another."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _detail(group: Group, number: int, systems: Sequence[System], length: int | None) -> Any:
    detail: dict[str, Any] = {
        "labels": [passage.label for passage in group.passages],
        "orders": [ranking(group, system.scores[number]).tolist() for system in systems],
        "scores": [[_short(float(score), 3) for score in system.scores[number]] for system in systems],
    }
    if length is not None:
        detail["passages"] = [cut(passage.text, length) for passage in group.passages]
        if len(group.query) > QUERY:
            detail["query"] = cut(group.query, 10 * QUERY)
    return detail


def _packed(details: Sequence[Any]) -> str:
    text = json.dumps(details, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode("ascii")


def _short(value: float, digits: int) -> float | None:
    """As many decimals as are shown; strict JSON has no NaN."""
    return round(value, digits) if np.isfinite(value) else None
