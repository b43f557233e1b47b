"""Timing the systems on this machine's devices: what evidence is given to measure costs with."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distilrank.evidence.cost import Cost, Timing, time_system
from distilrank.progress import say
from distilrank.records import Group

GPU_ROUNDS = 3
"""A size of batch is run, captured as a graph, and replayed: see `engines.fast`."""

Asked = Callable[[Sequence[Group]], object]


def student_cost(name: str, reranker_on: Callable[[str], Any], groups: Sequence[Group], seconds: float) -> Cost:
    """A cross-encoder's cost on the CPU and, where there is one, on the GPU; `reranker_on` builds it for a device, as it is
    served.
    """
    import torch

    runs = []
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        reranker = reranker_on(device)
        say(f"  timing {name} on the {device_name(device)}")
        runs.append(_timed(reranker.score, groups, [device], reranker.dtype, seconds))
    return Cost(*size_of([reranker.folder]), runs)


def teacher_cost(members: Sequence[Any], folders: Sequence[Path], groups: Sequence[Group], seconds: float) -> Cost | None:
    """A teacher's cost on the device where it has scored; its members are asked one after another.

    None for a server, whose machine is not this one, and for vLLM, which takes minutes to start.
    """
    if any(member.engine == "vllm" or not folder.is_dir() for member, folder in zip(members, folders, strict=True)):
        return None
    devices = sorted({_device(member) for member in members})
    dtype = " and ".join(sorted({member.identity.dtype for member in members}))

    def ask(asked: Sequence[Group]) -> None:
        for member in members:
            member.score(asked)

    say(f"  timing the teacher on the {_names(devices)}")
    run = _timed(ask, groups, devices, dtype, seconds)
    for member in members:
        member.release()
    return Cost(*size_of(folders), [run])


def size_of(folders: Sequence[Path]) -> tuple[int | None, int | None]:
    """Parameters and bytes of the weights of model folders, by their files; none where a file does not tell."""
    files = [file for folder in folders for file in folder.rglob("*") if file.suffix in (".safetensors", ".gguf")]
    tells = bool(files) and all(file.suffix == ".safetensors" for file in files)
    return sum(map(_parameters, files)) if tells else None, sum(file.stat().st_size for file in files) or None


def device_name(device: str) -> str:
    """What a device is called."""
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    if device == "mps":
        return "Apple GPU"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _timed(score: Asked, groups: Sequence[Group], devices: Sequence[str], dtype: str, seconds: float) -> Timing:
    import torch

    def wait() -> None:
        for device in devices:
            if device.startswith("cuda"):
                torch.cuda.synchronize(device)
            elif device == "mps":
                torch.mps.synchronize()

    on_cpu = list(devices) == ["cpu"]
    return time_system(
        score,
        groups,
        device=_names(devices),
        threads=torch.get_num_threads() if on_cpu else 0,
        dtype=dtype,
        seconds=seconds,
        rounds=1 if on_cpu else GPU_ROUNDS,
        wait=wait,
    )


def _names(devices: Sequence[str]) -> str:
    return " and ".join(map(device_name, devices))


def _device(member: Any) -> str:
    return str(member.decoder.device if hasattr(member, "decoder") else member.device)


def _parameters(file: Path) -> int:
    from math import prod

    from safetensors import safe_open

    with safe_open(file, "numpy") as tensors:
        names = tensors.keys()
        return sum(prod(tensors.get_slice(name).get_shape()) for name in names)
