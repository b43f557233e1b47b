"""Scoring on a Ray cluster of this machine's cores: the same scores, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'distilrank[ray]'")

from test_score import holds, many
from workers import TOO_LONG, Poisoned, no_teacher, poisoned, telling, with_poison

from distilrank.cli import run
from distilrank.errors import UserError
from distilrank.records import Group
from distilrank.scoring import Aside, ScoreStore, score
from distilrank.scoring.processes import Build
from distilrank.scoring.ray import RayCluster, _Actor, cluster

pytestmark = pytest.mark.slow
TWO = RayCluster(2, gpus=0)


@pytest.fixture(scope="module", autouse=True)
def _local_cluster() -> Iterator[None]:
    import ray

    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "disabled")
        environment.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        environment.setenv("RAY_worker_niceness", "0")  # else a busy machine has no time for them
        environment.setenv("PYTHONPATH", paths)
        environment.setenv("OMP_NUM_THREADS", "1")
        # A raylet has 30 s to start, which a busy machine may not give it.
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def on_ray(build: Build, groups: list[Group], store: ScoreStore, **more: Any) -> int:
    teacher = more.pop("teacher", None) or Poisoned()
    return score(groups, teacher, store, drive=partial(TWO.drive, build), **more)


def store_in(folder: Path) -> ScoreStore:
    return ScoreStore(folder / "scores", Poisoned().identity)


def test_every_pair_is_scored_once_and_nothing_is_left_behind(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert on_ray(poisoned, many(60), store, part_pairs=24) == 240
    assert holds(store, many(60))
    assert on_ray(poisoned, many(60), store) == 0
    assert sorted({path.suffix for path in store.folder.rglob("*")}) == [".json", ".parquet"]
    assert not list(store.folder.glob("work-*"))


def test_an_actor_that_dies_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    store, once = store_in(tmp_path), tmp_path / "once"
    assert on_ray(partial(poisoned, once), many(60), store, part_pairs=8) == 240
    assert once.exists()
    assert holds(store, many(60))


def test_a_worker_process_killed_from_outside_loses_nothing(tmp_path: Path) -> None:
    store, killed, processes = store_in(tmp_path), list[int](), tmp_path / "processes"
    processes.mkdir()

    def kill_one() -> None:
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            if len(list(store.folder.glob("part-*"))) >= 2:
                killed.append(int(next(processes.iterdir()).name))
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.02)

    thread = threading.Thread(target=kill_one)
    thread.start()
    assert on_ray(partial(telling, processes), many(150), store, part_pairs=8) == 600
    thread.join()
    assert killed
    assert len(list(processes.iterdir())) >= 2
    assert holds(store, many(150))


def test_poisoned_groups_are_set_aside_and_the_job_goes_on(tmp_path: Path) -> None:
    store, aside = store_in(tmp_path), Aside(3, tmp_path / "aside.jsonl")
    groups = with_poison(many(20), f"{TOO_LONG} a", "not a number b")
    on_ray(poisoned, groups, store, part_pairs=8, aside=aside)
    assert {refused.query for refused in aside.found} == {f"{TOO_LONG} a", "not a number b"}
    assert holds(store, many(20))


def test_a_group_that_ends_its_actors_is_set_aside_with_its_piece(tmp_path: Path) -> None:
    store, aside = store_in(tmp_path), Aside(4)
    on_ray(poisoned, with_poison(many(10), "deadly"), store, part_pairs=4, aside=aside)
    assert "deadly" in {refused.query for refused in aside.found}
    assert len(list(store.whole(many(10)))) >= 9


def test_without_leave_an_error_ends_the_job_in_a_line(tmp_path: Path) -> None:
    groups = with_poison(many(10), f"{TOO_LONG} a")
    with pytest.raises(UserError, match="9,999 tokens"):
        on_ray(poisoned, groups, store_in(tmp_path), part_pairs=8)
    with pytest.raises(UserError, match="/nowhere: no model there"):
        on_ray(no_teacher, many(3), store_in(tmp_path / "other"))


def test_a_node_with_another_model_is_refused(tmp_path: Path) -> None:
    teacher = Poisoned()
    store = ScoreStore(tmp_path, type(teacher.identity)("causal", "logit", "other weights", "float32", 512))
    with pytest.raises(UserError, match="another model"):
        on_ray(poisoned, many(3), store, teacher=teacher)


def test_a_store_is_found_by_nodes_that_work_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = ScoreStore("scores", Poisoned().identity)
    assert on_ray(poisoned, many(10), store) == 40
    assert holds(store, many(10))


def test_what_is_no_fault_of_a_group_sets_none_aside(tmp_path: Path) -> None:
    """Ray Data would leave such pieces out, as many as groups may be set aside."""
    verdict = _Actor(poisoned, store_in(tmp_path), apart=True)(pa.table({"item": [str(tmp_path / "part-1.parquet")]}))
    assert "FileNotFoundError" in verdict.to_pylist()[0]["error"]


def test_how_many_actors() -> None:
    assert cluster("0").gpus == 0
    assert cluster("8", 2) == RayCluster(4, gpus=2)
    assert cluster("all").most > 100
    with pytest.raises(UserError, match="at least 2"):
        cluster("1", 2)


def test_score_on_ray_as_typed(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tiny
    from distilrank.records import write_groups

    write_groups(tmp_path / "groups.parquet", tiny.groups(8, 3))
    command = ["score", str(tmp_path / "groups.parquet"), "-o", str(tmp_path / "scored.jsonl"), "--teacher", str(bert)]
    command += ["--kind", "cross-encoder", "--checks", "skip", "--on", "ray", "--json"]
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["scored"] == 24
    assert len((tmp_path / "scored.jsonl").read_text().splitlines()) == 24
