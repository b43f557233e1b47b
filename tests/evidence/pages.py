"""Reports that several tests look at, and what a reader sees of them."""

from __future__ import annotations

import dataclasses
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.evidence import Evaluation, System, evaluate, write_report
from distilrank.evidence.cost import Cost, Timing
from distilrank.evidence.diagnostics import Finding, ReviewPassage
from distilrank.evidence.forgetting import forgetting_on
from distilrank.records import Group, Passage

QUERIES, PASSAGES = 40, 8
NASTY = "<script>alert('x')</script> & \"quotes\" </div> 你好 🙂 \x00 \ud800\n    for i in range(3):\n        print(i)"
TRAINING = {
    "settings": {"mode": "groups", "learning_rate": 2e-5, "dropout": None},
    "result": {"agreement_before": 0.81, "agreement_after": 0.93, "steps": 200, "seconds": 75.25, "scale": 1.5},
    "loss": [
        {"step": step, "loss": 4 / step**0.5 + 0.3 * (step % 3), "margin_correlation": 1 - 1 / step}
        for step in range(2, 201, 2)
    ],
    "agreement": [{"step": step, "agreement": 0.93 - 6 / (step + 50)} for step in (50, 100, 150, 200)],
    "versions": {"distilrank": "0.1.0", "torch": "2.11.0"},
}
SETTINGS = {
    "title": "Demo <b>title</b>",
    "recipe": "name: demo\nmine: {strategy: all_pairs}\n",
    "training": TRAINING,
    "notes": ["The labels were made by <i>rule</i>, not by people."],
    "stages": [{"stage": "train", "seconds": 75.25, "peak_mb": 812.0}, {"stage": "mine", "seconds": 0.5}],
    "device": "cpu",
}


def groups(texts: str = "passage") -> list[Group]:
    """One or two positives among eight passages; the last two queries have none, or nothing else."""
    labels = [[int(place == 0 or (place == 3 and query % 4 == 0)) for place in range(PASSAGES)] for query in range(QUERIES)]
    labels += [[0] * PASSAGES, [1] * PASSAGES]
    return [
        Group(str(n), f"query {n}", tuple(Passage(f"{texts} {n}.{place}", label=label) for place, label in enumerate(row)))
        for n, row in enumerate(labels)
    ]


def system(name: str, role: Any, strength: float, of: list[Group], seed: int) -> System:
    rng = np.random.default_rng(seed)
    scores = [strength * np.asarray([p.label or 0 for p in g.passages]) + rng.normal(size=len(g.passages)) for g in of]
    return System(name, role, [values.astype(np.float32) for values in scores])


def evaluation(before: float = 0.3, after: float = 2.5, settings: dict[str, Any] | None = None, **more: Any) -> Evaluation:
    of = more.get("of") or groups()
    systems = [
        system("student", "before", before, of, 1),
        system("student-distilled", "after", after, of, 2),
        system("big teacher", "teacher", 4.0, of, 3),
        system("bm25", "baseline", 0.2, of, 4),
    ]
    return evaluate(of, systems, settings=settings)


def full(texts: str = "passage") -> Evaluation:
    """An evaluation with something for every section."""
    of = groups(texts)
    order = np.random.default_rng(0).permutation(PASSAGES)
    of = [dataclasses.replace(group, passages=tuple(group.passages[place] for place in order)) for group in of]
    found = evaluation(of=of, settings=SETTINGS)
    timings = [
        Timing("cpu", 2, 8, 100, 12.5, 20.0, 640.0, 1500.0),
        Timing("a GPU", 0, 8, 100, 2.5, 3.0, 3200.0, 9000.0, "bfloat16"),
    ]
    slow = [dataclasses.replace(timing, p50_ms=timing.p50_ms * 40) for timing in timings]
    student = Cost(33_000_000, 66_000_000, timings)
    costs = {"student": student, "student-distilled": student, "big teacher": Cost(None, None, slow)}
    before, after = found.systems[:2]
    forgetting = forgetting_on("far away", of, after.scores, before.scores, ["AP"])
    first = of[0]
    passages = [ReviewPassage(first.passages[place].text, first.passages[place].label, 2.5 - place) for place in (0, 1)]
    review = [Finding("false_negative", first.query_id, first.query, "labelled negative, <i>above</i> the best", passages)]
    return dataclasses.replace(found, costs=costs, forgetting=forgetting, review=review)


def html_of(evaluation: Evaluation, folder: Path, *, texts: bool = True) -> str:
    write_report(evaluation, folder / "report.html", texts=texts)
    return (folder / "report.html").read_text(encoding="utf-8")


def words(html: str) -> str:
    """What a reader sees, with single spaces."""
    body = re.sub(r"(?s)<script.*?</script>|<desc>.*?</desc>", " ", html.partition("</style>")[2])
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body))).strip()
