"""What `distilrank doctor` shows: the machine, and a teacher's checks, as a table for a person."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from distilrank.teachers.checks import Check

LIBRARIES = ("distilrank", "torch", "transformers", "sentence-transformers", "vllm", "ray")
COLOURS = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def machine() -> list[Check]:
    """What this machine can do, and the versions that decide what it computes."""
    import os

    import torch

    from distilrank.engines.load import has_bfloat16

    found = [f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    checks = [Check("versions", "ok", ", ".join(found)), Check("cpu", "ok", f"{cores} cores, {_products('cpu')}")]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        float8 = "float8 products" if (properties.major, properties.minor) >= (8, 9) else "no float8 products"
        detail = f"{properties.name}, {memory}, {_products(f'cuda:{number}')}, {float8}"
        checks.append(Check(f"gpu {number}", "ok" if has_bfloat16(f"cuda:{number}") else "warning", detail))
    return checks


def _products(device: str) -> str:
    from distilrank.engines.load import has_bfloat16

    return "bfloat16 products" if has_bfloat16(device) else "no bfloat16 products: float32 is used"


def print_checks(checks: Sequence[Check]) -> None:
    """A table on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(check.name, Text(check.verdict, style=COLOURS[check.verdict]), Text(check.detail))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(table)
