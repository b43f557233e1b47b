"""What is planted among a teacher's scores is found, and what is not there is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from distilrank.evidence import System, evaluate, save_evaluation
from distilrank.evidence.diagnostics import diagnose
from distilrank.evidence.folder import read_review
from distilrank.records import Group, Passage
from evidence import samples


def planted() -> tuple[list[Group], list[np.ndarray]]:
    """Sixty ordinary queries; the first has no answer, the second a false negative, the third a duplicate."""
    rng = np.random.default_rng(0)
    of, scores = [], []
    for n in range(60):
        texts = [f"query {n} answered", *(f"passage {n} {'x' * int(rng.integers(1, 90))} {p}" for p in range(1, 6))]
        row = np.concatenate([[5.0], rng.normal(size=5)])
        if n == 0:
            row = rng.normal(-6, 0.5, 6)
        if n == 1:
            row[3] = 9.0
        if n == 2:
            texts[4] = "Query 2,  ANSWERED!"
        of.append(Group(f"q{n}", f"query {n}", tuple(Passage(t, label=int(p == 0)) for p, t in enumerate(texts))))
        scores.append(row.astype(np.float32))
    scores[0][0] = scores[0].max() + 0.1  # unanswered, but in order
    return of, scores


def test_what_was_planted_is_found_with_its_texts() -> None:
    of, scores = planted()
    numbers, review = diagnose(of, scores)
    assert (numbers.unanswered, numbers.false_negatives, numbers.duplicates) == (1, 1, 1)
    unanswered, false_negative, duplicate = review
    assert (unanswered.kind, unanswered.query_id) == ("unanswered", "q0")
    assert (false_negative.kind, false_negative.query_id) == ("false_negative", "q1")
    assert [(p.text, p.label) for p in false_negative.passages] == [(of[1].passages[3].text, 0), ("query 1 answered", 1)]
    assert (duplicate.kind, [p.text for p in duplicate.passages]) == (
        "duplicate",
        ["Query 2,  ANSWERED!", "query 2 answered"],
    )


def test_the_distribution_is_numpys_and_lengths_are_spearmans() -> None:
    of, scores = planted()
    numbers, _ = diagnose(of, scores)
    flat = np.concatenate(scores).astype(np.float64)
    assert (numbers.pairs, sum(numbers.counts), numbers.queries) == (360, 360, 60)
    assert numbers.quantiles == pytest.approx(np.quantile(flat, np.linspace(0, 1, 11)).tolist())
    wanted = [spearmanr([len(p.text) for p in g.passages], row).statistic for g, row in zip(of, scores, strict=True)]
    assert numbers.length_correlation == pytest.approx(np.mean(wanted))
    assert sum(part.pairs for part in numbers.length_bins) == 360
    lengths = [part.characters for part in numbers.length_bins]
    assert lengths == sorted(lengths)


def test_a_teacher_that_likes_long_passages_shows_it() -> None:
    of, _ = planted()
    numbers, _ = diagnose(of, [np.asarray([len(p.text) for p in g.passages], dtype=np.float32) for g in of])
    assert numbers.length_correlation == pytest.approx(1)
    values = [part.score for part in numbers.length_bins]
    assert values == sorted(values)


def test_clipped_scores_are_saturated_and_rounded_ones_nearly_tied() -> None:
    of, scores = planted()
    plain, _ = diagnose(of, scores)
    clipped, _ = diagnose(of, [np.clip(row, -0.5, 0.5) for row in scores])
    assert plain.saturated_share < 0.2 < clipped.saturated_share
    rounded, _ = diagnose(of, [row.round(0) for row in scores])
    assert plain.near_tie_share < 0.3 < rounded.near_tie_share


def test_scores_that_are_all_alike_are_no_trouble() -> None:
    of = samples.groups(4)
    numbers, review = diagnose(of, [np.zeros(8, dtype=np.float32)] * len(of))
    assert numbers.saturated_share == 1
    assert np.isnan(numbers.length_correlation)
    assert review == []


def test_findings_lie_beside_the_evaluation(tmp_path: Path) -> None:
    of, scores = planted()
    found = evaluate(of, [System("teacher", "teacher", scores), System("m", "model", scores)])
    save_evaluation(found, tmp_path / "eval")
    assert read_review(tmp_path / "eval") == found.review
    assert len((tmp_path / "eval/review.jsonl").read_text(encoding="utf-8").splitlines()) == 3
