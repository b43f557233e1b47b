"""The fast path of training: forward, backward, clipping and optimiser of a whole step in one CUDA graph.

A step of a small encoder is 2,500 kernels, and launching them one by one takes longer than computing them. This is
sentence-transformers' trainer with another `training_step`: checkpoints, resume, logging, evaluation and callbacks stay its
own.

What it asks for: one GPU, flat batches, no accumulation, every step within one budget of tokens, passages and pairs (a step
that is larger, or has another form, is computed in the ordinary way). Measured in docs/performance.md.
"""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.cross_encoder import CrossEncoderTrainer

ORDINARY_STEPS = 3
"""Steps before the graph is captured: they compile the layers and make the optimiser's state."""


class GraphAdamW(torch.optim.AdamW):  # type: ignore[misc]
    """AdamW whose `step` does nothing where the graph has done it; the learning rate is a tensor that a schedule fills."""

    done = False

    def step(self, closure: None = None) -> None:
        """One update, unless the graph has made it already."""
        if self.done:
            self.done = False
        else:
            super().step(closure)


class GraphTrainer(CrossEncoderTrainer):  # type: ignore[misc]
    """sentence-transformers' trainer with steps as replays of one CUDA graph. `max_grad_norm` of its arguments must be 0."""

    clip: float = 1.0
    optimizer: Any

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.captured: dict[str, Any] = {"steps": 0}

    def create_optimizer(self, model: Any = None) -> Any:
        """Fused AdamW on every parameter of the model, without decay where the library puts none."""
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.model))
            named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
            groups = [
                {"params": [p for name, p in named if (name in decayed) == decay], "weight_decay": weight}
                for decay, weight in ((True, self.args.weight_decay), (False, 0.0))
            ]
            rate = torch.tensor(self.args.learning_rate, device=self.args.device)
            self.optimizer = GraphAdamW([g for g in groups if g["params"]], lr=rate, fused=True, capturable=True)
        return self.optimizer

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """A replay, or an ordinary step where the batch has another form than the graph's."""
        state = self.captured
        form = _form(inputs)
        if state["steps"] < ORDINARY_STEPS or state.get("form", form) != form or not _fits(inputs):
            state["steps"] += _fits(inputs)
            return self._ordinary(model, inputs)
        if "graph" not in state:
            self._capture(model, inputs, state)
        _fill(state["inputs"], inputs)
        state["graph"].replay()
        _inner(self.optimizer).done = True
        return state["loss"].clone()

    def _ordinary(self, model: Any, inputs: dict[str, Any]) -> Any:
        model.train()
        loss = self._forward_and_backward(model, self._prepare_inputs(inputs))
        torch.nn.utils.clip_grad_norm_(self._clipped(), self.clip, foreach=True)
        return loss

    def _forward_and_backward(self, model: Any, inputs: dict[str, Any]) -> Any:
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        loss.backward()
        return loss.detach()

    def _clipped(self) -> list[Any]:
        return [p for group in _inner(self.optimizer).param_groups for p in group["params"]]

    def _capture(self, model: Any, inputs: dict[str, Any], state: dict[str, Any]) -> None:
        model.train()
        static = self._prepare_inputs(inputs)
        optimiser = _inner(self.optimizer)
        optimiser.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._forward_and_backward(model, static)
            torch.nn.utils.clip_grad_norm_(self._clipped(), self.clip, foreach=True)
            torch.optim.AdamW.step(optimiser)
        state |= {"graph": graph, "inputs": static, "loss": loss, "form": _form(inputs)}

    def _get_learning_rate(self) -> float:
        """The rate as a number, from the schedule: reading it off the device would wait for the step."""
        factor = self.lr_scheduler.lr_lambdas[0](self.state.global_step)
        return float(self.args.learning_rate * factor)


def _inner(optimiser: Any) -> Any:
    """The optimiser that accelerate has wrapped."""
    return getattr(optimiser, "optimizer", optimiser)


def _fits(inputs: dict[str, Any]) -> bool:
    """Whether the collator could bring the step to the fixed form."""
    return bool(inputs["step"].get("fixed"))


def _form(value: Any) -> Any:
    """Shapes and constants of a nested batch: two batches of one form can take each other's place."""
    if isinstance(value, dict):
        return tuple((key, _form(inner)) for key, inner in sorted(value.items()))
    if isinstance(value, list):
        return tuple(map(_form, value))
    return tuple(value.shape) if torch.is_tensor(value) else value


def _fill(static: Any, fresh: Any) -> None:
    if isinstance(static, dict):
        for key, inner in static.items():
            _fill(inner, fresh[key])
    elif isinstance(static, list):
        for one, other in zip(static, fresh, strict=True):
            _fill(one, other)
    elif torch.is_tensor(static):
        static.copy_(fresh, non_blocking=True)
