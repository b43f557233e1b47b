"""An evaluation as one HTML file that a sceptic can read: the claim, its test, who won and lost, and how it was made.

The file needs no network and no font; without scripts it lacks only the table of all queries. Whatever it says comes from
the evaluation; what is missing there (a teacher, a training record) is left out rather than guessed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.evidence import plots
from distilrank.evidence.answers import answers, gap_closed, headline, remarks
from distilrank.evidence.definitions import Definitions, key_of
from distilrank.evidence.evaluate import Evaluation, System
from distilrank.evidence.rankings import rankings, side_by_side
from distilrank.evidence.table import change_table, first_measure, p_value, shown
from distilrank.evidence.verdicts import verdicts
from distilrank.evidence.wording import cut, number, signed
from distilrank.shards import whole_file

SECTIONS = ("changes", "systems", "queries", "spread", "training", "notes", "made")
"""In this order; each is a template of that name, and leaves itself out where the evaluation has no numbers for it."""
ROLES = {
    "baseline": "baseline",
    "before": "student before",
    "after": "student after",
    "teacher": "teacher, the ceiling",
    "member": "member of the teacher",
    "model": "model",
}
OWN_SETTINGS = ("title", "recipe", "training", "notes", "stages")


@dataclass(frozen=True)
class Measure:
    """A measure by the usual name of its mean, with the key of its definition."""

    name: str
    key: str


@dataclass(frozen=True)
class Standing:
    """One system in the table: means by measure, and its bar's length as a share of the scale."""

    name: str
    role: str
    kind: str
    means: Sequence[float]
    bar: float
    tied_share: float


@dataclass(frozen=True)
class Figure:
    """A drawing with its visible title."""

    title: str
    svg: str


def write_report(evaluation: Evaluation, path: str | Path, *, texts: bool = True) -> None:
    """Write the report, one self-contained HTML file, whole or absent; without `texts` no query or passage is in it."""
    import jinja2

    loader = jinja2.PackageLoader("distilrank.evidence")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )

    def source(name: str) -> str:
        return loader.get_source(environment, name)[0]

    definitions = Definitions(source("definitions.yaml"))
    script = source("report.js")
    environment.filters |= {"signed": signed, "number": number, "p": p_value, "cut": cut}
    environment.globals |= {"term": definitions.term, "defined": definitions.used}
    page = {
        "sections": SECTIONS,
        "style": source("report.css"),
        "script": script,
        # The page runs this script and no other, whatever stands in a text.
        "script_hash": "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    html = environment.get_template("report.html.j2").render(page | _view(evaluation, texts=texts))
    with whole_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="replace")


def _view(evaluation: Evaluation, *, texts: bool) -> dict[str, Any]:
    """What the templates show, all of it computed here."""
    settings = evaluation.settings
    training = settings.get("training") or {}
    others = {key: value for key, value in settings.items() if key not in OWN_SETTINGS}
    by_query = verdicts(evaluation, texts=texts)
    return {
        "title": settings.get("title") or "Reranker report",
        "headline": headline(evaluation),
        "remarks": remarks(evaluation),
        "answers": answers(evaluation, by_query),
        "texts": texts,
        "measures": [_measure(name) for name in evaluation.measures],
        "first_measure": first_measure(evaluation),
        "changes": [(_measure(c.measure), c, evaluation.comparisons[c.measure]) for c in change_table(evaluation)],
        "standings": _standings(evaluation),
        "ceiling": _ceiling(evaluation),
        "gap": gap_closed(evaluation),
        "verdicts": by_query,
        "rankings": rankings(evaluation, texts=texts),
        "sides": [system.name for system in side_by_side(evaluation)],
        "query_measures": list(evaluation.measures),
        "distributions": _distributions(evaluation),
        "training_figures": _training_figures(training),
        "kept": _kept(training),
        "training": training,
        "notes": settings.get("notes") or [],
        "queries": len(evaluation.groups),
        "judged": int(evaluation.judged.sum()),
        "unlabelled": sum(passage.label is None for group in evaluation.groups for passage in group.passages),
        "recipe": settings.get("recipe"),
        "stages": settings.get("stages") or [],
        "others": json.dumps(others, indent=2, ensure_ascii=False, default=str) if others else "",
    }


def _measure(name: str) -> Measure:
    return Measure(shown(name), key_of(name))


def _ceiling(evaluation: Evaluation) -> float | None:
    """Where the teacher stands on the bars' scale."""
    return next((standing.bar for standing in _standings(evaluation) if standing.kind == "teacher"), None)


def _standings(evaluation: Evaluation) -> list[Standing]:
    """Every system, best first by the first measure."""
    means, first = evaluation.means(), first_measure(evaluation)
    scale = max(1.0, *(means[system.name][first] for system in evaluation.systems))
    rows = [
        Standing(
            system.name,
            ROLES[system.role],
            system.role,
            [means[system.name][name] for name in evaluation.measures],
            means[system.name][first] / scale,
            evaluation.measured[system.name].tied_share,
        )
        for system in evaluation.systems
    ]
    return sorted(rows, key=lambda row: -row.bar)


def _distributions(evaluation: Evaluation) -> list[Figure]:
    """Scores of positives against others, for the student before and after and for the teacher."""
    judged = np.flatnonzero(evaluation.judged).tolist()
    labels = [bool(passage.label) for index in judged for passage in evaluation.groups[index].passages]
    positive = np.asarray(labels, dtype=bool)
    figures = []
    for role in ("before", "after", "teacher"):
        system = evaluation.with_role(role)
        if system is None:
            continue
        scores = np.concatenate([np.asarray(system.scores[index], dtype=np.float64) for index in judged])
        finite = np.isfinite(scores)
        if (scores_in := scores[finite]).size:
            title = f"Scores of {system.name}: {int(positive.sum())} positives and {int((~positive).sum())} others"
            inside = positive[finite]
            figures.append(Figure(_role_and_name(system), plots.histogram(scores_in[inside], scores_in[~inside], title)))
    return figures


def _role_and_name(system: System) -> str:
    return f"{ROLES[system.role].partition(',')[0].capitalize()}: {system.name}"


def _training_figures(training: Mapping[str, Any]) -> list[Figure]:
    """The loss, and the agreement from before the first step to the kept model, as far as they were recorded."""
    figures = []
    losses = _points(training.get("loss"), "loss")
    if losses:
        title = "Training loss by optimiser step"
        figures.append(Figure("Training loss", plots.curve(losses, title, "loss", smoothed=True)))
    before = (training.get("result") or {}).get("agreement_before")
    agreements = _points([{"step": 0, "agreement": before}, *(training.get("agreement") or [])], "agreement")
    if len(agreements) > 1:
        title = "Agreement with the teacher on validation queries by optimiser step"
        svg = plots.curve(agreements, title, "nDCG@10", smoothed=False, kept=_kept(training))
        figures.append(Figure("Agreement with the teacher on validation queries", svg))
    return figures


def _kept(training: Mapping[str, Any]) -> int | None:
    """The step of the model that was kept, where the record tells: the first with the agreement that the model has."""
    after = (training.get("result") or {}).get("agreement_after")
    for step, value in _points(training.get("agreement"), "agreement"):
        if after is not None and math.isclose(value, after, abs_tol=1e-6):
            return int(step)
    return None


def _points(entries: Iterable[Mapping[str, Any]] | None, key: str) -> list[tuple[float, float]]:
    """(step, value) of the entries that hold a finite number."""
    found = [(entry.get("step"), entry.get(key)) for entry in entries or []]
    return [
        (float(step), float(value))
        for step, value in found
        if step is not None and value is not None and math.isfinite(value)
    ]
