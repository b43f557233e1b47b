"""An evaluation of plain files: which systems it has, what they cost, what was forgotten, and when a gate says no."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from distilrank.cli import run
from distilrank.evidence import load_evaluation
from distilrank.pipeline.costs import device_name, size_of, teacher_cost
from distilrank.records import ScoredPair, write_groups, write_scored
from distilrank.teachers.cross_encoder import CrossEncoderTeacher


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A ranked test set, another domain, and the teacher's scores, which are the labels."""
    test = [
        replace(group, passages=tuple(replace(p, id=f"d{n}", rank=5 - n) for n, p in enumerate(group.passages)))
        for group in tiny.groups(12, 5, seed=1)
    ]
    write_groups(tmp_path / "test.jsonl", test)
    write_groups(tmp_path / "other.jsonl", tiny.groups(10, 4, seed=2))
    pairs = (
        ScoredPair(group.query, p.text, 3.0 * (p.label or 0) + n) for group in test for n, p in enumerate(group.passages)
    )
    write_scored(tmp_path / "scored.jsonl", pairs)
    return tmp_path


def evaluated(files: Path, *options: object) -> int:
    common = ["evaluate", files / "test.jsonl", "-o", files / "eval", "--max-length", 48, "--json"]
    return run([str(part) for part in (*common, *options)])


def test_every_kind_of_system_and_its_cost(
    files: Path, bert: Path, embedder: Path, xlmr: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = [f"{group.query_id} Q0 d0 1 2.5 t" for group in tiny.groups(12, 5, seed=1)]
    (files / "theirs.run").write_text("\n".join(theirs))
    more = ["--scores", files / "scored.jsonl", "--embedder", embedder, "--other", f"theirs={files / 'theirs.run'}"]
    more += ["--other", f"again={files / 'scored.jsonl'}", "--latency", 0.01, "--trec", files / "trec"]
    assert evaluated(files, "--model", bert, "--model", xlmr, *more) == 0
    summary = json.loads(capsys.readouterr().out)
    names = ["given order", "bm25", f"embedder {embedder.name}", "before", "after", "theirs", "again", "teacher"]
    assert [system["name"] for system in summary["systems"]] == names
    found = load_evaluation(files / "eval")
    # The first passage is the positive, and by rank the last; the run names it alone.
    assert found.means()["given order"]["RR@10"] == pytest.approx(0.2)
    assert found.means()["theirs"]["AP"] == 1
    assert found.means()["again"] == found.means()["teacher"]
    assert set(found.costs) == {"before", "after"}
    cost = found.costs["after"]
    assert (cost.parameters, cost.bytes) == size_of([xlmr])
    assert all(timing.p95_ms >= timing.p50_ms > 0 for timing in cost.runs)
    assert {timing.dtype for timing in cost.runs} <= {"float32", "bfloat16"}
    assert found.retrieval is not None
    assert found.retrieval.recall[1] == 0
    assert (files / "trec/bm25.run").exists()


def test_sizes_are_those_of_the_weights(bert: Path, embedder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(bert)
    assert size_of([bert]) == (model.num_parameters(), (bert / "model.safetensors").stat().st_size)
    both, one = size_of([bert, embedder])[1], size_of([bert])[1]
    assert both is not None
    assert one is not None
    assert both > one
    assert size_of([tmp_path]) == (None, None)


def test_a_teacher_is_timed_where_and_as_it_has_scored_and_let_go(bert: Path) -> None:
    teacher = CrossEncoderTeacher(bert, max_length=64, dtype="float32", device="cpu")
    cost = teacher_cost([teacher, teacher], [bert, bert], tiny.groups(3, 3, seed=1), 0.01)
    assert cost is not None
    (run,) = cost.runs
    assert (run.device, run.dtype, run.candidates) == (device_name("cpu"), "float32", 3)
    assert "model" not in vars(teacher)
    assert teacher_cost([teacher], [bert / "a server"], [], 0.01) is None


def test_a_loss_outside_the_domain_ends_in_exit_code_3(
    files: Path, bert: Path, xlmr: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = ["--latency", 0, "--out-of-domain", files / "other.jsonl"]
    assert evaluated(files, "--model", bert, "--model", xlmr, *outside) == 0
    lines = json.loads(capsys.readouterr().out)["forgetting"]
    assert {line["name"] for line in lines} == {"other.jsonl"}
    change = {line["measure"]: line["loss"] for line in lines}["AP"]
    first, second = (bert, xlmr) if change > 0 else (xlmr, bert)
    limit = ["--max-forgetting", abs(change) / 2]
    assert evaluated(files, "--model", first, "--model", second, *outside, *limit) == 3
    told = capsys.readouterr().err
    assert "forgot more than" in told
    assert "other.jsonl" in told
    # What was measured is kept, and the other way round nothing was lost.
    assert load_evaluation(files / "eval").forgetting[0].loss == pytest.approx(abs(change))
    assert evaluated(files, "--model", second, "--model", first, *outside, *limit) == 0


def test_labels_come_from_qrels_and_without_labels_there_is_agreement(
    files: Path, bert: Path, xlmr: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qrels = [f"{group.query_id} 0 d{n} {int(n == 4)}" for group in tiny.groups(12, 5, seed=1) for n in range(5)]
    (files / "qrels.txt").write_text("\n".join(qrels))
    assert evaluated(files, "--model", bert, "--latency", 0, "--qrels", files / "qrels.txt") == 0
    assert load_evaluation(files / "eval").means()["given order"]["AP"] == 1
    assert "notes" not in load_evaluation(files / "eval").settings
    with (files / "qrels.txt").open("a") as file:
        file.write(f"\n{tiny.groups(12, 5, seed=1)[0].query_id} 0 elsewhere 1\n")
    assert evaluated(files, "--model", bert, "--latency", 0, "--qrels", files / "qrels.txt") == 0
    (note,) = load_evaluation(files / "eval").settings["notes"]
    assert note.startswith("1 positive of the qrels file")
    bare = [{"query": g.query, "passages": [p.text for p in g.passages]} for g in tiny.groups(12, 5, seed=1)]
    (files / "test.jsonl").write_text("\n".join(map(json.dumps, bare)))
    models = ["--model", bert, "--model", xlmr, "--latency", 0]
    assert evaluated(files, *models) == 2
    assert "nothing to measure" in capsys.readouterr().err
    assert evaluated(files, *models, "--scores", files / "scored.jsonl") == 0
    assert -1 <= load_evaluation(files / "eval").agreement["after"].kendall_tau <= 1
    # And for a person.
    (arguments,) = [["evaluate", files / "test.jsonl", "-o", files / "eval", "--max-length", 48, *models]]
    assert run([*map(str, arguments), "--scores", str(files / "scored.jsonl")]) == 0
    assert "agreement with the teacher, not quality" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--other", "x"], "NAME=FILE"),
        (["--other", "a=1", "--other", "a=2"], "there is a system a already"),
        (["--max-forgetting", "0.1"], "--out-of-domain"),
        (["--counting", "all"], "--counting"),
        (["--metric", "foo"], "no measure 'foo'"),
        (["--other", "bm25=FILES/scored.jsonl", "--latency", "0"], "two systems have one name"),
        (["--other", "given order=FILES/scored.jsonl"], "two systems have one name"),
        (["--other", "x=FILES/none.run"], "none.run"),
        (["--scores", "FILES/test.jsonl"], 'test.jsonl:1: lacks "passage"'),
        (["--trec", "FILES/eval/trec"], "must lie apart"),
        (["--trec", "FILES/broken"], "not ours to replace"),
        (["--trec", "FILES/test.jsonl/trec"], "cannot be written"),
        (["--embedder", "FILES/none"], "no such file or folder"),
        (["--model", "FILES/none"], "no such file or folder"),
        (["--model", "FILES/broken"], "broken: not a model"),
        (["--model", "BERT", "--out-of-domain", "FILES/bare.jsonl"], "bare.jsonl: no query has both"),
        (["--model", "BERT", "--out-of-domain", "FILES/none.jsonl"], "none.jsonl: no such file"),
    ],
)
def test_what_will_not_do_is_named_before_a_model_has_scored(
    files: Path,
    bert: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    asked = []
    monkeypatch.setattr("distilrank.pipeline.evaluation.measure_students", lambda *_: asked.append(1))
    (files / "bare.jsonl").write_text('{"query": "q", "passages": ["a", "b"]}')
    (files / "broken").mkdir()
    (files / "broken/config.json").write_text("{}")
    given = [option.replace("FILES", str(files)).replace("BERT", str(bert)) for option in options]
    assert evaluated(files, "--model", bert, *given) == 2
    assert message in capsys.readouterr().err
    assert not (files / "eval").exists()
    assert not asked


@pytest.mark.parametrize("more", [[], ["--scores", "FILES/scored.jsonl", "--trec", "FILES/trec"]])
def test_a_set_without_labels_says_what_it_lacks_first(
    files: Path, bert: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    monkeypatch.setattr("distilrank.pipeline.evaluation.measure_students", lambda *_: pytest.fail("a model was asked"))
    bare = [{"query": g.query, "passages": [p.text for p in g.passages]} for g in tiny.groups(12, 5, seed=1)]
    (files / "test.jsonl").write_text("\n".join(map(json.dumps, bare)))
    assert evaluated(files, "--model", bert, *(part.replace("FILES", str(files)) for part in more)) == 2
    assert ("nothing to write for --trec" if more else "there is nothing to measure") in capsys.readouterr().err


def test_names_are_short_and_files_of_one_name_stay_apart(
    files: Path, bert: Path, xlmr: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("one", "two"):
        (files / part).mkdir()
        write_groups(files / part / "test.jsonl", tiny.groups(8, 4, seed=len(part)))
        (files / part / "model").symlink_to(bert)
    monkeypatch.chdir(files)
    common = ["--latency", 0, "--max-length", 48, "--json", "-o", "eval"]
    models = [f"--model={path}" for path in ("one/model", "two/model", xlmr)]
    assert run([str(part) for part in ("evaluate", "test.jsonl", *models, *common)]) == 0
    systems = json.loads(capsys.readouterr().out)["systems"]
    found = {system["name"]: system["source"] for system in systems if system["role"] == "model"}
    assert found == {"one/model": "one/model", "two/model": "two/model", xlmr.name: xlmr.name}
    pair = ["--model", bert, "--model", xlmr, "--out-of-domain", "one/test.jsonl", "--out-of-domain", "two/test.jsonl"]
    assert run([str(part) for part in ("evaluate", "test.jsonl", *pair, *common)]) == 0
    lines = json.loads(capsys.readouterr().out)["forgetting"]
    assert [line["name"] for line in lines if line["measure"] == "AP"] == ["one/test.jsonl", "two/test.jsonl"]


def test_the_gate_asks_for_the_measure_listed_first_and_says_its_name(
    files: Path, bert: Path, xlmr: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = ["--latency", 0, "--out-of-domain", files / "other.jsonl", "--metric", "RR@10", "--metric", "AP"]
    assert evaluated(files, "--model", bert, "--model", xlmr, *outside) == 0
    change = json.loads(capsys.readouterr().out)["forgetting"][0]
    assert change["measure"] == "RR@10"
    first, second = (bert, xlmr) if change["loss"] > 0 else (xlmr, bert)
    assert evaluated(files, "--model", first, "--model", second, *outside, "--max-forgetting", 0) == 3
    told = capsys.readouterr().err
    assert "forgot more than 0 in MRR@10: other.jsonl" in told
    assert told.rstrip().endswith("(not shown)") == (change["paired"]["p_holm"] >= 0.05)


def test_a_device_that_answers_later_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the clock is read when the device has finished, not when the work has been handed to it."""
    import torch

    from distilrank.pipeline import costs

    waited = []
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    calls: list[int] = []
    timing = costs._timed(lambda groups: calls.append(len(groups)), tiny.groups(3, 4), ["cuda:1"], "bfloat16", 0.0)
    assert (timing.device, timing.threads, timing.dtype) == ("a cuda:1", 0, "bfloat16")
    assert waited == ["cuda:1"] * 2 * len(calls), "before and after each call"
    assert len(calls) >= costs.GPU_ROUNDS * timing.queries
    on_cpu = costs._timed(lambda groups: None, tiny.groups(3, 4), ["cpu"], "float32", 0.0)
    assert on_cpu.threads == torch.get_num_threads()
    assert len(waited) == 2 * len(calls)


def test_scores_of_one_kind_are_of_float32(files: Path, bert: Path) -> None:
    assert evaluated(files, "--model", bert, "--latency", 0, "--scores", files / "scored.jsonl") == 0
    for system in load_evaluation(files / "eval").systems:
        assert {row.dtype for row in system.scores} == {np.dtype("float32")}
