"""A training goes on from the last student: what comes back, what is recorded, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from distilrank import cli
from distilrank.errors import UserError
from distilrank.records import (
    TrainingGroup,
    Triplet,
    read_training_groups,
    read_triplets,
    write_training_groups,
    write_triplets,
)
from distilrank.students import TrainSettings
from distilrank.students.replay import Mixture, continue_training, generation, mix
from distilrank.students.train import train

SETTINGS = TrainSettings(
    loss="margin_mse",
    epochs=1, learning_rate=1e-3, queries_per_step=4, validation=0.0, calibrate="none", precision="float32",
    max_length=48, device="cpu",
)  # fmt: skip


def rows(first: int, last: int) -> list[TrainingGroup]:
    groups = tiny.groups(last, 4)[first:]
    return [TrainingGroup(group.query, tuple(p.text for p in group.passages), (6.0, 1.0, 0.0, -1.0)) for group in groups]


def file(path: Path, groups: Sequence[TrainingGroup]) -> Path:
    write_training_groups(path, groups)
    return path


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 0.9), st.integers(0, 5))
def test_a_share_of_the_mixture_is_old(new: int, old: int, share: float, seed: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        folder, fresh, known = Path(scratch), rows(0, new), rows(50, 50 + old)
        files = file(folder / "new.jsonl", fresh), file(folder / "old.jsonl", known)
        mixture = mix(*files, folder / "mixed.parquet", share, seed)
        wanted = min(old, round(share / (1 - share) * new))
        assert mixture == Mixture(new, wanted, old)
        found = list(read_training_groups(folder / "mixed.parquet"))
        assert found[:new] == fresh
        assert len(found) == new + wanted
        assert [row for row in known if row in found[new:]] == found[new:]  # old rows as they were, in their order
        mix(*files, folder / "again.parquet", share, seed)
        assert (folder / "again.parquet").read_bytes() == (folder / "mixed.parquet").read_bytes()


def test_an_old_query_that_is_asked_again_has_its_new_scores_only(tmp_path: Path) -> None:
    new, old = rows(0, 10), [TrainingGroup(row.query, row.passages, (1.0, 2.0, 3.0, 4.0)) for row in rows(5, 15)]
    mixture = mix(file(tmp_path / "a.jsonl", new), file(tmp_path / "b.jsonl", old), tmp_path / "c.parquet", 0.5, 0)
    found = list(read_training_groups(tmp_path / "c.parquet"))
    assert mixture == Mixture(10, 5, 5)
    assert len({row.query for row in found}) == len(found) == 15
    with pytest.raises(UserError, match="nothing to replay"):
        mix(tmp_path / "a.jsonl", tmp_path / "a.jsonl", tmp_path / "d.parquet", 0.5, 0)


def test_triplets_come_back_by_the_query(tmp_path: Path) -> None:
    new, old = ([Triplet(f"{kind} {n // 3}", "a", str(n), 1.0) for n in range(30)] for kind in ("new", "old"))
    write_triplets(tmp_path / "new.jsonl", new)
    write_triplets(tmp_path / "old.jsonl", old)
    assert mix(tmp_path / "new.jsonl", tmp_path / "old.jsonl", tmp_path / "c.parquet", 0.2, 0) == Mixture(10, 2, 10)
    assert sum(row.query.startswith("old") for row in read_triplets(tmp_path / "c.parquet")) == 6
    groups = file(tmp_path / "groups.jsonl", rows(0, 3))
    with pytest.raises(UserError, match=r"holds training groups, and .* triplets"):
        mix(tmp_path / "new.jsonl", groups, tmp_path / "d.parquet", 0.2, 0)


def test_a_training_goes_on_and_says_from_what(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    january, february = file(tmp_path / "january.jsonl", rows(0, 16)), file(tmp_path / "february.jsonl", rows(20, 36))
    train(january, bert, tmp_path / "one", SETTINGS)
    continue_training(february, tmp_path / "one", tmp_path / "two", SETTINGS, replay=january, share=0.2)
    origin = json.loads((tmp_path / "two/distilrank.json").read_text(encoding="utf-8"))["origin"]
    assert origin["replay"] | {"digest": ""} == {
        "new_queries": 16, "old_queries": 4, "of_old_queries": 16, "name": "january.jsonl", "digest": "", "share": 0.2,
    }  # fmt: skip
    assert (origin["from"]["name"], origin["from"]["generation"]) == ("one", 1)
    assert not list(tmp_path.glob(".*"))
    command = ["train", str(january), "--from", str(tmp_path / "two"), "-o", str(tmp_path / "three"), "--validation", "0"]
    assert cli.run([*command, "--precision", "float32", "--json"]) == 0
    assert "--replay" in capsys.readouterr().err
    record = json.loads((tmp_path / "three/distilrank.json").read_text(encoding="utf-8"))
    assert record["settings"]["max_length"] == 48
    assert record["origin"]["from"]["generation"] == 2
    assert generation(record) == 3


def test_what_makes_no_sense_is_said(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(file(tmp_path / "data.jsonl", rows(0, 8)))
    for options, said in (
        ([], "--student, or --from"),
        (["--student", str(bert), "--from", str(bert)], "--student, or --from"),
        (["--student", str(bert), "--replay", data], "use --from"),
        (["--from", str(bert)], "no student of ours"),
    ):
        assert cli.run(["train", data, "-o", str(tmp_path / "out"), *options]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
