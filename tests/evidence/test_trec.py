"""TREC files: trec_eval finds in ours what we found, ties and all; others' files become systems and labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.errors import UserError
from distilrank.evidence import Evaluation, System, evaluate
from distilrank.evidence.trec import positives_beyond, run_scores, with_qrels, write_trec
from distilrank.records import Group, Passage, read_groups
from distilrank.rows import BadLines
from evidence import samples

KEYS = {"AP": "map", "RR": "recip_rank", "nDCG@10": "ndcg_cut_10"}


def by_trec_eval(folder: Path, name: str) -> tuple[list[float], int]:
    """Means of trec_eval on our files, in the order of KEYS, and over how many queries."""
    with (folder / "qrels.txt").open() as qrels, (folder / f"{name}.run").open() as run:
        judge = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels), {"map", "recip_rank", "ndcg_cut.10"})
        found = judge.evaluate(pytrec_eval.parse_run(run))
    return [float(np.mean([row[key] for row in found.values()])) for key in KEYS.values()], len(found)


def check(evaluation: Evaluation, folder: Path) -> None:
    write_trec(evaluation, folder)
    for system in evaluation.systems:
        means, queries = by_trec_eval(folder, system.name)
        assert queries == int(evaluation.judged.sum())
        assert means == pytest.approx([evaluation.means()[system.name][name] for name in KEYS], abs=1e-6)


@settings(max_examples=15)
@given(rows=st.lists(st.lists(st.integers(-2, 2), min_size=10, max_size=10), min_size=1, max_size=3))
def test_trec_eval_measures_the_same_though_scores_tie(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]]
) -> None:
    of = samples.groups(len(rows), 10)[: len(rows)]
    system = System("tied", "model", [np.asarray(row, dtype=np.float32) for row in rows])
    check(evaluate(of, [system], list(KEYS)), tmp_path_factory.mktemp("trec") / "files")


@pytest.mark.parametrize("name", ["askubuntu_dup", "xquadr_zh", "epqa", "cosqa", "trecqa"])
def test_trec_eval_measures_the_same_on_real_sets(real_data: Path, tmp_path: Path, name: str) -> None:
    from distilrank.data import bm25_scores

    of = list(read_groups(real_data / name / "test.jsonl", BadLines()))
    measured = evaluate(of, [System("bm25", "model", bm25_scores(of))], list(KEYS))
    check(measured, tmp_path / "trec")
    files = str(tmp_path / "trec/qrels.txt"), str(tmp_path / "trec/bm25.run")
    qrels, run = ir_measures.read_trec_qrels(files[0]), ir_measures.read_trec_run(files[1])
    found = ir_measures.calc_aggregate(list(map(ir_measures.parse_measure, KEYS)), qrels, run)
    by_name = {str(name): value for name, value in found.items()}
    assert by_name == pytest.approx(measured.means()["bm25"], abs=1e-6)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    evaluation = samples.evaluation()
    write_trec(evaluation, tmp_path / "trec")
    of = [group for group, counts in zip(evaluation.groups, evaluation.judged, strict=True) if counts]
    for system in evaluation.systems:
        again = run_scores(tmp_path / f"trec/{system.name}.run", of)
        kept = [row for row, counts in zip(system.scores, evaluation.judged, strict=True) if counts]
        assert [row.tolist() for row in again] == [row.tolist() for row in kept]
    assert with_qrels(samples.unlabelled(of), tmp_path / "trec/qrels.txt") == of


def test_ids_that_would_break_a_line_are_numbers() -> None:
    from distilrank.evidence.trec import passage_names

    passages = (Passage("a", id="x y"), Passage("b", id="z"))
    assert passage_names(Group("0", "q", passages)) == ["0", "1"]
    assert passage_names(Group("0", "q", (replace(passages[1], id="v"), passages[1]))) == ["v", "z"]
    assert passage_names(Group("0", "q", (passages[1], passages[1]))) == ["0", "1"]


def test_a_passage_that_a_run_lacks_comes_last_and_a_query_is_named(tmp_path: Path) -> None:
    of = samples.groups(2)[:2]
    (path := tmp_path / "theirs.run").write_text("q0 Q0 d3 1 -7.5 t\nq0 Q0 d1 2 -9 t\nq1 Q0 d0 1 3 t\n")
    first, _ = run_scores(path, of)
    assert (first[3], first[1]) == (-7.5, -9)
    assert set(np.delete(first, [1, 3]).tolist()) == {-10}
    path.write_text("q0 Q0 d3 1 -7.5 t\n")
    with pytest.raises(UserError, match="no passage of the query 'q1'"):
        run_scores(path, of)


@pytest.mark.parametrize(
    "scores",
    [
        ["16777217", "16777216", "16777218"],
        ["0.10000000001", "0.1", "0.10000000002"],
        ["1e300", "1e299", "1e301"],
        ["-1e300", "-1e301", "-1e299"],
    ],
)
def test_scores_that_float32_does_not_tell_apart_keep_their_order(tmp_path: Path, scores: list[str]) -> None:
    (path := tmp_path / "theirs.run").write_text("".join(f"q0 Q0 d{n} 1 {score} t\n" for n, score in enumerate(scores)))
    (found,) = run_scores(path, samples.groups(1)[:1])
    assert np.argsort(-found[:3]).tolist() == [2, 0, 1]
    assert np.isfinite(found).all()
    assert (found[3:] < found[:3].min()).all(), "what the run lacks stays last"
    assert len(set(found[3:].tolist())) == 1


def test_two_systems_whose_names_make_one_file_name_have_two_files(tmp_path: Path) -> None:
    of = samples.groups()
    names = ["a b", "a/b", "A-b", "问"]
    write_trec(
        evaluate(of, [System(name, "model", samples.scores(of, 1.0, n)) for n, name in enumerate(names)]), tmp_path / "t"
    )
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [
        "A-b-3.run",
        "a-b-2.run",
        "a-b.run",
        "qrels.txt",
        "问.run",
    ]


@pytest.mark.parametrize(
    ("line", "message"), [("q0 Q0 d1 2 t", "theirs.run:2: 5 fields"), ("q0 Q0 d1 2 nan t", "theirs.run:2: 'nan' is not")]
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, message: str) -> None:
    (path := tmp_path / "theirs.run").write_text(f"q0 Q0 d3 1 -7.5 t\n{line}\n")
    with pytest.raises(UserError, match=message):
        run_scores(path, samples.groups(1)[:1])


def test_qrels_of_another_set_are_refused(tmp_path: Path) -> None:
    (path := tmp_path / "qrels.txt").write_text("other 0 d1 1\n")
    with pytest.raises(UserError, match="no label for any passage"):
        with_qrels(samples.groups(1), path)


def test_positives_that_are_no_candidates_are_counted(tmp_path: Path) -> None:
    lines = ["q0 0 d1 1", "q0 0 far 2", "q0 0 further 0", "q1 0 far 1", "unasked 0 far 1"]
    (path := tmp_path / "qrels.txt").write_text("\n".join(lines))
    assert positives_beyond(samples.groups(2)[:2], path) == 2
