"""Several processes over one list of work: each pair once, whatever dies on the way."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from test_score import holds, many
from workers import TOO_LONG, Poisoned, broken_on_7, gives_up, no_teacher, poisoned, slow_on_7, with_poison

from distilrank.cli import run
from distilrank.errors import UserError
from distilrank.records import Group, Passage
from distilrank.scoring import Aside, ScoreStore, score
from distilrank.scoring import processes as module
from distilrank.scoring.processes import crew, gpus

CPUS = ["", ""]


def store_in(folder: Path) -> ScoreStore:
    return ScoreStore(folder / "scores", Poisoned().identity)


def test_every_pair_is_scored_and_the_processes_stay_for_more(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with crew(poisoned, CPUS) as workers:
        assert score(many(60), Poisoned(), store, part_pairs=12, drive=workers.drive) == 240
        assert score(many(90), Poisoned(), store, part_pairs=12, drive=workers.drive) == 120
        assert score(many(90), Poisoned(), store, drive=workers.drive) == 0
        processes = [worker.process for worker in workers.workers]
    assert holds(store, many(90))
    assert [process.exitcode for process in processes] == [0, 0]


def test_a_killed_process_gives_its_pieces_back_and_another_takes_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, once = store_in(tmp_path), tmp_path / "once"
    with crew(partial(poisoned, once), CPUS) as workers:
        assert score(many(60), Poisoned(), store, part_pairs=8, drive=workers.drive) == 240
        assert len(workers.workers) == 2
        assert str(once.read_text()) not in {str(worker.process.pid) for worker in workers.workers}
    assert holds(store, many(60))
    told = "a process of the CPU: its process ended (killed by signal 9); another takes its place and its work"
    assert told in capsys.readouterr().err


def test_a_device_whose_processes_end_and_end_is_given_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_in(tmp_path)
    with crew(broken_on_7, ["", "7"]) as workers:
        assert score(many(60), Poisoned(), store, part_pairs=8, drive=workers.drive) == 240
        assert [worker.device for worker in workers.workers] == [""]
    assert holds(store, many(60))
    told = capsys.readouterr().err
    assert told.count("GPU 7: OSError: no such device; another takes its place") == module.RESTARTS
    assert "GPU 7: OSError: no such device, 3 times in a row; the other 1 go on with its work" in told


def test_others_go_on_while_a_teacher_is_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pieces are larger here than what a pipe holds by itself."""
    long = [
        Group(str(n), f"query {n}", tuple(Passage(f"{n} {place} " + "a" * 30_000) for place in range(4))) for n in range(12)
    ]
    store = store_in(tmp_path)
    with crew(partial(slow_on_7, 6, tmp_path / "scores"), ["7", ""]) as workers:
        assert score(long, Poisoned(), store, part_pairs=4, drive=workers.drive) == 48
    assert holds(store, long)
    assert "takes its place" not in capsys.readouterr().err


@pytest.mark.slow
def test_where_every_device_is_given_up_the_job_ends(tmp_path: Path) -> None:
    with crew(broken_on_7, ["7"]) as workers, pytest.raises(UserError, match="no process is left to score: OSError"):
        score(many(4), Poisoned(), store_in(tmp_path), drive=workers.drive)


@pytest.mark.slow
def test_a_device_that_gave_up_is_no_fault_of_the_groups(tmp_path: Path) -> None:
    store, once, aside = store_in(tmp_path), tmp_path / "once", Aside(1)
    with crew(partial(gives_up, once), [""]) as workers:
        assert score(many(20), Poisoned(), store, part_pairs=8, aside=aside, drive=workers.drive) == 80
    assert once.exists()
    assert not aside.found
    assert holds(store, many(20))


def test_an_error_is_told_in_a_line(tmp_path: Path) -> None:
    with crew(no_teacher, CPUS) as workers, pytest.raises(UserError, match="/nowhere: no model there"):
        score(many(4), Poisoned(), store_in(tmp_path), drive=workers.drive)


def test_an_error_in_the_last_piece_is_told_too(tmp_path: Path) -> None:
    with crew(poisoned, [""]) as workers, pytest.raises(UserError, match="9,999 tokens"):
        score(with_poison([], TOO_LONG), Poisoned(), store_in(tmp_path), drive=workers.drive)


def test_a_deadly_group_ends_the_job_where_nothing_may_be_set_aside(tmp_path: Path) -> None:
    groups = with_poison(many(10), "deadly")
    with crew(poisoned, CPUS) as workers, pytest.raises(UserError, match="signal 9"):
        score(groups, Poisoned(), store_in(tmp_path), part_pairs=4, drive=workers.drive)


def test_deadly_groups_are_found_and_set_aside(tmp_path: Path) -> None:
    groups, aside = with_poison(many(10), "deadly"), Aside(1)
    with crew(poisoned, CPUS) as workers:
        score(groups, Poisoned(), store_in(tmp_path), part_pairs=8, aside=aside, drive=workers.drive)
        assert len(workers.workers) == 2
    assert [refused.query for refused in aside.found] == ["deadly"]
    assert holds(store_in(tmp_path), many(10))


def test_gpus_are_dealt_out_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert gpus("all") == ["0", "1", "2", "3"]
    assert gpus("2") == ["0", "1"]
    assert gpus("4", 2) == ["0,1", "2,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert gpus("all") == ["5", "7"]
    for asked, each in (("3", 1), ("0", 1), ("two", 1), ("1", 2)):
        with pytest.raises(UserError, match=f"--gpus {asked}: this machine has 2"):
            gpus(asked, each)


def test_score_in_two_processes_as_typed(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tiny
    from distilrank.records import write_groups

    write_groups(tmp_path / "groups.jsonl", tiny.groups(8, 3))
    monkeypatch.setattr(module, "gpus", lambda asked, each: CPUS)
    command = ["score", str(tmp_path / "groups.jsonl"), "--teacher", str(bert), "--kind", "cross-encoder"]
    command += ["--checks", "skip"]
    assert run([*command, "-o", str(tmp_path / "two.jsonl"), "--gpus", "2", "--store", str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scored"] == 24
    assert run([*command, "-o", str(tmp_path / "one.jsonl"), "--store", str(tmp_path / "b")]) == 0
    two, one = ([json.loads(line) for line in (tmp_path / name).open()] for name in ("two.jsonl", "one.jsonl"))
    for found, wanted in zip(two, one, strict=True):
        assert found == wanted | {"score": pytest.approx(wanted["score"], abs=1e-4)}


@pytest.mark.parametrize(("options", "told"), [(["--on", "mars"], "local or ray"), (["--gpus", "99"], "this machine has")])
def test_what_cannot_be_is_refused(
    bert: Path, tmp_path: Path, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "g.jsonl").write_text('{"query": "a", "passages": ["b", "c"]}\n')
    command = ["score", str(tmp_path / "g.jsonl"), "-o", str(tmp_path / "o.jsonl"), "--teacher", str(bert)]
    assert run([*command, "--kind", "cross-encoder", *options]) == 2
    assert told in capsys.readouterr().err


def test_gpus_that_are_named_and_not_found_are_not_taken_for_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler names them, and PyTorch is built for the CPU: processes would score there, and nobody would know."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="--gpus all: this machine has no GPU that PyTorch finds"):
        gpus("all")


def test_a_deadly_group_before_all_others_does_not_end_a_job_of_one_process(tmp_path: Path) -> None:
    groups = [Group(f"bad {n}", f"deadly {n}", (Passage("one"), Passage("two"))) for n in range(2)]
    aside = Aside(2)
    with crew(poisoned, [""]) as workers:
        scored = score(groups + many(10), Poisoned(), store_in(tmp_path), part_pairs=8, aside=aside, drive=workers.drive)
    assert sorted(refused.query for refused in aside.found) == ["deadly 0", "deadly 1"]
    assert scored == 40
    assert holds(store_in(tmp_path), many(10))
