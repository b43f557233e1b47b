"""Where a teacher scores: in this process, in a process for each GPU of this machine, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distilrank.errors import UserError
from distilrank.pipeline.ask import teacher_here
from distilrank.scoring.score import Drive


@dataclass(frozen=True)
class Where:
    """`on` is local or ray; `gpus` a number or `all`: how many are used, on ray at most. Neither decides a score."""

    on: str = "local"
    gpus: str | None = None

    def check(self, specs: Sequence[Any]) -> None:
        """Raise `UserError` now where these teachers cannot be asked there, before anything is done."""
        if self.on not in ("local", "ray"):
            raise UserError(f"--on {self.on}: local or ray")
        if self == Where():
            return
        if all(spec.kind == "http" for spec in specs):
            raise UserError("a server is asked by one process, which sends many requests at once: leave --on and --gpus out")
        for spec in specs:
            self._found(spec)

    def _found(self, spec: Any) -> Any:
        """The GPUs of this machine, or the share of the cluster, in groups of what one teacher needs."""
        each = int((getattr(spec, "vllm", None) or {}).get("tensor_parallel_size", 1))
        if self.on == "ray":
            from distilrank.scoring.ray import cluster

            return cluster(self.gpus or "all", each)
        from distilrank.scoring import processes

        return processes.gpus(self.gpus or "all", each)

    @contextmanager
    def drive(self, named: Any, local: Any, *, offline: bool) -> Iterator[Drive | None]:
        """What does the scoring of a teacher (none: this process). `local` is `named` with its model on this machine.

        A server, beside other teachers, is asked from here.
        """
        if self == Where() or local.kind == "http":
            yield None
        elif self.on == "ray":
            if Path(named.model).exists():  # a node's working folder is another
                named = named.model_copy(update={"model": str(Path(named.model).absolute())})
            yield partial(self._found(local).drive, partial(teacher_here, named, offline=offline))
        else:
            from distilrank.scoring.processes import crew

            with crew(partial(teacher_here, local, offline=True), self._found(local)) as workers:
                yield workers.drive
