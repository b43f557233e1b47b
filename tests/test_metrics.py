"""The measures against other people's implementations; ties are broken blindly and counted."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.data import bm25_scores
from distilrank.errors import UserError
from distilrank.metrics import DEFAULT_MEASURES, agreement, float32_in_order, measure, ranking, tied_share
from distilrank.records import Group, Passage, read_groups
from distilrank.rows import BadLines

AP, RR, NDCG = DEFAULT_MEASURES


def group(labels: list[int | None], number: int = 0) -> Group:
    entries = tuple(Passage(f"passage {number}.{place}", label=label) for place, label in enumerate(labels))
    return Group(str(number), f"query {number}", entries)


@st.composite
def judged(draw: st.DrawFn, ties: bool = False) -> tuple[list[Group], list[np.ndarray]]:
    """Groups with a positive and a negative each, and scores; without `ties`, a shuffle of distinct numbers."""
    groups, scores = [], []
    for number in range(draw(st.integers(1, 4))):
        labels = draw(st.lists(st.integers(0, 1), min_size=2, max_size=25).filter(lambda row: 0 < sum(row) < len(row)))
        some = st.integers(-2, 2) if ties else st.floats(-30, 30, width=32)
        values = draw(st.lists(some, min_size=len(labels), max_size=len(labels), unique=not ties))
        groups.append(group(labels, number))
        scores.append(np.asarray(values, dtype=np.float32))
    return groups, scores


class Fake:
    """A model for sentence-transformers' evaluator that knows its scores."""

    model_card_data = None

    def __init__(self, flat: np.ndarray) -> None:
        self.flat = flat

    def predict(self, pairs: list[list[str]], **_: object) -> np.ndarray:
        assert len(pairs) == len(self.flat)
        return self.flat


def by_sentence_transformers(groups: list[Group], scores: list[np.ndarray]) -> list[float]:
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    samples, flat = [], []
    for of_query, values in zip(groups, scores, strict=True):
        texts: dict[int, list[str]] = {1: [], 0: []}
        for passage in of_query.passages:
            texts[int(bool(passage.label))].append(passage.text)
        samples.append({"query": of_query.query, "positive": texts[1], "negative": texts[0]})
        labels = np.asarray([bool(passage.label) for passage in of_query.passages])
        if labels.any():
            flat += [values[labels], values[~labels]]
    evaluator = CrossEncoderRerankingEvaluator(samples, at_k=10, write_csv=False)
    evaluator.store_metrics_in_model_card_data = lambda *_, **__: None  # type: ignore[method-assign]
    found = evaluator(Fake(np.concatenate(flat).astype(np.float64)))  # type: ignore[arg-type]
    return [found["map"], found["mrr@10"], found["ndcg@10"]]


@settings(max_examples=25)
@given(case=judged())
def test_means_are_those_of_sentence_transformers(case: tuple[list[Group], list[np.ndarray]]) -> None:
    groups, scores = case
    found = measure(groups, scores)
    assert [found.mean(name) for name in DEFAULT_MEASURES] == pytest.approx(
        by_sentence_transformers(groups, scores), abs=1e-6
    )


@settings(max_examples=60)
@given(case=judged(ties=True))
def test_values_are_those_of_trec_eval_on_our_order(case: tuple[list[Group], list[np.ndarray]]) -> None:
    import pytrec_eval

    groups, scores = case
    found = measure(groups, scores)
    qrels, run = {}, {}
    for number, (of_query, values) in enumerate(zip(groups, scores, strict=True)):
        places = np.empty(len(values), dtype=int)
        places[ranking(of_query, values)] = np.arange(len(values))
        qrels[str(number)] = {f"d{i}": int(passage.label or 0) for i, passage in enumerate(of_query.passages)}
        run[str(number)] = {f"d{i}": float(-place) for i, place in enumerate(places)}
    wanted = pytrec_eval.RelevanceEvaluator(qrels, {"map", "ndcg_cut.10"}).evaluate(run)
    for number in range(len(groups)):
        assert found.values[AP][number] == pytest.approx(wanted[str(number)]["map"], abs=1e-6)
        assert found.values[NDCG][number] == pytest.approx(wanted[str(number)]["ndcg_cut_10"], abs=1e-6)


@settings(max_examples=60)
@given(case=judged())
def test_values_are_those_of_scikit_learn(case: tuple[list[Group], list[np.ndarray]]) -> None:
    from sklearn.metrics import average_precision_score, ndcg_score

    groups, scores = case
    found = measure(groups, scores)
    for number, (of_query, values) in enumerate(zip(groups, scores, strict=True)):
        labels = [passage.label or 0 for passage in of_query.passages]
        assert found.values[AP][number] == pytest.approx(average_precision_score(labels, values), abs=1e-6)
        assert found.values[NDCG][number] == pytest.approx(ndcg_score([labels], [values], k=10), abs=1e-6)


@pytest.mark.parametrize("name", ["epqa", "trecqa"])
def test_no_tool_measures_otherwise_on_real_sets(real_data: Path, name: str) -> None:
    """benchmarks/metric_parity.py on two of its sets, queries without positives or negatives among them."""
    from metric_parity import parity

    found = parity(list(read_groups(real_data / name / "test.jsonl", BadLines())))
    assert len(found["largest_difference"]) == 10
    assert max(found["largest_difference"].values()) < 1e-6


def test_numbers_worked_out_by_hand() -> None:
    found = measure([group([0, 1, 0, 1])], [np.asarray([4, 3, 2, 1], dtype=np.float32)])
    assert found.values[AP][0] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert found.values[RR][0] == pytest.approx(1 / 2)
    assert found.values[NDCG][0] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3)))


def test_a_positive_below_the_tenth_place_counts_for_ap_alone() -> None:
    found = measure([group([0] * 10 + [1])], [np.arange(11, 0, -1, dtype=np.float32)])
    assert (found.values[AP][0], found.values[RR][0], found.values[NDCG][0]) == (pytest.approx(1 / 11), 0, 0)


@pytest.mark.parametrize("name", ["askubuntu_dup", "xquadr_zh", "epqa", "cosqa", "trecqa"])
def test_bm25_on_real_sets_measures_as_in_sentence_transformers(real_data: Path, name: str) -> None:
    groups = list(read_groups(real_data / name / "test.jsonl", BadLines()))
    noise = np.random.default_rng(0)
    scores = [values + noise.uniform(0, 1e-3, len(values)) for values in bm25_scores(groups)]
    found = measure(groups, scores)
    assert found.tied_share == 0
    kept = [number for number, counts in enumerate(found.judged) if counts]
    wanted = by_sentence_transformers([groups[n] for n in kept], [scores[n] for n in kept])
    assert [found.mean(measure) for measure in DEFAULT_MEASURES] == pytest.approx(wanted, abs=1e-6)
    assert len(kept) > len(groups) / 2


# ---- which queries count


def test_queries_without_a_positive_or_without_a_negative_are_in_no_mean() -> None:
    groups = [group([0, 0], 0), group([1, 1], 1), group([None, None], 2), group([None, 1], 3), group([1, 0], 4)]
    found = measure(groups, [np.asarray([2, 1], dtype=np.float32)] * 5)
    assert found.judged.tolist() == [False, False, False, True, True]
    assert np.isnan(found.values[AP][:3]).all()
    assert found.mean(AP) == pytest.approx((0.5 + 1) / 2)


def test_sentence_transformers_convention_counts_every_query() -> None:
    groups = [group([0, 0], 0), group([1, 1], 1), group([None, None], 2), group([None, 1], 3), group([1, 0], 4)]
    scores = [np.asarray([2, 1], dtype=np.float32)] * 5
    found = measure(groups, scores, counting="sentence-transformers")
    assert found.judged.all()
    assert found.values[AP].tolist() == [0, 1, 0, 0.5, 1]
    labelled = [replace(g, passages=tuple(replace(p, label=p.label or 0) for p in g.passages)) for g in groups]
    wanted = by_sentence_transformers(labelled, scores)
    assert [found.mean(name) for name in DEFAULT_MEASURES] == pytest.approx(wanted)


def test_grades_above_one_weigh_in_ndcg() -> None:
    found = measure([group([1, 2, 0])], [np.asarray([3, 2, 1], dtype=np.float32)])
    assert found.values[NDCG][0] == pytest.approx((1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3)), abs=1e-6)


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(UserError, match="nothing to measure"):
        measure([group([1, 1])], [np.asarray([1, 2], dtype=np.float32)])


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan], [1.0, np.inf], [1.0, 2.0, 3.0]])
def test_scores_that_do_not_fit_their_group_are_refused(values: list[float]) -> None:
    with pytest.raises(UserError, match="one finite score for each"):
        measure([group([1, 0])], [np.asarray(values, dtype=np.float32)])


BAD_MEASURES = [
    "foo", "", "AP@@", "AP(", "1+1", "[1]", "AP, RR@10", "nDCG@x", "AP@1.5", "P", "RBP", "RBP(p=2)", "AP(x=1)",
    'AP(rel="a")', 'nDCG(dcg="x")@10', "alpha_nDCG@10",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_MEASURES)
def test_a_measure_that_cannot_be_had_is_refused(name: str) -> None:
    with pytest.raises(UserError):
        measure([group([1, 0])], [np.asarray([2, 1], dtype=np.float32)], [name])


@pytest.mark.parametrize("name", ["AP@0", "nDCG@0", "P@0"])
def test_a_cutoff_of_zero_is_refused_and_does_not_take_the_process_down(name: str) -> None:
    program = f"""
import sys
import numpy as np
from distilrank.errors import UserError
from distilrank.metrics import measure
from distilrank.records import Group, Passage
try:
    measure([Group("1", "q", (Passage("a", label=1), Passage("b", label=0)))], [np.asarray([1.0, 2.0])], [{name!r}])
except UserError:
    sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 7


@pytest.mark.parametrize("names", [[], ["AP", "AP"], ["MAP", "AP"]])
def test_measures_are_named_once_and_at_least_one(names: list[str]) -> None:
    with pytest.raises(UserError):
        measure([group([1, 0])], [np.asarray([2, 1], dtype=np.float32)], names)


# ---- ties


@settings(max_examples=60)
@given(case=judged(ties=True), seed=st.integers(0, 9))
def test_values_do_not_depend_on_the_order_of_the_candidates(case: tuple[list[Group], list[np.ndarray]], seed: int) -> None:
    groups, scores = case
    found, rng = measure(groups, scores), np.random.default_rng(seed)
    orders = [rng.permutation(len(values)) for values in scores]
    shuffled = [
        Group(g.query_id, g.query, tuple(g.passages[i] for i in order)) for g, order in zip(groups, orders, strict=True)
    ]
    again = measure(shuffled, [values[order] for values, order in zip(scores, orders, strict=True)])
    for name in DEFAULT_MEASURES:
        assert again.values[name].tolist() == found.values[name].tolist()


@given(case=judged(ties=True))
def test_the_order_does_not_know_the_labels(case: tuple[list[Group], list[np.ndarray]]) -> None:
    for of_query, values in zip(*case, strict=True):
        others = group([1 - (passage.label or 0) for passage in of_query.passages], int(of_query.query_id))
        assert ranking(of_query, values).tolist() == ranking(others, values).tolist()


@given(case=judged(ties=True))
def test_higher_scores_come_first(case: tuple[list[Group], list[np.ndarray]]) -> None:
    for of_query, values in zip(*case, strict=True):
        order = ranking(of_query, values)
        assert sorted(order.tolist()) == list(range(len(values)))
        assert (np.diff(values[order]) <= 0).all()


def test_ties_are_no_advantage_on_average() -> None:
    """A constant system puts its one positive among ten anywhere: mean RR is that of a random order, not 1 or 1/10."""
    groups = [group([1] + [0] * 9, number) for number in range(400)]
    found = measure(groups, [np.zeros(10, dtype=np.float32)] * 400)
    assert found.tied_share == 1
    assert found.mean(RR) == pytest.approx(sum(1 / place for place in range(1, 11)) / 10, abs=0.05)


def test_passages_of_one_text_go_by_their_ids_and_not_by_their_place() -> None:
    first = 0
    for number in range(40):
        copies = (Passage("the same text", f"d{number}.0", 1), Passage("the same text", f"d{number}.1", 0))
        (there,), (back,) = (
            [of.passages[ranking(of, np.zeros(2, dtype=np.float32))[0]].id]
            for of in (Group("q", f"query {number}", copies), Group("q", f"query {number}", copies[::-1]))
        )
        assert there == back
        first += there == copies[0].id
    assert 8 < first < 32, "the one listed first has no advantage"


def test_zero_and_minus_zero_are_a_tie() -> None:
    of_query = group([1, 0])
    both = [np.asarray(values, dtype=np.float32) for values in ([0.0, -0.0], [-0.0, 0.0])]
    assert ranking(of_query, both[0]).tolist() == ranking(of_query, both[1]).tolist()
    assert tied_share(both) == 1


@given(rows=st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=4))
def test_tied_share_is_that_of_brute_force(rows: list[list[int]]) -> None:
    pairs = [a == b for row in rows for a, b in combinations(row, 2)]
    wanted = sum(pairs) / len(pairs) if pairs else 0
    assert tied_share([np.asarray(row, dtype=np.float32) for row in rows]) == pytest.approx(wanted)


def test_only_judged_queries_are_counted_for_ties() -> None:
    found = measure([group([1, 0]), group([1, 1], 1)], [np.asarray([1, 2]), np.asarray([1, 1])])
    assert found.tied_share == 0


# ---- agreement with the teacher


@settings(max_examples=100)
@given(data=st.data(), size=st.integers(2, 15), depth=st.integers(1, 12))
def test_agreement_is_scikit_learns_ndcg(data: st.DataObject, size: int, depth: int) -> None:
    from sklearn.metrics import ndcg_score

    some = st.lists(st.integers(-3, 3) | st.floats(-20, 20, width=32), min_size=size, max_size=size)
    teacher, student = np.asarray(data.draw(some), dtype=np.float32), np.asarray(data.draw(some), dtype=np.float32)
    (found,) = agreement([teacher], [student], depth)
    if np.ptp(teacher) == 0:
        assert np.isnan(found)
    else:
        gains = (teacher.astype(np.float64) - teacher.min()) / np.ptp(teacher.astype(np.float64))
        assert found == pytest.approx(ndcg_score([gains], [student], k=depth), abs=1e-9)


def test_agreement_is_one_for_the_teachers_own_order_and_less_for_any_other() -> None:
    teacher = np.asarray([3.0, 2.0, 1.0, 0.5])
    orders = [np.asarray(random.Random(seed).sample(range(4), 4), dtype=float) for seed in range(9)]
    best = agreement([teacher] * 2, [teacher, 7 * teacher - 3])
    assert best.tolist() == pytest.approx([1, 1])
    for student in orders:
        assert (agreement([teacher], [student])[0] == pytest.approx(1)) == (np.argsort(-student).tolist() == [0, 1, 2, 3])


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=12))
def test_float32_keeps_the_order_of_doubles(values: list[float]) -> None:
    wanted = np.asarray(values)
    found = float32_in_order(wanted)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.array_equal(
        (found[:, None] > found) * 1.0 - (found[:, None] < found),
        (wanted[:, None] > wanted) * 1.0 - (wanted[:, None] < wanted),
    )


@given(values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=12))
def test_float32_scores_stay_as_they_are(values: list[float]) -> None:
    assert float32_in_order(np.asarray(values)).tolist() == values
