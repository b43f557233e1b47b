"""What was lost outside the domain, and a gate that says no with exit code 3."""

from __future__ import annotations

import pytest

from distilrank.errors import GateError
from distilrank.evidence.forgetting import demand_memory, forgetting_on
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
