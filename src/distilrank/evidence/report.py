"""An evaluation as one HTML file that a sceptic can read: the claim, its test, who won and lost, and how it was made.

The file needs no network and no font; without scripts it lacks only the table of all queries. Whatever it says comes from
the evaluation; what is missing there (a teacher, a training record) is left out rather than guessed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilrank.evidence import figures
from distilrank.evidence.answers import answers, gap_closed, headline, remarks, setup
from distilrank.evidence.definitions import Definitions, key_of
from distilrank.evidence.diagnostics import Finding
from distilrank.evidence.evaluate import Evaluation
from distilrank.evidence.rankings import query_values, rankings, side_by_side
from distilrank.evidence.table import change_table, first_measure
from distilrank.evidence.threshold import level_note
from distilrank.evidence.verdicts import verdicts
from distilrank.evidence.wording import brief, counted, cut, duration, number, p_value, points, shown, signed, size
from distilrank.shards import whole_file

SECTIONS = (
    "changes", "systems", "agreement", "queries", "forgetting", "cost", "retrieval", "levels", "spread", "teacher",
    "training", "notes", "made",
)  # fmt: skip
"""In this order; each is a template of that name, and leaves itself out where the evaluation has no numbers for it."""
FINDINGS = 3
"""How many findings of a kind are shown; `review.jsonl` holds the others."""
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
    source: str
    """Where it comes from, where its name does not say so."""


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
    environment.filters |= {
        "signed": signed, "number": number, "brief": brief, "p": p_value, "cut": cut, "duration": duration, "size": size,
        "setup": setup, "shown": shown, "points": points, "counted": counted,
    }  # fmt: skip
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
    """What the templates show beside the evaluation itself, all of it computed here."""
    settings = evaluation.settings
    training = settings.get("training") or {}
    others = {key: value for key, value in settings.items() if key not in OWN_SETTINGS}
    by_query = verdicts(evaluation, texts=texts)
    first = first_measure(evaluation)
    against = [(name, tests[first]) for name, tests in evaluation.against.items()]
    return {
        "evaluation": evaluation,
        "title": settings.get("title") or "Reranker report",
        "headline": headline(evaluation),
        "remarks": remarks(evaluation),
        "answers": answers(evaluation, by_query),
        "texts": texts,
        "measures": [_measure(name) for name in evaluation.measures],
        "first_measure": first,
        "changes": [(_measure(c.measure), c, evaluation.comparisons[c.measure]) for c in change_table(evaluation)],
        "ceiling": _ceiling(evaluation),
        "standings": _standings(evaluation) if evaluation.measures else [],
        "scale": _scale(evaluation) if evaluation.measures else 1.0,
        "gap": gap_closed(evaluation),
        "against": sorted(against, key=lambda pair: pair[1].difference),
        "level_note": _level_note(evaluation),
        "verdicts": by_query,
        "rankings": rankings(evaluation, texts=texts),
        "sides": [system.name for system in side_by_side(evaluation)],
        "query_measures": list(query_values(evaluation)),
        "findings": _some_of_each(evaluation.review) if texts else {},
        "figures": {
            "differences": figures.difference_figure(evaluation),
            "scores": figures.score_figures(evaluation),
            "latency": figures.latency_figures(evaluation),
            "retrieval": figures.retrieval_figures(evaluation),
            "teacher": figures.teacher_figures(evaluation),
            "training": figures.training_figures(training),
        },
        "kept": figures.kept_step(training),
        "margins": any("margin_correlation" in entry for entry in training.get("loss") or []),
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


def _level_note(evaluation: Evaluation) -> str:
    """Whether training moved the level between queries, where both levels are known."""
    before, after = evaluation.with_role("before"), evaluation.with_role("after")
    if before is None or after is None or not {before.name, after.name} <= evaluation.levels.keys():
        return ""
    return level_note(evaluation.levels[before.name], evaluation.levels[after.name])


def _ceiling(evaluation: Evaluation) -> float | None:
    """Where the teacher stands on the bars' scale."""
    if not evaluation.measures:
        return None
    return next((standing.bar for standing in _standings(evaluation) if standing.kind == "teacher"), None)


def _some_of_each(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """The first few findings of each kind, the strongest."""
    some: dict[str, list[Finding]] = {}
    for finding in findings:
        if len(of_kind := some.setdefault(finding.kind, [])) < FINDINGS:
            of_kind.append(finding)
    return some


def _scale(evaluation: Evaluation) -> float:
    """Where the bars end: at 1, or at the best mean of a measure that goes beyond."""
    return max([1.0, *(means[first_measure(evaluation)] for means in evaluation.means().values())])


def _standings(evaluation: Evaluation) -> list[Standing]:
    """Every system, best first by the first measure."""
    means, first, scale = evaluation.means(), first_measure(evaluation), _scale(evaluation)
    rows = [
        Standing(
            system.name,
            figures.ROLES[system.role],
            system.role,
            [means[system.name][name] for name in evaluation.measures],
            means[system.name][first] / scale,
            evaluation.measured[system.name].tied_share,
            "" if system.source == system.name else system.source,
        )
        for system in evaluation.systems
    ]
    return sorted(rows, key=lambda row: -row.bar)
