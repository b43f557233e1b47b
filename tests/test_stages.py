"""Stages are run in order, skipped while nothing changed, and run again from the first that did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from distilrank.errors import UserError
from distilrank.shards import digest
from distilrank.stages import Stage, plan_stages, run_stages, stage_times


class Copies:
    """Three stages, each of which copies the output of the one before with a letter of its own."""

    def __init__(self, folder: Path, source: Path, **letters: str) -> None:
        self.folder, self.source = folder, source
        self.letters = {"one": "1", "two": "2", "three": "3"} | letters
        self.ran: list[str] = []
        self.fails = ""
        self.version = 1

    def names(self) -> Sequence[str]:
        return list(self.letters)

    def describe(self, name: str) -> str:
        return f"add {self.letters[name]}"

    def stage(self, name: str) -> Stage:
        names = list(self.letters)
        place = names.index(name)
        before = self.folder / names[place - 1] if place else self.source
        if not before.exists():
            raise UserError(f"{before}: no such file")

        def run() -> None:
            self.ran.append(name)
            if self.fails == name:
                raise RuntimeError
            (self.folder / name).write_text(before.read_text() + self.letters[name])

        version = self.version if name == "two" else 1
        settings = {"letter": self.letters[name]}
        return Stage(name, self.describe(name), settings, [before], [self.folder / name], run, version)


@pytest.fixture
def plan(tmp_path: Path) -> Copies:
    (tmp_path / "source").write_text("s")
    (folder := tmp_path / "run").mkdir()
    return Copies(folder, tmp_path / "source")


def again(plan: Copies, restart_from: str | None = None, **letters: str) -> list[str]:
    """What a second process with these settings would run."""
    following = Copies(plan.folder, plan.source, **letters)
    run_stages(following, following.folder, restart_from)
    return following.ran


def state(plan: Copies) -> list[str]:
    return [done for _, _, done in plan_stages(plan, plan.folder)]


def test_all_stages_run_in_order_and_then_none(plan: Copies) -> None:
    run_stages(plan, plan.folder)
    assert plan.ran == ["one", "two", "three"]
    assert (plan.folder / "three").read_text() == "s123"
    assert again(plan) == []


@pytest.mark.parametrize(
    ("letters", "ran"),
    [({"one": "x"}, ["one", "two", "three"]), ({"two": "x"}, ["two", "three"]), ({"three": "x"}, ["three"])],
)
def test_a_changed_setting_runs_its_stage_and_what_follows(plan: Copies, letters: dict[str, str], ran: list[str]) -> None:
    run_stages(plan, plan.folder)
    assert again(plan, **letters) == ran


def test_a_setting_that_changes_no_output_runs_only_its_stage(plan: Copies) -> None:
    run_stages(plan, plan.folder)
    plan.version, plan.ran = 2, []
    run_stages(plan, plan.folder)
    assert plan.ran == ["two"]


def test_a_changed_input_runs_everything_that_saw_it(plan: Copies) -> None:
    run_stages(plan, plan.folder)
    plan.source.write_text("S")
    assert again(plan) == ["one", "two", "three"]


def test_an_output_that_is_gone_or_cut_is_made_again(plan: Copies) -> None:
    run_stages(plan, plan.folder)
    (plan.folder / "two").unlink()
    assert again(plan) == ["two"]
    (plan.folder / "three").write_text("")
    assert again(plan) == ["three"]
    assert (plan.folder / "three").read_text() == "s123"


def test_a_stage_that_fails_keeps_what_was_finished(plan: Copies) -> None:
    plan.fails = "two"
    with pytest.raises(RuntimeError):
        run_stages(plan, plan.folder)
    assert again(plan) == ["two", "three"]


def test_restart_forgets_that_stage_and_the_rest(plan: Copies) -> None:
    run_stages(plan, plan.folder)
    assert again(plan, "two") == ["two", "three"]
    assert again(plan) == []
    with pytest.raises(UserError, match=r"--from tow: no such stage: did you mean 'two'"):
        again(plan, "tow")


def test_a_restart_that_is_stopped_is_not_forgotten(plan: Copies) -> None:
    run_stages(plan, plan.folder)
    plan.fails = "two"
    with pytest.raises(RuntimeError):
        run_stages(plan, plan.folder, "two")
    assert again(plan) == ["two", "three"]


def test_the_manifest_says_what_was_read_written_and_with_what(plan: Copies) -> None:
    run_stages(plan, plan.folder)
    stages: dict[str, Any] = json.loads((plan.folder / "manifest.json").read_text())["stages"]
    assert list(stages) == ["one", "two", "three"]
    two = stages["two"]
    assert two["settings"] == {"letter": "2"}
    assert two["inputs"] == {"one": digest(plan.folder / "one")}
    assert two["outputs"] == {"two": 3}
    assert {"distilrank", "torch", "python"} <= set(two["versions"])
    assert two["seconds"] >= 0
    assert two["peak_mb"] > 0
    assert [entry["stage"] for entry in stage_times(plan.folder)] == ["one", "two", "three"]


def test_a_dry_run_says_what_is_done_and_changes_nothing(plan: Copies) -> None:
    assert state(plan) == ["to do"] * 3
    assert list(plan.folder.iterdir()) == []
    run_stages(plan, plan.folder)
    assert state(plan) == ["done before"] * 3
    assert state(Copies(plan.folder, plan.source, two="x")) == ["done before", "to do", "to do"]
    plan.source.unlink()
    assert state(plan) == ["to do"] * 3
    assert plan_stages(plan, plan.folder)[1][:2] == ("two", "add 2")


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(plan: Copies) -> None:
    (plan.folder / "data").mkdir()
    (leftover := plan.folder / "data/.train.parquet.0123.tmp").write_text("half")
    (folder := plan.folder / ".model.0123.tmp").mkdir()
    (mine := plan.folder / "notes.tmp").write_text("mine")
    run_stages(plan, plan.folder)
    assert not leftover.exists()
    assert not folder.exists()
    assert mine.exists()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"stages": 3}', '{"stages": {"one": 5}}', '{"stages": {"one": {}}}'])
def test_a_manifest_that_is_not_ours_is_refused(plan: Copies, content: str) -> None:
    (plan.folder / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json: not a manifest of ours"):
        run_stages(plan, plan.folder)


def test_a_missing_input_is_said() -> None:
    stage = Stage("two", "add 2", {}, [Path("absent")], [], lambda _: None)
    with pytest.raises(UserError, match="absent: an input of the stage two is missing"):
        stage.digests()
