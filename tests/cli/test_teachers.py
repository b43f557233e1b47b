"""score, doctor and scores, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from distilrank.cli import run
from distilrank.records import write_groups


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    write_groups(tmp_path / "groups.jsonl", tiny.groups(6, 3))
    return tmp_path / "groups.jsonl"


def test_doctor_without_a_teacher_tells_about_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "torch" in shown
    assert "cores" in shown


def test_doctor_reads_groups_for_a_teacher_only(groups: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(groups)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {groups}: is read for a teacher's checks: say whose with --teacher")


def test_doctor_catches_a_head_of_zeros(
    qwen: Path, groups: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.with_head(qwen, tmp_path / "zeroed", tiny.zero_head)
    assert run(["doctor", str(groups), "--teacher", str(folder), "--json"]) == 3
    found = {check["name"]: check["verdict"] for check in json.loads(capsys.readouterr().out)["checks"]}
    assert found["spread"] == "failed"
    assert found["engine"] == "ok"


def test_doctor_shows_a_table(bert: Path, groups: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor", str(groups), "--teacher", str(bert), "--kind", "cross-encoder"])
    shown = capsys.readouterr().out
    assert "spread" in shown
    assert "canaries" in shown


def test_score_says_where_its_store_is_and_refuses_a_bad_output_first(
    bert: Path, groups: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["score", str(groups), "--teacher", str(bert), "--kind", "cross-encoder", "--checks", "skip"]
    assert run([*command, "-o", str(groups)]) == 2
    assert (
        capsys.readouterr().err
        == f"error: {groups}: exists already and holds no scored pairs: choose another name or delete it\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["groups.jsonl"]
    assert run([*command, "-o", str(tmp_path / "scored.jsonl")]) == 0
    assert capsys.readouterr().err.endswith(f"(18 scored now; every score is kept in {tmp_path / 'scores'})\n")
    assert run([*command, "-o", str(tmp_path / "scored.jsonl"), "--store", str(tmp_path / "other")]) == 0
    assert f"kept in {tmp_path / 'other'})" in capsys.readouterr().err


def test_scores_are_listed_verified_compacted_and_exported(
    bert: Path, groups: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored, store = tmp_path / "scored.jsonl", tmp_path / "scores"
    assert (
        run(["score", str(groups), "-o", str(scored), "--teacher", str(bert), "--kind", "cross-encoder", "--checks", "skip"])
        == 0
    )
    assert run(["scores", "ls", str(store)]) == 0
    assert "cross-encoder" in capsys.readouterr().out
    for command in ("verify", "compact"):
        assert run(["scores", command, str(store)]) == 0
    assert run(["scores", "export", str(store), str(groups), "-o", str(tmp_path / "again.jsonl")]) == 0
    assert (tmp_path / "again.jsonl").read_text() == scored.read_text()
    capsys.readouterr()
    torn = next(store.glob("*/part-*.parquet"))
    for path in (torn, torn.with_name("part-0.parquet")):
        path.write_bytes(b"torn")
    assert run(["scores", "verify", str(store)]) == 2
    shown = capsys.readouterr()
    assert [line.partition(": ")[0] for line in shown.out.splitlines()] == [str(torn.with_name("part-0.parquet")), str(torn)]
    assert shown.err == f"error: {store}: 2 problems; pairs of a deleted part are scored again\n"
    for path in shown.out.splitlines():
        Path(path.partition(": ")[0]).unlink()
    assert run(["scores", "verify", str(store)]) == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--engine", "fast"], "--engine"),
        (["--vllm", "tensor_parallel_size"], "write it as key=value"),
        (["--kind", "http"], "http"),
        (["--checks", "maybe"], "--checks"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    qwen: Path, groups: Path, tmp_path: Path, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["score", str(groups), "-o", str(tmp_path / "x.jsonl"), "--teacher", str(qwen), *options]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
