"""Tables and reports hold names and gaps as they are: markup, and agreement with a teacher that prefers nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import tiny
from distilrank.evidence import System, evaluate, print_tables, write_report
from distilrank.evidence.answers import headline
from distilrank.evidence.cost import Cost, Timing
from distilrank.evidence.forgetting import forgetting_on
from distilrank.evidence.table import as_table, first_measure
from distilrank.evidence.wording import brief, brief_signed, number, signed
from distilrank.records import Group, Passage
from evidence import samples
from evidence.pages import words


def test_a_name_that_looks_like_markup_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=80).print(as_table("t", ("system",), [("[red]x[/blue] bge[ft]",)]))
    assert "[red]x[/blue] bge[ft]" in capsys.readouterr().out


@pytest.mark.parametrize("teacher", [4.0, 0.0])
def test_eighty_columns_are_enough_and_no_number_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, teacher: float
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    of = samples.groups()
    systems = samples.systems(of, ("bm25", "before", "after"))
    systems += [System("teacher", "teacher", samples.scores(of, teacher, 3)), System("o" * 60, "model", systems[0].scores)]
    lost = forgetting_on("far/away/" * 5 + "test.jsonl", of, systems[2].scores, systems[1].scores)
    cost = Cost(
        568_000_000, 2_270_000_000, [Timing("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", 2, 30, 9, 1234.5, 2345.6, 1, 1)]
    )
    found = evaluate(of, systems, costs={"before": cost, "after": cost}, forgetting=lost)
    print_tables(found)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for test in found.comparisons.values():
        assert f"{test.low:+.4f} to {test.high:+.4f}" in printed
    assert ("gap closed" in printed) == (teacher > 0), "a column of dashes says nothing"
    assert "p (t-test)" in printed
    assert all(f"{line.loss:+.4f}" in printed for line in lost)


def test_the_measure_listed_first_decides_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = samples.groups()
    found = evaluate(of, samples.systems(of), ["nDCG@10", "AP"])
    assert first_measure(found) == "nDCG@10"
    assert headline(found).startswith("NDCG@10 ")
    print_tables(found)
    assert "verdict: after against it in NDCG@10" in " ".join(capsys.readouterr().out.split())
    write_report(found, tmp_path / "report.html")
    read = words((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Bars: NDCG@10 , from 0 to 1;".replace(" ,", ",") in read
    assert "NDCG@10 of after minus that of each other system" in read


def test_zero_has_no_minus(capsys: pytest.CaptureFixture[str]) -> None:
    of = samples.groups()
    before = samples.scores(of, 1.0, 0)
    after = [row + np.float32(1) for row in before]
    print_tables(evaluate(of, [System("before", "before", before), System("after", "after", after)]))
    assert "-0.0" not in capsys.readouterr().out
    for text in (number(-1e-9), signed(-1e-9), signed(-1e-9, ".1%"), brief(-1e-9), brief_signed(-1e-9)):
        assert "−" not in text
    assert (signed(-0.5), brief_signed(-0.0006), brief_signed(0.25)) == ("−0.5000", "−.001", "+.250")


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
