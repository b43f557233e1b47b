"""Every number of an evaluation folder again, out of `scores.parquet` alone, by other people's code or by brute force."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain, permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score, ndcg_score, precision_score, recall_score, roc_auc_score

from distilrank.evidence import System, evaluate, save_evaluation
from distilrank.evidence.forgetting import forgetting_on
from distilrank.records import Group
from evidence import samples

PASSAGES = 6
DEPTH = 3
MEASURES = (f"AP@{PASSAGES}", f"RR@{DEPTH}", f"nDCG@{DEPTH}")
OTHERS = ("bm25", "before", "teacher", "else")


def of_grades() -> list[Group]:
    """Grades up to 2, some passages without a label, a first stage's ranks that miss a passage, and queries not judged."""
    groups = []
    for n, group in enumerate(samples.groups(40, PASSAGES)):
        passages = [
            replace(
                p,
                label=2 if p.label and n % 5 == 0 else None if not p.label and place == 4 else p.label,
                rank=None if (n + place) % 11 == 0 else (place * 5 + n) % 7 * 10 + place,
            )
            for place, p in enumerate(group.passages)
        ]
        groups.append(replace(group, passages=tuple(passages)))
    return groups


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    of = of_grades()
    systems = [*samples.systems(of), System("else", "model", samples.scores(of, 1.2, 8))]
    systems = [replace(s, scores=[row.round(0 if s.name == "bm25" else 1) for row in s.scores]) for s in systems]
    lost = forgetting_on("far", of, systems[2].scores, systems[1].scores, MEASURES)
    path = tmp_path_factory.mktemp("oracles") / "eval"
    save_evaluation(evaluate(of, systems, MEASURES, forgetting=lost), path)
    return path


class Again:
    """The folder's scores and labels as plain arrays, [queries, passages]."""

    def __init__(self, folder: Path) -> None:
        self.found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
        table, per_query = pq.read_table(folder / "scores.parquet"), pq.read_table(folder / "per_query.parquet")
        self.scores = {
            name.removeprefix("score: "): table.column(name).to_numpy().reshape(-1, PASSAGES).astype(float)
            for name in table.column_names
            if name.startswith("score: ")
        }
        self.grades = np.asarray([label or 0 for label in table.column("label").to_pylist()]).reshape(-1, PASSAGES)
        self.ranks = [table.column("rank").to_pylist()[start : start + PASSAGES] for start in range(0, len(table), PASSAGES)]
        self.lengths = np.asarray([len(text) for text in table.column("passage").to_pylist()]).reshape(-1, PASSAGES)
        positive = self.grades > 0
        self.judged = np.flatnonzero(positive.any(axis=1) & ~positive.all(axis=1))
        self.values = {
            (name, key): per_query.filter(np.asarray(per_query.column("system").to_pylist()) == name).column(key).to_numpy()
            for name in self.scores
            for key in (*MEASURES, *(c for c in per_query.column_names if c.startswith("agreement: ")))
        }

    def difference(self, first: str, second: str, key: str) -> np.ndarray:
        return np.asarray(self.values[first, key] - self.values[second, key])[self.judged]


@pytest.fixture(scope="module")
def again(folder: Path) -> Again:
    return Again(folder)


def allowed(scores: np.ndarray, places: list[int]) -> list[list[int]]:
    """Every order of some passages in which no score rises."""
    blocks = [[place for place in places if scores[place] == value] for value in sorted(set(scores[places]), reverse=True)]
    return [list(chain(*order)) for order in product(*(permutations(block) for block in blocks))]


def of_order(grades: np.ndarray, order: list[int]) -> tuple[float, float, float]:
    """AP, RR and nDCG of one order, the first and the last by scikit-learn."""
    scores = np.empty(len(order))
    scores[order] = -np.arange(len(order))
    first = next(place for place, passage in enumerate(order, start=1) if grades[passage])
    reciprocal = 1 / first if first <= DEPTH else 0.0
    return average_precision_score(grades > 0, scores), reciprocal, float(ndcg_score([grades], [scores], k=DEPTH))


def test_each_value_is_that_of_an_order_that_the_scores_allow(again: Again) -> None:
    """The same order for all measures; where no score ties there is one such order alone."""
    alone = 0
    for name, scores in again.scores.items():
        for n in range(len(scores)):
            got = [float(again.values[name, key][n]) for key in MEASURES]
            if n not in again.judged:
                assert np.isnan(got).all()
                continue
            orders = allowed(scores[n], list(range(PASSAGES)))
            alone += len(orders) == 1
            assert any(np.allclose(got, of_order(again.grades[n], order), atol=1e-9) for order in orders)
    assert 50 < alone < len(again.scores) * len(again.judged)


def test_means_ties_queries_and_the_gap(again: Again) -> None:
    found = again.found
    assert (found["queries"], found["judged"]) == (len(again.grades), len(again.judged))
    none = int((again.grades == 0).all(axis=1).sum())
    assert found["left_out"] == {"no_positive": none, "only_positives": len(again.grades) - none - len(again.judged)}
    for system in found["systems"]:
        rows = again.scores[system["name"]][again.judged]
        upper = np.triu_indices(PASSAGES, 1)
        tied = np.mean([(row[:, None] == row)[upper] for row in rows])
        assert system["tied_share"] == pytest.approx(tied)
        for key in MEASURES:
            assert system["means"][key] == pytest.approx(np.nanmean(again.values[system["name"], key]))
    for key in MEASURES:
        before, after, teacher = (found["means"][name][key] for name in ("before", "after", "teacher"))
        assert found["gap_closed"][key] == pytest.approx((after - before) / (teacher - before))


def test_every_comparison(again: Again) -> None:
    assert again.found["reference"] == "after"
    for key in MEASURES:
        raw = {}
        for other in OTHERS:
            test, values = again.found["against"][other][key], again.difference("after", other, key)
            count = len(values)
            assert (test["difference"], test["queries"]) == (pytest.approx(values.mean()), count)
            raw[other] = stats.ttest_rel(values, np.zeros(count)).pvalue
            assert test["p"] == pytest.approx(raw[other], rel=1e-6)
            # The power of the two-sided test at its level, where the difference is the smallest that is found with .8.
            critical = stats.t.isf(test["level"] / 2, count - 1)
            far = test["smallest"] / values.std(ddof=1) * np.sqrt(count)
            power = stats.nct.sf(critical, count - 1, far) + stats.nct.cdf(-critical, count - 1, far)
            assert power == pytest.approx(0.8, abs=1e-4)
            if (key, other) not in ((MEASURES[0], "before"), (MEASURES[2], "bm25")):  # all are on the same resamples
                continue
            signs = stats.permutation_test(
                (values,),
                np.mean,
                permutation_type="samples",
                n_resamples=9_999,
                rng=np.random.default_rng(11),
                vectorized=True,
            )
            # Two draws of 9,999: near the middle four standard errors of their difference are .028.
            assert test["p_randomisation"] == pytest.approx(signs.pvalue, abs=0.028)
            assert test["p_randomisation"] >= 1e-4
            drawn = stats.bootstrap(
                (values,), np.mean, method="percentile", n_resamples=9_999, rng=np.random.default_rng(12), vectorized=True
            ).confidence_interval
            error = 0.15 * values.std() / np.sqrt(count)
            assert (test["low"], test["high"]) == (pytest.approx(drawn.low, abs=error), pytest.approx(drawn.high, abs=error))
        highest = 0.0
        for place, other in enumerate(sorted(raw, key=lambda name: raw[name])):
            highest = max(highest, min(1, (len(raw) - place) * raw[other]))
            assert again.found["against"][other][key]["p_holm"] == pytest.approx(highest, rel=1e-6)


def test_agreement_with_the_teacher(again: Again) -> None:
    teacher = again.scores["teacher"]
    for name in ("bm25", "before", "after", "else"):
        rows = again.scores[name]
        tau = [stats.kendalltau(a, b).statistic for a, b in zip(teacher, rows, strict=True)]
        gains = [(row - row.min()) / np.ptp(row) for row in teacher]
        ndcg = [ndcg_score([gain], [row], k=10) for gain, row in zip(gains, rows, strict=True)]
        found = again.found["agreement"][name]
        assert found["queries"] == len(teacher)
        assert found["kendall_tau"] == pytest.approx(np.nan_to_num(tau).mean())
        assert found["ndcg"] == pytest.approx(np.mean(ndcg))
        top, of_teacher = (scores == scores.max(axis=1, keepdims=True) for scores in (rows, teacher))
        sure = (top.sum(axis=1) == 1) & (of_teacher.sum(axis=1) == 1)
        same = (top & of_teacher).any(axis=1)
        wanted = again.values[name, "agreement: top1"]
        assert (wanted[sure] == same[sure]).all()
        assert not wanted[~same].any()
    for key, test in again.found["agreement_change"].items():
        first, last = (again.values[name, f"agreement: {key}"] for name in ("before", "after"))
        assert test["p"] == pytest.approx(stats.ttest_rel(last, first).pvalue, rel=1e-6)


def test_the_absolute_score(again: Again) -> None:
    positive = again.grades[again.judged] > 0
    for name in ("before", "after", "teacher", "else"):
        scores, level = again.scores[name][again.judged], again.found["levels"][name]
        assert level["auc"] == pytest.approx(roc_auc_score(positive.ravel(), scores.ravel()))
        within = [roc_auc_score(*pair) for pair in zip(positive, scores, strict=True)]
        assert level["auc_within"] == pytest.approx(np.mean(within))
        assert level["base_rate"] == pytest.approx(positive.mean())
        assert level["query_deviation"] == pytest.approx(scores.mean(axis=1).std())
        assert level["within_deviation"] == pytest.approx(scores.std(axis=1).mean())

        def best(rows: np.ndarray, scores: np.ndarray = scores) -> float:
            """Every score tried as a cut; of equals the highest."""
            kept = [(cut, scores[rows] >= cut) for cut in sorted(set(scores[rows].ravel()))]
            of_both = ((2 * (on & positive[rows]).sum() / (on.sum() + positive[rows].sum()), cut) for cut, on in kept)
            return max((round(f1, 12), cut) for f1, cut in of_both)[1]

        assert level["threshold"] == best(np.arange(len(scores)))
        fold = np.arange(len(scores)) % 5
        cuts = np.asarray([best(np.flatnonzero(fold != own)) for own in range(5)])
        kept = scores >= cuts[fold][:, None]
        for key, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
            assert level[key] == pytest.approx(score(positive.ravel(), kept.ravel()))


def test_the_first_stage(again: Again) -> None:
    found = again.found["retrieval"]
    assert found["depths"] == [1, 5, PASSAGES]
    recall: dict[int, list[float]] = {depth: [] for depth in found["depths"]}
    after: dict[int, list[float]] = {depth: [] for depth in found["depths"]}
    sure: dict[int, list[float]] = {depth: [] for depth in found["depths"]}
    for n in again.judged.tolist():
        brought = sorted((rank, place) for place, rank in enumerate(again.ranks[n]) if rank is not None)
        order = [place for _, place in brought]
        missed = [place for place in range(PASSAGES) if place not in order]
        for depth in found["depths"]:
            head = order[:depth]
            recall[depth].append(float((again.grades[n][head] > 0).sum() / (again.grades[n] > 0).sum()))
            orders = [
                [*first, *order[depth:], *last]
                for first in allowed(again.scores["after"][n], head)
                for last in permutations(missed)
            ]
            values = [of_order(again.grades[n], whole)[0] for whole in orders]
            after[depth].append(max(values))
            sure[depth].append(min(values))
    for place, depth in enumerate(found["depths"]):
        assert found["recall"][str(depth)] == pytest.approx(np.mean(recall[depth]))
        assert np.mean(sure[depth]) - 1e-9 <= found["by_depth"]["after"][place] <= np.mean(after[depth]) + 1e-9
        assert np.mean(after[depth]) - np.mean(sure[depth]) < 0.02, "ties alone leave so much open"


def test_what_was_forgotten(again: Again) -> None:
    for line in again.found["forgetting"]:
        before, after = (np.nanmean(again.values[name, line["measure"]]) for name in ("after", "before"))
        assert (line["before"], line["after"], line["loss"]) == pytest.approx((before, after, before - after))
        values = again.difference("before", "after", line["measure"])
        assert line["paired"]["p"] == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6)


def test_the_teachers_scores(again: Again) -> None:
    found, scores = again.found["diagnostics"], again.scores["teacher"]
    assert found["quantiles"] == pytest.approx(np.percentile(scores, np.arange(0, 101, 10)).tolist())
    assert (found["counts"], found["pairs"]) == (np.histogram(scores, 32)[0].tolist(), scores.size)
    reach = np.ptp(scores)
    ends = (scores - scores.min() <= 0.01 * reach) | (scores.max() - scores <= 0.01 * reach)
    assert found["saturated_share"] == pytest.approx(ends.mean())
    near = 0.05 * np.median(scores.std(axis=1))
    assert found["near_tie_share"] == pytest.approx((np.diff(np.sort(scores, axis=1)) < near).mean())
    ordinary = np.median(np.sort(scores, axis=1)[:, :-1])
    assert found["low_cut"] == pytest.approx(ordinary)
    assert found["unanswered"] == int((scores.max(axis=1) < ordinary).sum())
    spearman = [stats.spearmanr(a, b).statistic for a, b in zip(again.lengths, scores, strict=True) if np.ptp(a) > 0]
    assert (
        found["length_correlation"] == pytest.approx(np.mean(spearman)) if spearman else found["length_correlation"] is None
    )
