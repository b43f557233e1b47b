"""AdamW that clips by itself and leaves the weights alone where a gradient is not finite, without asking the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class GuardedAdamW(torch.optim.AdamW):  # type: ignore[misc]
    """Fused AdamW on gradients clipped to a norm; an update whose norm is not finite is skipped and counted.

    Skipping is the fused kernel's own, meant for float16 scaling: a flag on the device, which nothing waits for. On CUDA the
    learning rate is a tensor that a schedule fills, so that a CUDA graph of an update may be replayed.
    """

    done = False
    """A graph has made the update that `step` is about to be asked for."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, clip: float, device: Any) -> None:
        cuda = torch.device(device).type == "cuda"
        rate = torch.tensor(lr, device=device) if cuda else lr
        super().__init__(groups, lr=rate, fused=True, capturable=cuda)
        self.clip = clip
        self.found_inf = torch.zeros((), device=device)
        self.skipped = torch.zeros((), device=device)
        """How many updates were skipped since the last look."""

    def step(self, closure: None = None) -> None:
        """One update, unless a graph has made it already."""
        if not self.done:
            self.update()
        self.done = False

    def update(self) -> None:
        """Clip, and update or skip."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), self.clip, foreach=True)
        self.found_inf.copy_(~torch.isfinite(norm))
        self.skipped.add_(self.found_inf)
        super().step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The library loads to the CPU; a rate there would be frozen into a graph."""
        super().load_state_dict(state_dict)
        if self.found_inf.is_cuda:
            for group in self.param_groups:
                group["lr"] = torch.as_tensor(group["lr"]).to(self.found_inf.device)

    def parameters(self) -> list[Any]:
        """What it updates."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def skipped_since(self) -> int:
        """How many updates were skipped since this was last asked; waits for the device."""
        count = int(self.skipped.item())
        self.skipped.zero_()
        return count


def inner(optimiser: Any) -> Any:
    """The optimiser that accelerate has wrapped."""
    return getattr(optimiser, "optimizer", optimiser)
