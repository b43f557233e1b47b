"""The processes of one training, as torchrun starts them: which one this is, and what they tell each other.

Nothing is wrapped: each process computes its share of a step, and gradients are added up before the optimiser. Since a
step's loss is a sum over its groups divided by the units of all processes, the sum is the gradient of one process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from distilrank.errors import UserError

T = TypeVar("T")
LONGEST_WAIT = timedelta(days=7)
"""For what the first process does alone: scoring, tokenising."""
BUCKET = 2**24
"""Numbers that are sent at once: 64 MB of gradients, so that little memory is held twice."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a training; alone, everything here is free."""

    rank: int = 0
    count: int = 1
    control: Any = None
    """A gloo group, over which the hosts agree without asking a device."""
    ours: bool = False
    """Whether the processes were joined here, and part here."""

    def first(self, made: Callable[[], T]) -> T:
        """What the first process makes, on all of them."""
        if self.count == 1:
            return made()
        import torch.distributed as dist

        told = [None if self.rank else made()]
        _or_left(lambda: dist.broadcast_object_list(told, src=0, group=self.control))
        return told[0]  # type: ignore[return-value]

    def wait(self) -> None:
        """For all processes to come here."""
        self.least(0)

    def least(self, *values: int) -> list[int]:
        """The least of each number over the processes."""
        if self.count == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        told = torch.tensor(values, dtype=torch.int64)
        _or_left(lambda: dist.all_reduce(told, dist.ReduceOp.MIN, group=self.control))
        return [int(value) for value in told.tolist()]

    def all(self, value: bool) -> bool:
        """Whether it is true on all processes."""
        return bool(self.least(value)[0])

    def gathered(self, value: T) -> list[T]:
        """What each process has, in their order."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        told: list[Any] = [None] * self.count
        _or_left(lambda: dist.all_gather_object(told, value, group=self.control))
        return told

    def add_up(self, tensors: Sequence[Any]) -> None:
        """Replace each tensor by its sum over the processes, on the devices; it may be captured in a CUDA graph."""
        if self.count == 1:
            return
        import torch
        import torch.distributed as dist

        for bucket in _buckets(tensors):
            alone = len(bucket) == 1 and bucket[0].is_contiguous()
            flat = bucket[0] if alone else torch.cat([tensor.reshape(-1) for tensor in bucket])
            if flat.is_cuda:
                dist.all_reduce(flat)
            else:
                _or_left(partial(dist.all_reduce, flat))
            if alone:
                continue
            parts = flat.split([tensor.numel() for tensor in bucket])
            views = [part.view(tensor.shape) for part, tensor in zip(parts, bucket, strict=True)]
            torch._foreach_copy_(bucket, views)

    def same(self, model: Any) -> None:
        """Give all processes the first one's weights: a new head is drawn at random."""
        if self.count == 1:
            return
        import torch.distributed as dist

        for tensor in [*model.parameters(), *model.buffers()]:
            dist.broadcast(tensor.data, src=0)

    @contextmanager
    def talking(self) -> Iterator[None]:
        """While a library talks with the other processes by itself."""
        try:
            yield
        except RuntimeError as error:
            if self.count > 1 and "gloo" in str(error):
                raise _left(error) from None
            raise

    def leave(self) -> None:
        """Part, where we joined."""
        if self.ours:
            import torch.distributed as dist

            self.wait()
            dist.destroy_process_group()


ALONE = Ranks()


def joined(device: str = "auto") -> Ranks:
    """The processes that torchrun (or accelerate) started this one among; each gets its own GPU.

    Raises `UserError` when there are more processes than GPUs, and where FSDP or DeepSpeed is asked for.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        return ALONE
    import torch
    import torch.distributed as dist

    for library in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{library}", "false").lower() in ("1", "true"):
            raise UserError(f"{library} is not for students, which fit on one GPU: launch without it (docs/cluster.md)")
    kind, _, number = device.partition(":")
    if number:
        raise UserError(f"device {device} and {count} processes: say cuda, and each process takes a GPU of its own")
    cuda = torch.cuda.is_available() and kind != "cpu"
    if cuda:
        local, seen = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local >= seen:
            raise UserError(f"process {local + 1} of this host has no GPU, {seen} are seen: --nproc-per-node {seen}")
        torch.cuda.set_device(local)
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if cuda else "gloo")
    return Ranks(dist.get_rank(), count, dist.new_group(backend="gloo", timeout=LONGEST_WAIT), ours)


def _buckets(tensors: Sequence[Any]) -> list[list[Any]]:
    """Tensors in lists of about so many numbers."""
    buckets: list[list[Any]] = [[]]
    held = 0
    for tensor in tensors:
        if held and held + tensor.numel() > BUCKET:
            buckets.append([])
            held = 0
        buckets[-1].append(tensor)
        held += tensor.numel()
    return buckets


def _or_left(talk: Callable[[], object]) -> None:
    """What gloo raises when another process has ended is no fault of this one."""
    try:
        talk()
    except RuntimeError as error:
        raise _left(error) from None


def _left(error: RuntimeError) -> UserError:
    """What it means that a talk failed."""
    return UserError(f"another process of the training has ended: the same command goes on ({error!s:.80})")
