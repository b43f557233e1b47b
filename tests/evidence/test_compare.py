"""Two evaluations side by side: the queries they share, matched by content, tested in pairs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distilrank.cli import run
from distilrank.errors import UserError
from distilrank.evidence import evaluate, save_evaluation
from distilrank.evidence.compare import compare_evaluations
from distilrank.evidence.significance import paired
from evidence import samples


def test_the_test_is_that_of_the_two_students_in_any_order_of_the_queries() -> None:
    of = samples.groups()
    one = samples.evaluation()
    shuffled = np.random.default_rng(1).permutation(len(of)).tolist()
    better = [replace(s, scores=samples.scores(of, 6.0, 9)) if s.name == "after" else s for s in samples.systems(of)]
    moved = [replace(s, scores=[s.scores[n] for n in shuffled]) for s in better]
    two = evaluate([of[n] for n in shuffled], moved)
    found = compare_evaluations(one, two)
    assert (found.systems, found.shared, found.alone) == (("after", "after"), 42, (0, 0))
    straight = evaluate(of, better)
    for name in one.measures:
        wanted = paired(straight.measured["after"].values[name], one.measured["after"].values[name])
        assert found.tests[name].difference == pytest.approx(wanted.difference)
        assert found.tests[name].p == pytest.approx(wanted.p)
        assert found.means[name] == (
            pytest.approx(one.means()["after"][name]),
            pytest.approx(straight.means()["after"][name]),
        )
    assert found.tests["AP"].shown


def test_an_evaluation_does_not_differ_from_itself() -> None:
    found = compare_evaluations(samples.evaluation(), samples.evaluation(), "bm25")
    assert {test.p for test in found.tests.values()} == {1.0}
    assert not any(test.shown for test in found.tests.values())


def test_queries_with_other_candidates_or_labels_are_left_out() -> None:
    of = samples.groups()
    relabelled = [replace(of[0], passages=(replace(of[0].passages[0], label=0), *of[0].passages[1:])), *of[1:-5]]
    fewer = evaluate(relabelled, samples.systems(relabelled))
    found = compare_evaluations(samples.evaluation(), fewer)
    assert (found.shared, found.alone) == (36, (6, 1))


def test_without_labels_agreement_is_compared() -> None:
    of = samples.groups()
    bare = evaluate(samples.unlabelled(of), samples.systems(of))
    found = compare_evaluations(bare, bare)
    assert list(found.tests) == ["agreement: kendall_tau", "agreement: ndcg", "agreement: top1"]


def test_what_cannot_be_compared_is_said() -> None:
    one = samples.evaluation()
    with pytest.raises(UserError, match=r"no system 'aftr'.*bm25, before, after, teacher"):
        compare_evaluations(one, one, "aftr")
    with pytest.raises(UserError, match="no student after"):
        compare_evaluations(samples.evaluation(("bm25", "teacher")), one)
    others = [replace(group, query=f"other {group.query}") for group in samples.groups()]
    with pytest.raises(UserError, match="share no query"):
        compare_evaluations(one, evaluate(others, samples.systems(others)))


def test_the_command_prints_a_table_or_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_evaluation(samples.evaluation(), tmp_path / "a")
    save_evaluation(samples.evaluation(), tmp_path / "b")
    assert run(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tests"]["AP"]["shown"] is False
    assert found["shared"] == 42
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out
    assert "not shown" in printed
    assert "+0.0000 to +0.0000" in printed
    assert max(map(len, printed.splitlines()[3:])) <= 80
    assert "agreement:" in printed, "a name is broken between its words alone"
    assert run(["compare", str(tmp_path / "a"), str(tmp_path / "absent")]) == 2


def test_agreement_with_two_teachers_is_not_taken_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = samples.groups()
    one = samples.evaluation()
    others = [replace(s, scores=samples.scores(of, 4.0, 77)) if s.role == "teacher" else s for s in samples.systems(of)]
    two = evaluate(of, others)
    assert compare_evaluations(one, one).one_teacher
    assert not compare_evaluations(one, two).one_teacher
    no_teacher = evaluate(of, [s for s in others if s.role != "teacher"])
    assert compare_evaluations(no_teacher, one).one_teacher, "no agreement is compared"
    save_evaluation(one, tmp_path / "a")
    save_evaluation(two, tmp_path / "b")
    assert run(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "each agrees with its own" in capsys.readouterr().out
