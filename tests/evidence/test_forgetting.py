"""What was lost outside the domain, and a gate that says no with exit code 3."""

from __future__ import annotations

import pytest

from distilrank.errors import GateError
from distilrank.evidence.forgetting import corrected_over_sets, demand_memory, forgetting_on
from distilrank.metrics import measure
from evidence import samples


def test_a_loss_is_before_minus_after_with_its_test() -> None:
    of = samples.groups(80)
    before, after = samples.scores(of, 3.0, 0), samples.scores(of, 0.5, 1)
    lines = forgetting_on("askubuntu", of, before, after)
    assert [line.measure for line in lines] == ["AP", "RR@10", "nDCG@10"]
    for line in lines:
        lost = measure(of, before).mean(line.measure) - measure(of, after).mean(line.measure)
        assert line.loss == pytest.approx(lost)
        assert line.paired.difference == pytest.approx(-lost)
        assert line.paired.shown
        assert line.queries == 80


def test_the_gate_lets_little_pass_and_names_what_was_lost() -> None:
    of = samples.groups(80)
    lines = forgetting_on("askubuntu", of, samples.scores(of, 3.0, 0), samples.scores(of, 0.5, 1))
    demand_memory(lines, lines[0].loss)
    with pytest.raises(GateError, match=r"more than 0\.02 in MAP: askubuntu") as error:
        demand_memory(lines, 0.02)
    assert error.value.exit_code == 3
    demand_memory(forgetting_on("other", of, samples.scores(of, 0.5, 1), samples.scores(of, 3.0, 0)), 0.0)
    demand_memory([], 0.0)


def test_a_loss_that_is_not_shown_is_called_so_and_counts_all_the_same() -> None:
    of = samples.groups(20)
    lines = forgetting_on("askubuntu", of, samples.scores(of, 1.2, 1), samples.scores(of, 1.0, 2), ["nDCG@10"])
    assert not lines[0].paired.shown
    assert lines[0].loss > 0
    with pytest.raises(GateError, match=r"in NDCG@10: askubuntu .* \(lost 0\.\d+\) \(not shown\)$"):
        demand_memory(lines, 0.0)


def test_p_is_corrected_over_the_sets_within_a_measure() -> None:
    lines = []
    for name, seed in (("one", 0), ("two", 10), ("three", 20)):
        of = samples.groups(20)
        lines += forgetting_on(name, of, samples.scores(of, 1.6, seed), samples.scores(of, 0.9, seed + 1), ["AP", "RR@10"])
    found = corrected_over_sets(lines)
    assert [(line.name, line.measure, line.loss) for line in found] == [
        (line.name, line.measure, line.loss) for line in lines
    ]
    for key in ("AP", "RR@10"):
        before, after = ([line.paired for line in part if line.measure == key] for part in (lines, found))
        least = min(range(3), key=lambda place: before[place].p)
        assert after[least].p_holm == pytest.approx(3 * before[least].p)
        assert [test.p for test in after] == [test.p for test in before]
