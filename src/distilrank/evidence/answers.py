"""What the report says first: the headline, and short answers to what a sceptic asks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from distilrank.evidence.cost import Timing
from distilrank.evidence.evaluate import Evaluation
from distilrank.evidence.significance import LEVEL, Paired, paired
from distilrank.evidence.table import first_measure
from distilrank.evidence.verdicts import Verdicts
from distilrank.evidence.wording import NO_BREAK, brief, brief_signed, counted, duration, number, p_words, sequence, shown


@dataclass(frozen=True)
class Answer:
    """A question, its answer in a sentence, and the section that bears it out."""

    question: str
    text: str
    section: str


def headline(evaluation: Evaluation) -> str:
    """The one sentence to remember, as weak as the evidence for it; without before and after, what was compared."""
    held_out = "held-out " if evaluation.settings.get("recipe") else ""
    before, after = evaluation.with_role("before"), evaluation.with_role("after")
    if evaluation.comparisons and before and after:
        measure = first_measure(evaluation)
        test = evaluation.comparisons[measure]
        means = evaluation.means()
        name, first, last = shown(measure), means[before.name][measure], means[after.name][measure]
    elif evaluation.agreement_change and before and after:
        test = evaluation.agreement_change["ndcg"]
        name = "Agreement with the teacher (nDCG@10)"
        first, last = (evaluation.agreement[system.name].ndcg for system in (before, after))
    else:
        count = int(evaluation.judged.sum()) or len(evaluation.groups)
        queries = counted(count, f"{held_out}query", f"{held_out}queries")
        return f"{counted(len(evaluation.systems), 'system')} on the same candidates, {queries}"
    worse = " got worse:" if test.shown and test.difference < 0 else ""
    values = f"{brief(first)} → {brief(last)} ({brief_signed(test.difference)},{NO_BREAK}{p_words(test.p_holm)})"
    queries = counted(test.queries, f"{held_out}query", f"{held_out}queries")
    return f"{name}{worse} {values} on {queries}{'' if test.shown else ': a difference is not shown'}"


def remarks(evaluation: Evaluation) -> list[str]:
    """What follows the headline: the verdict in words, with its interval."""
    trained = bool(evaluation.settings.get("training"))
    if evaluation.comparisons:
        return [_verdict(evaluation.comparisons[first_measure(evaluation)], "ranks", trained=trained)]
    if evaluation.agreement_change:
        no_labels = "These queries have no labels: this is agreement with the teacher, and says nothing about quality."
        return [_verdict(evaluation.agreement_change["ndcg"], "follows its teacher", trained=trained), no_labels]
    return []


def _verdict(test: Paired, does: str, *, trained: bool) -> str:
    """In words; that a training lies between the two is said only where its record is there."""
    if not math.isfinite(test.low):
        return "One query gives no interval and no test."
    interval = f"95% interval of the difference: {brief_signed(test.low)} to {brief_signed(test.high)}."
    if test.shown:
        how = "better" if test.difference > 0 else "worse"
        return f"The student {does} {how} {'after training than before it' if trained else 'after than before'}. {interval}"
    unclear = (
        f"These queries do not tell the student after {'training ' if trained else ''}from the student before. {interval}"
    )
    if not math.isfinite(test.smallest):
        return unclear
    return f"{unclear} They would show a true difference of {brief(test.smallest)} four times in five."


def answers(evaluation: Evaluation, verdicts: Verdicts | None) -> list[Answer]:
    """One answer to each question that this evaluation can answer; the others are not asked."""
    asked = (
        ("How far from its teacher?", gap_closed(evaluation), "systems"),
        ("Better than the others?", _others(evaluation), "against"),
        ("Where did it get worse?", _losses(verdicts, first_measure(evaluation)), "verdicts"),
        ("Does it follow its teacher?", _agreement(evaluation), "agreement"),
        ("Did it forget what it knew?", _forgetting(evaluation), "forgetting"),
        ("What does it cost to serve?", _cost(evaluation), "cost"),
        ("Can its score be cut at?", _cut_at(evaluation), "levels"),
    )
    return [Answer(question, text, section) for question, text, section in asked if text]


def gap_closed(evaluation: Evaluation) -> str:
    """How much of the way from the student before to the teacher was gone, in a sentence; empty without all three."""
    if not evaluation.gap_closed:
        return ""
    measure, means = first_measure(evaluation), evaluation.means()
    before, teacher = (system for role in ("before", "teacher") if (system := evaluation.with_role(role)))
    name, low, high = shown(measure), means[before.name][measure], means[teacher.name][measure]
    share = evaluation.gap_closed[measure]
    if not math.isfinite(share):
        return (
            f"The teacher ({name} {brief(high)}) is not above the student before training ({brief(low)}): "
            "there was no gap to close."
        )
    way = f"from {brief(low)} to the teacher’s {brief(high)}"
    of_both = (evaluation.measured[system.name].values[measure] for system in (teacher, before))
    gap = "" if _tells(*of_both) else " That there is a gap is itself not shown: a share of it says little."
    if share < -0.005:
        return f"The gap in {name} {way} was not closed: it grew by {-share:.0%}.{gap}"
    doubt = "" if evaluation.comparisons[measure].shown else "; the student’s difference is not shown"
    return f"Share of the gap closed: {share:z.0%} of the way in {name} {way}{doubt}.{gap}"


def _tells(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether a paired t-test over the queries that count tells the two apart."""
    test = paired(first, second)
    return (test.p if math.isfinite(test.p) else test.p_randomisation) < LEVEL


def _others(evaluation: Evaluation) -> str:
    """Against every system but the student before and the teacher."""
    apart = {system.name for system in evaluation.systems if system.role in ("before", "teacher")}
    tests = {name: by[first_measure(evaluation)] for name, by in evaluation.against.items() if name not in apart}
    parts = []
    for words, found in (
        ("better than", [name for name, test in tests.items() if test.shown and test.difference > 0]),
        ("worse than", [name for name, test in tests.items() if test.shown and test.difference < 0]),
        ("no difference shown to", [name for name, test in tests.items() if not test.shown]),
    ):
        if found:
            parts.append(f"{words} {sequence(found)}")
    return f"In {shown(first_measure(evaluation))} {'; '.join(parts)}." if parts else ""


def _losses(verdicts: Verdicts | None, measure: str) -> str:
    if verdicts is None:
        return ""
    queries = counted(verdicts.won + verdicts.tied + verdicts.lost, "query", "queries")
    if not verdicts.lost:
        return f"In {measure} on none of {queries}; better on {verdicts.won:,}."
    return f"In {measure} on {verdicts.lost:,} of {queries}, by up to {brief(-verdicts.worst)}; better on {verdicts.won:,}."


def _agreement(evaluation: Evaluation) -> str:
    before, after = evaluation.with_role("before"), evaluation.with_role("after")
    if not (evaluation.agreement_change and before and after):
        return ""
    first, last = evaluation.agreement[before.name], evaluation.agreement[after.name]
    doubts = {
        name: "" if test.shown else ", a difference is not shown" for name, test in evaluation.agreement_change.items()
    }
    return (
        f"Its first passage is the teacher’s on {last.top1:.0%} of the queries ({first.top1:.0%} before{doubts['top1']}); "
        f"Kendall’s tau {brief(last.kendall_tau)} ({brief(first.kendall_tau)} before{doubts['kendall_tau']})."
    )


def _forgetting(evaluation: Evaluation) -> str:
    if not evaluation.forgetting:
        return ""
    main = evaluation.forgetting[0].measure
    lines = [line for line in evaluation.forgetting if line.measure == main]
    said = (
        f"{line.name} {brief(line.before)} → {brief(line.after)}{'' if line.paired.shown else ' (not shown)'}"
        for line in lines
    )
    return f"{shown(main)} outside the domain: {'; '.join(said)}."


def _cost(evaluation: Evaluation) -> str:
    """The latency of the student after and of the teacher, on the first device on which both were timed."""
    names = [system.name for system in evaluation.systems if system.name == evaluation.reference or system.role == "teacher"]
    timed = [
        (name, evaluation.costs[name].runs) for name in names if name in evaluation.costs and evaluation.costs[name].runs
    ]
    if not timed:
        return ""
    run = timed[0][1][0]
    text = f"{duration(run.p50_ms)} for a query with {counted(run.candidates, 'candidate')} (median, {setup(run)})"
    for _, runs in timed[1:]:
        if same := next((other for other in runs if (other.device, other.threads) == (run.device, run.threads)), None):
            text += f"; its teacher {duration(same.p50_ms)}"
    return text + "."


def machine(run: Timing) -> str:
    """What a timing was taken on."""
    return f"{run.device}, {counted(run.threads, 'thread')}" if run.threads else run.device


def setup(run: Timing) -> str:
    """The same with what its products are computed in."""
    return ", ".join(filter(None, [machine(run), run.dtype]))


def _cut_at(evaluation: Evaluation) -> str:
    level = evaluation.levels.get(evaluation.reference or "")
    if level is None:
        return ""
    kept = (
        f" (a cut chosen like this has, on queries it has not seen, precision {brief(level.precision)} and recall "
        f"{brief(level.recall)})"
        if math.isfinite(level.f1)
        else ""
    )
    areas = f"AUC across queries {brief(level.auc)}, within a query {brief(level.auc_within)}"
    return f"At {number(level.threshold, 2)}{kept}; {areas}."
