"""An evaluation: measured once, kept whole, read again the same; its test is scipy's, its table the reference's."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from distilrank.errors import UserError
from distilrank.evidence import Evaluation, System, change_table, evaluate, load_evaluation, print_tables, save_evaluation
from distilrank.evidence.table import Change
from distilrank.evidence.wording import shown
from distilrank.records import Group, Passage

MEASURES = ("AP", "RR@10", "nDCG@10")


def group(number: int, labels: list[int | None]) -> Group:
    return Group(
        f"id{number}", f"如何 {number}", tuple(Passage(f"p{number}.{i} 🙂", label=label) for i, label in enumerate(labels))
    )


GROUPS = [group(n, [int(i == n % 5) for i in range(5)]) for n in range(12)] + [group(12, [0, 0, None]), group(13, [1, 1])]


def made(names: tuple[str, ...] = ("bm25", "before", "after", "teacher")) -> Evaluation:
    roles = {"bm25": "baseline", "before": "before", "after": "after", "teacher": "teacher"}
    rng = np.random.default_rng(0)
    systems = [
        System(
            name, roles.get(name, "model"), [rng.normal(size=len(g.passages)).astype(np.float32).round(1) for g in GROUPS]
        )  # type: ignore[arg-type]
        for name in names
    ]
    return evaluate(GROUPS, systems, settings={"title": "t", "models": ["a", "b"]})


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    saved = made()
    save_evaluation(saved, tmp_path / "eval")
    loaded = load_evaluation(tmp_path / "eval")
    assert list(loaded.groups) == GROUPS
    assert [(system.name, system.role) for system in loaded.systems] == [(s.name, s.role) for s in saved.systems]
    for ours, theirs in zip(loaded.systems, saved.systems, strict=True):
        assert [values.tolist() for values in ours.scores] == [values.tolist() for values in theirs.scores]
    assert loaded.means() == saved.means()
    assert loaded.settings == saved.settings
    assert {name: asdict(paired) for name, paired in loaded.comparisons.items()} == {
        name: asdict(paired) for name, paired in saved.comparisons.items()
    }


def test_neighbouring_queries_of_one_text_stay_apart(tmp_path: Path) -> None:
    twins = [Group("1", "q", (Passage("a", label=1), Passage("b", label=0)))] * 2
    save_evaluation(evaluate(twins, [System("m", "model", [np.asarray([1.0, 2.0])] * 2)]), tmp_path / "eval")
    assert list(load_evaluation(tmp_path / "eval").groups) == twins


def test_the_folder_can_be_read_without_us(tmp_path: Path) -> None:
    evaluation = made()
    save_evaluation(evaluation, tmp_path / "eval")

    def strict(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    summary = json.loads((tmp_path / "eval/evaluation.json").read_text(), parse_constant=strict)
    assert (summary["queries"], summary["judged"]) == (14, 12)
    rows = pq.read_table(tmp_path / "eval/per_query.parquet").to_pylist()
    for system in summary["systems"]:
        of_system = [row for row in rows if row["system"] == system["name"]]
        assert [row["query_id"] for row in of_system] == [g.query_id for g in GROUPS]
        for name in MEASURES:
            values = [row[name] for row in of_system if row[name] is not None and row[name] == row[name]]
            assert len(values) == 12
            assert np.mean(values) == pytest.approx(system["means"][name])
    scores = pq.read_table(tmp_path / "eval/scores.parquet")
    assert scores.num_rows == sum(len(g.passages) for g in GROUPS)
    assert scores.column("score: after").to_pylist() == np.concatenate(evaluation.systems[2].scores).tolist()


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"3", b'{"systems": [{}]}', b"\xff\xfe"])
def test_a_summary_that_is_not_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    save_evaluation(made(), tmp_path / "eval")
    (tmp_path / "eval/evaluation.json").write_bytes(content)
    with pytest.raises(UserError, match=f"{tmp_path / 'eval'}: not an evaluation folder"):
        load_evaluation(tmp_path / "eval")


@pytest.mark.parametrize("other", ["", "per_query.parquet", "evaluation.json"])
def test_scores_that_are_not_ours_are_refused(tmp_path: Path, other: str) -> None:
    save_evaluation(made(), tmp_path / "eval")
    (tmp_path / "eval/scores.parquet").write_bytes((tmp_path / "eval" / other).read_bytes() if other else b"")
    with pytest.raises(UserError, match=f"{tmp_path / 'eval'}: not an evaluation folder"):
        load_evaluation(tmp_path / "eval")


def test_an_evaluation_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an evaluation folder"):
        load_evaluation(tmp_path / "absent")


def test_systems_have_names_of_their_own() -> None:
    with pytest.raises(UserError, match="two systems have one name"):
        made(("bm25", "bm25"))
    with pytest.raises(UserError, match="no system"):
        evaluate(GROUPS, [])


def test_only_before_and_after_are_compared() -> None:
    assert set(made().comparisons) == set(MEASURES)
    assert made(("bm25", "teacher", "my model")).comparisons == {}
    assert change_table(made(("bm25", "teacher"))) == []


# ---- the reference's table


def test_the_table_has_the_references_numbers() -> None:
    change = Change("AP", 0.472061, 0.565495, 0.0)
    assert f"{change.absolute:+.6f}" == "+0.093434"
    assert f"{change.relative:+.2%}" == "+19.79%"
    assert np.isnan(Change("AP", 0.0, 0.5, 0.0).relative)


def test_the_table_is_made_of_the_means_and_the_tests() -> None:
    evaluation = made()
    means = evaluation.means()
    for change in change_table(evaluation):
        assert change.before == means["before"][change.measure]
        assert change.after == means["after"][change.measure]
        assert change.absolute == pytest.approx(evaluation.comparisons[change.measure].difference)
        assert change.p == evaluation.comparisons[change.measure].p


def test_measures_are_shown_by_their_usual_names() -> None:
    assert [shown(name) for name in (*MEASURES, "P@5")] == ["MAP", "MRR@10", "NDCG@10", "P@5"]


def test_the_printed_table_holds_the_numbers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    evaluation = made()
    print_tables(evaluation)
    printed = capsys.readouterr().out
    for change in change_table(evaluation):
        assert f"{change.before:.6f}" in printed
        assert f"{change.absolute:+.6f}" in printed
    assert "2 queries have no positive or no negative passage" in printed
