"""What a run is reckoned for: a GPU by its name, or the machine at hand, with the rates that were measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from distilrank.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Hardware:
    """What a run is reckoned for: rates in FLOP/s by kind of work, seconds to start a stage and beside a step."""

    name: str
    count: int
    device: str
    """cpu or cuda"""
    rates: Mapping[str, float]
    start: Mapping[str, float]
    step: Mapping[str, float]
    basis: str
    """Where the rates come from; `not measured` where they are scaled."""
    memory: float | None = None
    """GB of a GPU."""


GUESSED_PEAK = 2.0
"""TFLOP/s a multiprocessor of a GPU that the table does not have: between an RTX 4090's 1.3 and an A100's 2.9."""


@cache
def throughputs() -> Any:
    """The table of what was measured."""
    return yaml.safe_load(files("distilrank").joinpath("pipeline/throughput.yaml").read_text(encoding="utf-8"))


def hardware(name: str | None = None, count: int = 1) -> Hardware:
    """The hardware of that name, or the one found here. Raises `UserError` for a name that is not in the table."""
    table, found = throughputs(), None if name else _found()
    if found is None and (name or "cpu").lower() == "cpu":
        if count > 1:
            raise UserError(f"--count {count} is of GPUs, and this is a CPU: name a GPU with --gpu")
        return _cpu(table)
    gpus, asked = table["gpus"], str(found.name if found else name)
    measured, best, key = table["measured"]["h100"], gpus["h100"]["peak"], _named(asked, gpus)
    memory = found.total_memory / 1e9 if found else gpus[key]["memory"] if key else None
    if key:
        times, by = gpus[key]["peak"] / best, "by peak"
    elif found:
        times, by = GUESSED_PEAK * found.multi_processor_count / best, "a guess by its multiprocessors: use --calibrate"
    else:
        raise UserError(f"--gpu {name}: {did_you_mean(asked, [*gpus, 'cpu'])} (or measure here with --calibrate)")
    basis = measured["source"] if key == "h100" else f"not measured: an H100's rates x {times:.2f}, {by}"
    if count > 1:
        basis = f"{basis}; {count} GPUs taken as {count} times one, not measured"
    return _of(measured, key or asked, count, "cuda", times, basis, memory)


def beside(on: Hardware) -> Hardware:
    """The CPU of a GPU's machine: the one here, or, where that GPU is another machine's, two cores with AMX."""
    if on.device == "cuda" and _found() is None:
        return _of(throughputs()["measured"]["cpu"], "CPU", 1, "cpu", 1.0, on.basis, None)
    return hardware("cpu")


def _named(asked: str, gpus: Mapping[str, Any]) -> str | None:
    """Which GPU of the table a name means, as we or as its driver writes it: the longest of those that stand in it whole."""
    called = {alias.lower(): key for key, gpu in gpus.items() for alias in (key, *gpu.get("also", ()))}
    said = [alias for alias in called if re.search(rf"(?<![a-z0-9]){re.escape(alias)}(?![a-z0-9])", asked.lower())]
    return called[max(said, key=len)] if said else None


def _found() -> Any:
    """What torch says of the GPU here, if there is one."""
    import torch

    return torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None


def _cpu(table: Any) -> Hardware:
    import torch

    from distilrank.demo.sizes import cpu_tier

    tier, threads = table["cpus"][cpu_tier()], torch.get_num_threads()
    measured, times = table["measured"][tier["measured"]], tier["times"] * threads / 2
    basis = measured["source"] if times == 1 else f"not measured: {measured['title']} x {times:.2f}"
    return _of(measured, f"CPU, {threads} threads", 1, "cpu", times, basis, None)


def _of(row: Any, name: str, count: int, device: str, times: float, basis: str, memory: float | None) -> Hardware:
    rates = {kind: row[kind] * 1e12 * times for kind in ("decoder", "decoder_float8", "encoder", "embedder", "train")}
    step = {kind: row[kind] for kind in ("step", "forward")}
    return Hardware(name, count, device, rates, row["start"], step, basis, memory)


def with_rates(on: Hardware, rates: Mapping[str, float], what: str) -> Hardware:
    """The same hardware with rates that were measured on it, by steps of groups: those of triplets keep their cost."""
    step = dict.fromkeys(on.step, 0.0) | {"forward": on.step["forward"]}
    return replace(on, rates=dict(on.rates) | dict(rates), step=step, basis=what)
