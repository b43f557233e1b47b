"""A group that cannot be scored is set aside with its reason; the others are scored, and written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from test_score import Fake, holds, many
from workers import TOO_LONG, Poisoned, with_poison

from distilrank.cli import run
from distilrank.errors import UserError
from distilrank.progress import Advance
from distilrank.records import Group
from distilrank.rows import BadLines
from distilrank.scoring import Aside, ScoreStore, score
from distilrank.scoring.aside import Refused


def poisoned_run(folder: Path, most: int) -> tuple[ScoreStore, Aside]:
    teacher, aside = Poisoned(), Aside(most, folder / "aside.jsonl")
    store = ScoreStore(folder / "scores", teacher.identity)
    score(with_poison(many(20), f"{TOO_LONG} a", "not a number b"), teacher, store, part_pairs=12, aside=aside)
    return store, aside


def test_bad_groups_are_set_aside_and_the_rest_is_scored(tmp_path: Path) -> None:
    store, aside = poisoned_run(tmp_path, 2)
    assert holds(store, many(20))
    assert {refused.query: refused.reason for refused in aside.found} == {
        f"{TOO_LONG} a": "the query has 9,999 tokens, more than there is room for",
        "not a number b": "the teacher gave a score that is not finite for the query 'not a number b'",
    }
    aside.write()
    rows = [json.loads(line) for line in (tmp_path / "aside.jsonl").read_text().splitlines()]
    assert [row["pairs"] for row in rows] == [2, 2]
    found = list(store.whole(with_poison(many(20), f"{TOO_LONG} a", "not a number b")))
    assert [group for group, _ in found] == many(20)
    assert all(np.isfinite(values).all() for _, values in found)


def test_more_than_was_allowed_ends_the_job_with_the_list_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"more than 1 groups cannot be scored \(--max-errors\), the last: the teacher"):
        poisoned_run(tmp_path, 1)
    assert len((tmp_path / "aside.jsonl").read_text().splitlines()) == 2


def test_without_leave_the_first_error_ends_the_job_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="9,999 tokens"):
        poisoned_run(tmp_path, 0)


def test_a_device_that_gave_up_is_no_fault_of_a_group(tmp_path: Path) -> None:
    class Broken(Fake):
        def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    aside = Aside(100)
    with pytest.raises(torch.AcceleratorError):
        score(many(3), Broken(), ScoreStore(tmp_path, Broken().identity), aside=aside)
    assert not aside.found


def test_the_pieces_of_a_group_count_once() -> None:
    aside = Aside(2)
    aside.add(Refused("1", "long", pairs, f"piece {pairs}") for pairs in (1, 2, 3))
    aside.add([Refused("2", "long", 1, "why")])
    assert [(refused.query_id, refused.pairs) for refused in aside.found] == [("1", 6), ("2", 1)]
    with pytest.raises(UserError, match="more than 2 groups"):
        aside.add([Refused("1", "other", 1, "why")])


def test_a_group_with_some_scores_is_known_in_part(tmp_path: Path) -> None:
    teacher, groups = Fake(), many(3)
    store = ScoreStore(tmp_path, teacher.identity)
    score([groups[0], type(groups[1])("", groups[1].query, groups[1].passages[1:3])], teacher, store)
    known = [np.isnan(values).tolist() for _, values in store.known(groups)]
    assert known == [[False] * 4, [True, False, False, True], [True] * 4]
    assert [group for group, _ in store.whole(groups)] == groups[:1]


def test_unreadable_rows_count_as_well() -> None:
    aside = Aside(1, bad=BadLines({"a:1": "not a text"}))
    aside.check()
    with pytest.raises(UserError, match="the last: why"):
        aside.add([Refused("", "q", 1, "why")])


def test_score_sets_rows_and_groups_aside_beside_its_output(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"query": "river stone", "passages": ["bridge", "window"]}
    rows = [good, {"query": "river", "passages": [7]}, {"query": "river " * 600, "passages": ["bridge"]}]
    (tmp_path / "groups.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "scored.jsonl"
    command = ["score", str(tmp_path / "groups.jsonl"), "-o", str(out), "--teacher", str(bert), "--kind", "cross-encoder"]
    command += ["--checks", "skip"]
    assert run([*command, "--max-errors", "1"]) == 2
    assert "more than 1 groups cannot be scored" in capsys.readouterr().err
    assert not out.exists()
    assert run([*command, "--max-errors", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["set_aside"], told["scored"], told["pairs"]) == (2, 0, 2)  # two pairs were scored before
    assert len(out.read_text().splitlines()) == 2
    aside = [json.loads(line) for line in (tmp_path / "scored.jsonl.aside.jsonl").read_text().splitlines()]
    assert aside[0]["where"].endswith("groups.jsonl:2")
    assert aside[1]["query"].startswith("river river")
    (tmp_path / "groups.jsonl").write_text(json.dumps(good) + "\n")
    assert run([*command, "--max-errors", "2"]) == 0
    assert not (tmp_path / "scored.jsonl.aside.jsonl").exists()  # it was of other groups
