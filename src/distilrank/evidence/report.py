"""An evaluation as one HTML file that a sceptic can read: the claim, its test, who won and lost, and how it was made.

The file needs no network, no font and no script. Whatever it says comes from the evaluation; what is missing there
(a teacher, a training record) is left out rather than guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.evidence import plots
from distilrank.evidence.evaluate import Evaluation, System
from distilrank.evidence.significance import Paired
from distilrank.evidence.table import Change, change_table, p_value, shown
from distilrank.metrics import ranking
from distilrank.records import Group, Passage
from distilrank.shards import whole_file

EXAMPLES = 8
"""How many of the biggest gains, and of the biggest losses, are shown with their texts."""
FIRST = 3
"""How many first-ranked passages are shown before and after."""
POSITIVES = 5
"""How many positive passages of an example are shown."""
TEXT = 600
"""Characters of a text that are shown; a report is for reading."""
LEVEL = 0.05
"""A p-value at or above it: a difference is not shown."""

ROLES = {
    "baseline": "baseline",
    "before": "student before",
    "after": "student after",
    "teacher": "teacher, the ceiling",
    "member": "member of the teacher",
    "model": "model",
}
NO_BREAK = "\u00a0"
OWN_SETTINGS = ("title", "recipe", "training", "notes", "stages")
_CONTROL = dict.fromkeys([*(set(range(32)) - set(b"\t\n\r")), 127], "\ufffd")


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
class Shown:
    """A passage as it is shown: its mark says what the label said; ranks are before, after and teacher (if any)."""

    text: str
    mark: str
    positive: bool
    ranks: Sequence[int] = ()


@dataclass(frozen=True)
class Example:
    """A query whose ranking changed much."""

    query: str
    change: float
    values: Sequence[float]
    positives: Sequence[Shown]
    more_positives: int
    first_before: Sequence[Shown]
    first_after: Sequence[Shown]


@dataclass(frozen=True)
class Verdicts:
    """Per-query changes of the first measure: the figure, how many went which way, and the extremes."""

    figure: str
    won: int
    tied: int
    lost: int
    gains: Sequence[Example]
    losses: Sequence[Example]


@dataclass(frozen=True)
class Figure:
    """A drawing with its visible title."""

    title: str
    svg: str


def write_report(evaluation: Evaluation, path: str | Path) -> None:
    """Write the report, one self-contained HTML file, whole or absent."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distilrank.evidence"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"signed": _signed, "number": _number, "p": p_value, "cut": _cut}
    html = environment.get_template("report.html.j2").render(_view(evaluation))
    with whole_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="replace")


def headline(evaluation: Evaluation) -> str:
    """The one sentence to remember, as weak as the evidence for it; without before and after, what was compared."""
    held_out = "held-out " if evaluation.settings.get("recipe") else ""
    number = int(evaluation.judged.sum())
    queries = f"{number:,} {held_out}{'query' if number == 1 else 'queries'}"
    change = _first_change(evaluation)
    if change is None:
        count = len(evaluation.systems)
        return f"{count} {'system' if count == 1 else 'systems'} on the same candidates, {queries}"
    name = shown(change.measure)
    worse = " got worse:" if change.absolute < 0 else ""
    values = f"{_brief(change.before)} → {_brief(change.after)} ({_brief_signed(change.absolute)}, {_p_words(change.p)})"
    return f"{name}{worse} {values} on {queries}{'' if change.p < LEVEL else ': a difference is not shown'}"


def _view(evaluation: Evaluation) -> dict[str, Any]:
    """What the template shows, all of it computed here."""
    settings = evaluation.settings
    training = settings.get("training") or {}
    others = {key: value for key, value in settings.items() if key not in OWN_SETTINGS}
    return {
        "title": settings.get("title") or "Reranker report",
        "headline": headline(evaluation),
        "remarks": _remarks(evaluation),
        "measures": [shown(name) for name in evaluation.measures],
        "changes": [(shown(c.measure), c, evaluation.comparisons[c.measure]) for c in change_table(evaluation)],
        "standings": _standings(evaluation),
        "ceiling": _ceiling(evaluation),
        "gap": _gap(evaluation),
        "first_measure": _first_measure(evaluation),
        "verdicts": _verdicts(evaluation),
        "distributions": _distributions(evaluation),
        "training_figures": _training_figures(training),
        "training": training,
        "notes": settings.get("notes") or [],
        "queries": len(evaluation.groups),
        "judged": int(evaluation.judged.sum()),
        "unlabelled": sum(passage.label is None for group in evaluation.groups for passage in group.passages),
        "recipe": settings.get("recipe"),
        "stages": settings.get("stages") or [],
        "others": json.dumps(others, indent=2, ensure_ascii=False, default=str) if others else "",
    }


def _first_measure(evaluation: Evaluation) -> str:
    """The measure that the headline and the queries are judged by: AP where it was measured."""
    return "AP" if "AP" in evaluation.measures else evaluation.measures[0]


def _first_change(evaluation: Evaluation) -> Change | None:
    measure = _first_measure(evaluation)
    return next((change for change in change_table(evaluation) if change.measure == measure), None)


def _remarks(evaluation: Evaluation) -> list[str]:
    """What follows the headline: the verdict in words, with its interval."""
    change = _first_change(evaluation)
    if change is None:
        return []
    paired: Paired = evaluation.comparisons[change.measure]
    if not math.isfinite(paired.low):
        return ["One query gives no interval and no test."]
    interval = f"95% interval of the difference: {_brief_signed(paired.low)} to {_brief_signed(paired.high)}."
    if not change.p < LEVEL:
        verdict = "These queries do not tell the student after training from the student before it."
    elif change.absolute < 0:
        verdict = "The student ranks worse after training than before it."
    else:
        verdict = "The student ranks better after training than before it."
    return [f"{verdict} {interval}"]


def _ceiling(evaluation: Evaluation) -> float | None:
    """Where the teacher stands on the bars' scale."""
    return next((standing.bar for standing in _standings(evaluation) if standing.kind == "teacher"), None)


def _gap(evaluation: Evaluation) -> str:
    """How much of the way from the student before to the teacher was gone, in a sentence; empty without all three."""
    change, teacher = _first_change(evaluation), evaluation.with_role("teacher")
    if change is None or teacher is None:
        return ""
    name = shown(change.measure)
    best = evaluation.means()[teacher.name][change.measure]
    if not best > change.before:
        return (
            f"The teacher ({name} {_brief(best)}) is not above the student before training ({_brief(change.before)}): "
            "there was no gap to close."
        )
    share = change.absolute / (best - change.before)
    way = f"from {_brief(change.before)} to the teacher's {_brief(best)}"
    if share < 0:
        return f"The gap in {name} {way} was not closed: it grew by {-share:.0%}."
    return f"Share of the gap closed: {share:.0%} of the way in {name} {way}."


def _standings(evaluation: Evaluation) -> list[Standing]:
    """Every system, best first by the first measure."""
    means, first = evaluation.means(), _first_measure(evaluation)
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


def _verdicts(evaluation: Evaluation) -> Verdicts | None:
    """Who won and who lost, or none without before and after."""
    before, after = evaluation.with_role("before"), evaluation.with_role("after")
    if before is None or after is None:
        return None
    measure = _first_measure(evaluation)
    change = evaluation.measured[after.name].values[measure] - evaluation.measured[before.name].values[measure]
    change = np.where(np.abs(change) < 1e-12, 0.0, change)
    known = np.flatnonzero(~np.isnan(change))
    gains = sorted((index for index in known.tolist() if change[index] > 0), key=lambda index: -change[index])
    losses = sorted((index for index in known.tolist() if change[index] < 0), key=lambda index: change[index])
    teacher = evaluation.with_role("teacher")
    systems = [before, after, *([teacher] if teacher else [])]
    return Verdicts(
        plots.changes(change[known], measure),
        len(gains),
        len(known) - len(gains) - len(losses),
        len(losses),
        [_example(evaluation, index, systems, float(change[index])) for index in gains[:EXAMPLES]],
        [_example(evaluation, index, systems, float(change[index])) for index in losses[:EXAMPLES]],
    )


def _example(evaluation: Evaluation, index: int, systems: Sequence[System], change: float) -> Example:
    """One query with what `systems` (before, after, perhaps the teacher) made of it."""
    group, measure = evaluation.groups[index], _first_measure(evaluation)
    orders = [ranking(group, system.scores[index]).tolist() for system in systems]
    positives = [place for place in orders[1] if group.passages[place].label]
    return Example(
        group.query,
        change,
        [float(evaluation.measured[system.name].values[measure][index]) for system in systems],
        [_shown(group, place, [order.index(place) + 1 for order in orders]) for place in positives[:POSITIVES]],
        max(0, len(positives) - POSITIVES),
        [_shown(group, place) for place in orders[0][:FIRST]],
        [_shown(group, place) for place in orders[1][:FIRST]],
    )


def _shown(group: Group, place: int, ranks: Sequence[int] = ()) -> Shown:
    passage = group.passages[place]
    return Shown(passage.text, _mark(passage), bool(passage.label), ranks)


def _mark(passage: Passage) -> str:
    if passage.label is None:
        return "no label"
    return "other" if passage.label == 0 else "positive" + f", grade {passage.label}" * (passage.label > 1)


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
        svg = plots.curve(agreements, title, "nDCG@10", smoothed=False)
        figures.append(Figure("Agreement with the teacher on validation queries", svg))
    return figures


def _points(entries: Iterable[Mapping[str, Any]] | None, key: str) -> list[tuple[float, float]]:
    """(step, value) of the entries that hold a finite number."""
    found = [(entry.get("step"), entry.get(key)) for entry in entries or []]
    return [
        (float(step), float(value))
        for step, value in found
        if step is not None and value is not None and math.isfinite(value)
    ]


# ---- how numbers and texts are written --------------------------------------------------------------------------------


def _cut(text: str, most: int = TEXT) -> str:
    """A text short enough to read, without the control characters that HTML forbids."""
    whole = str(text).translate(_CONTROL)
    return whole if len(whole) <= most else whole[:most].rstrip() + " …"


def _number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def _signed(value: float, style: str = ".4f") -> str:
    return f"{value:+{style}}".replace("-", "−") if math.isfinite(value) else "–"


def _brief(value: float) -> str:
    """Three decimals without the leading zero, as measures are quoted in prose."""
    return _number(value, 3).replace("0.", ".", 1) if abs(value) < 0.9995 else _number(value, 3)


def _brief_signed(value: float) -> str:
    return ("−" if value < 0 else "+") + _brief(abs(value))


def _p_words(p: float) -> str:
    if math.isnan(p):
        return "no test"
    text = p_value(p).replace("0.", ".", 1) if p < 1 else "1"
    return (f"p {text}" if text.startswith("<") else f"p = {text}").replace(" ", NO_BREAK)
