"""The command plan: what a run will take, before it is paid for."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from distilrank.cli.app import Changes, Json, Offline, RecipeName, app, print_json


@app.command()
def plan(
    recipe: RecipeName,
    gpu: Annotated[
        str | None, typer.Option(help="Reckon for this GPU (h100, a100, l4, ... or cpu); default: found.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="So many of them.")] = 1,
    price: Annotated[float | None, typer.Option(min=0, help="Of the machine, an hour.")] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Measure this machine's rates, for 30 seconds.")] = False,
    changes: Changes = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Pairs, tokens, hours, memory, disk and money of a run, before it is started.

    Example: `distilrank plan my-domain.yaml --gpu h100 --price 2.5`
    """
    from dataclasses import asdict

    from distilrank.errors import UserError
    from distilrank.pipeline.estimate import estimate
    from distilrank.pipeline.hardware import hardware
    from distilrank.recipe import load_recipe

    if calibrate and (gpu or count > 1):
        raise UserError("--calibrate measures the machine at hand: leave out --gpu and --count")
    found = estimate(
        load_recipe(recipe, changes or []), hardware(gpu, count), offline=offline, price=price, calibrate=calibrate
    )
    if as_json:
        print_json(asdict(found) | {"seconds": found.seconds})
    else:
        print("\n".join(table(found)))


def table(found: Any) -> list[str]:
    """An estimate as lines of at most 80 characters, but for the notes."""
    queries = " + ".join(f"{count:,}" for count in found.queries.values() if count)
    lines = [
        f"{found.recipe} on {found.hardware}: {queries} queries (train + test)",
        f"{found.pairs:,} pairs, {found.known:,} of them in the store",
        "",
        f"{'stage':<10}{'pairs':>14}{'tokens':>18}{'time':>12}",
    ]
    for stage in found.stages:
        pairs, tokens = (f"{number:,}" if number else "-" for number in (stage.pairs, stage.tokens))
        lines.append(f"{stage.stage:<10}{pairs:>14}{tokens:>18}{duration(stage.seconds):>12}")
    lines.append(f"{'in all':<42}{duration(found.seconds):>12}")
    costs = f"memory {found.memory_gb:,.1f} GB, disk {found.disk_gb:,.1f} GB"
    lines += ["", costs + (f", money {found.money:,.2f}" if found.money is not None else "")]
    lines += [f"rates: {basis}" for basis in dict.fromkeys(stage.basis for stage in found.stages if stage.stage == "score")]
    return lines + [f"note: {note}" for note in found.notes]


def duration(seconds: float) -> str:
    """Seconds under ten minutes, minutes under three hours, else hours."""
    if seconds < 600:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 10_800 else f"{seconds / 3600:,.1f} h"
