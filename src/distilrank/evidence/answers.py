"""What the report says first: the headline, and short answers to what a sceptic asks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from distilrank.evidence.evaluate import Evaluation
from distilrank.evidence.table import Change, change_table, first_measure, shown
from distilrank.evidence.verdicts import Verdicts
from distilrank.evidence.wording import brief, brief_signed, counted, p_words

LEVEL = 0.05
"""A p-value at or above it: a difference is not shown."""


@dataclass(frozen=True)
class Answer:
    """A question, its answer in a sentence, and the section that bears it out."""

    question: str
    text: str
    section: str


def headline(evaluation: Evaluation) -> str:
    """The one sentence to remember, as weak as the evidence for it; without before and after, what was compared."""
    held_out = "held-out " if evaluation.settings.get("recipe") else ""
    queries = counted(int(evaluation.judged.sum()), f"{held_out}query", f"{held_out}queries")
    change = first_change(evaluation)
    if change is None:
        return f"{counted(len(evaluation.systems), 'system')} on the same candidates, {queries}"
    name = shown(change.measure)
    worse = " got worse:" if change.absolute < 0 else ""
    values = f"{brief(change.before)} → {brief(change.after)} ({brief_signed(change.absolute)}, {p_words(change.p)})"
    return f"{name}{worse} {values} on {queries}{'' if change.p < LEVEL else ': a difference is not shown'}"


def remarks(evaluation: Evaluation) -> list[str]:
    """What follows the headline: the verdict in words, with its interval."""
    change = first_change(evaluation)
    if change is None:
        return []
    paired = evaluation.comparisons[change.measure]
    if not math.isfinite(paired.low):
        return ["One query gives no interval and no test."]
    interval = f"95% interval of the difference: {brief_signed(paired.low)} to {brief_signed(paired.high)}."
    if not change.p < LEVEL:
        verdict = "These queries do not tell the student after training from the student before it."
    elif change.absolute < 0:
        verdict = "The student ranks worse after training than before it."
    else:
        verdict = "The student ranks better after training than before it."
    return [f"{verdict} {interval}"]


def answers(evaluation: Evaluation, verdicts: Verdicts | None) -> list[Answer]:
    """One answer to each question that this evaluation can answer; the others are not asked."""
    found = []
    if gap := gap_closed(evaluation):
        found.append(Answer("How far from its teacher?", gap, "systems"))
    if verdicts:
        number = verdicts.won + verdicts.tied + verdicts.lost
        worst = f", by up to {brief(-verdicts.worst)}" if verdicts.lost else ""
        text = f"On {verdicts.lost:,} of {counted(number, 'query', 'queries')}{worst}; better on {verdicts.won:,}."
        found.append(Answer("Where did it get worse?", text, "verdicts"))
    return found


def first_change(evaluation: Evaluation) -> Change | None:
    """Before and after by the first measure, where both are there."""
    measure = first_measure(evaluation)
    return next((change for change in change_table(evaluation) if change.measure == measure), None)


def gap_closed(evaluation: Evaluation) -> str:
    """How much of the way from the student before to the teacher was gone, in a sentence; empty without all three."""
    change, teacher = first_change(evaluation), evaluation.with_role("teacher")
    if change is None or teacher is None:
        return ""
    name = shown(change.measure)
    best = evaluation.means()[teacher.name][change.measure]
    if not best > change.before:
        return (
            f"The teacher ({name} {brief(best)}) is not above the student before training ({brief(change.before)}): "
            "there was no gap to close."
        )
    share = change.absolute / (best - change.before)
    way = f"from {brief(change.before)} to the teacher's {brief(best)}"
    if share < 0:
        return f"The gap in {name} {way} was not closed: it grew by {-share:.0%}."
    return f"Share of the gap closed: {share:.0%} of the way in {name} {way}."
