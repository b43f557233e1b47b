"""The optimiser is torch's AdamW after torch's clipping, but for updates that are not finite: those it skips."""

from __future__ import annotations

import pytest
import torch

from distilrank.students.optimiser import GuardedAdamW


def pair() -> tuple[torch.nn.Linear, torch.nn.Linear]:
    torch.manual_seed(0)
    one, other = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    other.load_state_dict(one.state_dict())
    return one, other


def gradients(model: torch.nn.Linear, step: int, *, broken: bool = False) -> None:
    inputs = torch.randn(7, 5, generator=torch.Generator().manual_seed(step))
    model.zero_grad()
    (model(inputs).square().sum() * (float("nan") if broken else 1.0)).backward()


@pytest.mark.parametrize("clip", [0.05, 1e9])
@pytest.mark.parametrize("broken", [(), (0,), (2, 3)])
def test_skipped_updates_leave_the_others_as_they_are_without_them(clip: float, broken: tuple[int, ...]) -> None:
    ours, theirs = pair()
    guarded = GuardedAdamW([{"params": list(ours.parameters()), "weight_decay": 0.1}], 1e-2, clip, "cpu")
    plain = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1)
    for step in range(5):
        gradients(ours, step, broken=step in broken)
        guarded.step()
        if step not in broken:
            gradients(theirs, step)
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip)
            plain.step()
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
    assert guarded.skipped_since() == len(broken)
    assert guarded.skipped_since() == 0


def test_an_update_that_a_graph_has_made_is_not_made_twice() -> None:
    model, _ = pair()
    optimiser = GuardedAdamW([{"params": list(model.parameters())}], 1e-2, 1.0, "cpu")
    before = model.weight.detach().clone()
    gradients(model, 0)
    optimiser.done = True
    optimiser.step()
    assert torch.equal(model.weight, before)
    optimiser.step()
    assert not torch.equal(model.weight, before)
