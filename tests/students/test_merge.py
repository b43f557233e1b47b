"""Averages and interpolations are those of their formulas."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from distilrank.students.merge import RunningAverage, copied, interpolate


def state(step: int) -> SimpleNamespace:
    return SimpleNamespace(global_step=step)


def test_the_average_is_exponential_and_forgets_its_start(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    average = RunningAverage(model, 0.9)
    expected = model.weight.detach().clone()
    for step in range(1, 200):
        with torch.no_grad():
            model.weight.copy_(torch.full((1, 2), float(step)))
        average.on_step_end(None, state(step), None)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.average["weight"], expected)
    assert 185 < expected[0, 0] < 199

    (tmp_path / "checkpoint-199").mkdir()
    average.on_save(SimpleNamespace(output_dir=str(tmp_path)), state(199), None)
    other = RunningAverage(torch.nn.Linear(2, 1), 0.9)
    other.load(tmp_path / "checkpoint-199")
    assert all(torch.equal(other.average[name], value) for name, value in average.average.items())


def test_the_model_has_the_average_for_a_while_or_for_good() -> None:
    model = torch.nn.Linear(3, 1)
    average = RunningAverage(model, 0.9)
    started = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    place = model.weight.data_ptr()
    with average.in_place():
        assert torch.equal(model.weight, started)
    assert torch.equal(model.weight, started + 1)
    average.use()
    assert torch.equal(model.weight, started)
    assert model.weight.data_ptr() == place  # a CUDA graph reads it there


def test_interpolation_goes_a_share_of_the_way() -> None:
    model = torch.nn.Linear(3, 2)
    start = copied(model)
    with torch.no_grad():
        model.weight.mul_(3)
    end = copied(model)
    for share in (0.0, 0.25, 1.0):
        interpolate(model, start, end, share)
        np.testing.assert_allclose(model.weight.detach(), start["weight"] * (1 + 2 * share), rtol=1e-6)
        assert torch.equal(model.bias, start["bias"])
