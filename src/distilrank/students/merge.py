"""Weights out of several: a running average over the steps, and a point between the start and the end of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from distilrank.progress import process_number

FILE = "average.safetensors"


class RunningAverage(TrainerCallback):  # type: ignore[misc]
    """An exponential moving average of what is trained, kept beside it and in each checkpoint.

    After step n it is decay * average + (1 - decay) * weights, the decay at most (1 + n) / (10 + n), so that the start is
    soon forgotten (Tarvainen and Valpola 2017, arXiv 1703.01780).
    """

    def __init__(self, model: Any, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        self.average = {name: p.clone() for name, p in self.weights.items()}

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), 1 - decay)

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if process_number() == 0:
            save_file(self.average, Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE)

    def load(self, checkpoint: Path) -> None:
        """The average as a checkpoint has it."""
        for name, tensor in load_file(checkpoint / FILE).items():
            self.average[name].copy_(tensor)

    def use(self) -> None:
        """Give the model the averaged weights."""
        _put(self.average, self.weights)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights while this is open; tensors stay where they are, as CUDA graphs need it."""
        kept = {name: tensor.clone() for name, tensor in self.weights.items()}
        self.use()
        try:
            yield
        finally:
            _put(kept, self.weights)


def _put(source: dict[str, Any], target: dict[str, Any]) -> None:
    """Copy tensors into the tensors of the same name."""
    for name, tensor in source.items():
        target[name].copy_(tensor)


def copied(model: Any) -> dict[str, Any]:
    """The weights of a model as they are now, on the CPU."""
    return {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters()}


def interpolate(model: Any, start: dict[str, Any], end: dict[str, Any], share: float) -> None:
    """Give the model start + share * (end - start): what it knew before comes back as the share falls.

    Wortsman et al. 2022, Robust fine-tuning of zero-shot models (arXiv 2109.01903).
    """
    weights = dict(model.named_parameters())
    for name, before in start.items():
        weights[name].data.copy_(torch.lerp(before, end[name], share))
