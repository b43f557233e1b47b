"""Tables and reports hold names and gaps as they are: markup, and agreement with a teacher that prefers nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import tiny
from distilrank.evidence import System, evaluate, print_tables, write_report
from distilrank.evidence.table import _table
from distilrank.records import Group, Passage


def test_a_name_that_looks_like_markup_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=80).print(_table("t", ("system",), [("[red]x[/blue] bge[ft]",)]))
    assert "[red]x[/blue] bge[ft]" in capsys.readouterr().out


def test_a_teacher_that_prefers_nothing_ends_in_a_report_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = [Group(g.query_id, g.query, tuple(Passage(p.text) for p in g.passages)) for g in tiny.groups(5)]
    rng = np.random.default_rng(0)
    drawn = [[rng.normal(size=4).astype(np.float32) for _ in groups] for _ in range(2)]
    same = [np.ones(4, dtype=np.float32) for _ in groups]
    systems = [System("before", "before", drawn[0]), System("after", "after", drawn[1]), System("teacher", "teacher", same)]
    evaluation = evaluate(groups, systems)
    print_tables(evaluation)
    assert "nan" not in capsys.readouterr().out
    write_report(evaluation, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000
