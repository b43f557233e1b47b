"""The fast path of training: forward, backward, clipping and optimiser of a whole step in one CUDA graph.

A step of a small encoder is 2,500 kernels, and launching them one by one takes longer than computing them. This is
sentence-transformers' trainer with another `training_step`: checkpoints, resume, logging, evaluation and callbacks stay its
own.

What it asks for: a GPU a process, flat batches, every step within one size (a larger one is computed in the ordinary
way, on all processes). Measured in docs/performance.md.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from distilrank.engines.batches import fill
from distilrank.progress import say
from distilrank.students.optimiser import inner
from distilrank.students.trainer import GroupTrainer

ORDINARY_STEPS = 3
"""Steps before the graph is captured: they compile the layers and make the optimiser's state."""


class GraphTrainer(GroupTrainer):
    """Our trainer with steps as replays of one CUDA graph."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.captured: dict[str, Any] = {"steps": 0}

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """A replay, or an ordinary step where the batch does not have the graph's size."""
        state, step = self.captured, inputs["step"]
        fixed = self.ranks.all(step["fixed"])  # a replay cannot wait for a process whose memory runs out
        if state["steps"] < ORDINARY_STEPS or not fixed:
            state["steps"] += fixed
            # The layers are compiled for one size: each other size would be compiled anew.
            with torch.compiler.set_stance("default" if fixed else "force_eager"):
                return super().training_step(model, inputs, num_items_in_batch)
        read = {"pieces": step["pieces"], "units": step["units"]}
        if "graph" not in state:
            with suppress(torch.OutOfMemoryError):
                self._capture(model, read, state)
            if not self.ranks.all("graph" in state):
                return self._without(model, inputs, num_items_in_batch)
        self.remember(step)
        fill(state["inputs"], read)
        state["graph"].replay()
        inner(self.optimizer).done = True
        return state["loss"].clone()

    def _without(self, model: Any, inputs: dict[str, Any], number: Any) -> Any:
        """This step and all that follow in the ordinary way, since some process has no memory for a graph."""
        say("  out of memory for a CUDA graph: steps are computed in the ordinary way")
        # Emptied, not replaced: whoever called still holds it, and with it a graph that was captured here.
        self.captured.clear()
        self.captured["steps"] = 0
        self.optimizer.zero_grad(set_to_none=True)  # they were the graph's
        torch.cuda.empty_cache()
        self.data_collator.size = None
        return self.training_step(model, self.data_collator(inputs["step"]["rows"].of), number)

    def _capture(self, model: Any, step: dict[str, Any], state: dict[str, Any]) -> None:
        model.train()
        static = self._prepare_inputs(step)
        optimiser = inner(self.optimizer)
        optimiser.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # NCCL's own thread may ask for an event meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="global" if self.ranks.count == 1 else "thread_local"):
            loss = self.summed(self.computed(static, self.units(static)))
            optimiser.update()
        state |= {"graph": graph, "inputs": static, "loss": loss}
