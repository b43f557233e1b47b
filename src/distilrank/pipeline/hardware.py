"""What a run is reckoned for: a GPU by its name, or the machine at hand, with the rates that were measured."""

from __future__ import annotations

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


@cache
def throughputs() -> Any:
    """The table of what was measured."""
    return yaml.safe_load(files("distilrank").joinpath("pipeline/throughput.yaml").read_text(encoding="utf-8"))


def hardware(name: str | None = None, count: int = 1) -> Hardware:
    """The hardware of that name, or the one found here. Raises `UserError` for a name that is not in the table."""
    table = throughputs()
    if name is None and (name := _found()) is None:
        return _cpu(table)
    gpus = table["gpus"]
    wanted = name.lower().replace("nvidia", "").strip(" -")
    called = {alias.lower(): key for key, gpu in gpus.items() for alias in (key, *gpu.get("also", ()))}
    exact = called.get(wanted) or next((called[alias] for alias in sorted(called, key=len) if alias in wanted), None)
    if wanted == "cpu":
        return _cpu(table)
    if exact is None:
        raise UserError(f"--gpu {name}: {did_you_mean(name, [*gpus, 'cpu'])} (or measure here with --calibrate)")
    measured, times = table["measured"]["h100"], gpus[exact]["peak"] / gpus["h100"]["peak"]
    basis = measured["source"] if exact == "h100" else f"not measured: an H100's rates x {times:.2f}, by peak"
    if count > 1:
        basis = f"{basis}; {count} GPUs taken as {count} times one, not measured"
    return _of(measured, exact, count, "cuda", times, basis, gpus[exact]["memory"])


def _found() -> str | None:
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def _cpu(table: Any) -> Hardware:
    import torch

    from distilrank.demo.sizes import cpu_tier

    tier, threads, measured = cpu_tier(), torch.get_num_threads(), table["measured"]["cpu"]
    times = table["cpus"][tier] * threads / 2
    same = tier == "amx" and threads == 2
    basis = measured["source"] if same else f"not measured: {measured['title']} x {times:.2f}"
    return _of(measured, f"CPU, {threads} threads", 1, "cpu", times, basis, None)


def _of(row: Any, name: str, count: int, device: str, times: float, basis: str, memory: float | None) -> Hardware:
    rates = {kind: row[kind] * 1e12 * times for kind in ("decoder", "decoder_float8", "encoder", "embedder", "train")}
    step = {kind: row[kind] for kind in ("step", "ordinary_step", "forward")}
    return Hardware(name, count, device, rates, row["start"], step, basis, memory)


def with_rates(on: Hardware, rates: Mapping[str, float], what: str) -> Hardware:
    """The same hardware with rates that were measured on it."""
    return replace(on, rates=dict(on.rates) | dict(rates), step=dict.fromkeys(on.step, 0.0), basis=what)
