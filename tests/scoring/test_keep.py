"""Looking after a store: what is in it is told, what is torn is found, and compacting loses nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny
from distilrank.errors import UserError
from distilrank.scoring import ScoreStore
from distilrank.scoring import keep as module
from distilrank.scoring.keep import compact_store, list_store, open_store, print_store, verify_store
from distilrank.teachers import TeacherIdentity

GROUPS = tiny.groups(30, 4)
ONE = TeacherIdentity("causal", "logit difference", "abc", "float32", 512, "qwen3-reranker-1", "Find it")
OTHER = TeacherIdentity("embedder", "cosine", "def", "bfloat16", 128)


def filled(
    folder: Path, identity: TeacherIdentity = ONE, parts: int = 6, engine: str = "packed", model: str = ""
) -> ScoreStore:
    store = ScoreStore(folder, identity, model)
    for start in range(parts):
        groups = GROUPS[start::parts]
        scores = [np.arange(4, dtype=np.float32) + int(group.query_id) for group in groups]
        store.append(groups, scores, {"engine": engine, "machine": "x86_64"})
    return store


def test_a_store_is_listed_by_teacher(tmp_path: Path) -> None:
    filled(tmp_path)
    filled(tmp_path, OTHER, 2, "plain")
    rows = {row["identity"]["kind"]: row for row in list_store(tmp_path)}
    assert (rows["causal"]["pairs"], rows["causal"]["parts"]) == (120, 6)
    assert rows["embedder"]["made"] == {"plain on x86_64": 120}


def test_a_teacher_is_listed_by_the_name_of_its_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path, model="hf:Qwen/Qwen3-Reranker-0.6B")
    filled(tmp_path)  # whoever opens it later need not know the name
    filled(tmp_path, OTHER)
    assert {row["model"] for row in list_store(tmp_path)} == {"hf:Qwen/Qwen3-Reranker-0.6B", ""}
    print_store(list_store(tmp_path))
    assert "hf:Qwen/Qwen3-Reranker-0.6B" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"causal hf:Qwen/Qwen3-Reranker-0.6B\)"):
        open_store(tmp_path, None)
    assert open_store(tmp_path, ONE.digest[:8]).folder.name == ONE.digest
    assert verify_store(tmp_path) == []


def test_names_are_shown_whole_and_as_they_were_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = replace(ONE, instruction="Find [bold]it[/bold] :smile: " + "long " * 40)
    filled(tmp_path, identity)
    print_store(list_store(tmp_path))
    shown = capsys.readouterr().out
    assert "[bold]it[/bold] :smile:" in " ".join(shown.split())
    assert shown.count("long") == 40
    assert identity.digest[:8] in shown
    assert "…" not in shown


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": "m", "kind": "causal"}', "null"])
def test_an_identity_that_is_not_ours_is_refused(tmp_path: Path, content: str) -> None:
    (filled(tmp_path).folder / "identity.json").write_text(content)
    with pytest.raises(UserError, match=r"identity.json: not an identity of ours"):
        list_store(tmp_path)


def test_compacting_keeps_every_score_and_its_provenance(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.append(GROUPS[:3], [np.arange(4, dtype=np.float32) + int(g.query_id) for g in GROUPS[:3]], {"engine": "vllm"})
    store.append(GROUPS[:2], [np.arange(4, dtype=np.float32) + int(g.query_id) for g in GROUPS[:2]], {"engine": "vllm"})
    before = [values.tolist() for values in store.scores(GROUPS)]
    assert compact_store(tmp_path) == (8, 2)
    assert [values.tolist() for values in store.scores(GROUPS)] == before
    (row,) = list_store(tmp_path)
    assert row["made"] == {"packed on x86_64": 120, "vllm on ?": 12}  # each pair once a provenance
    assert verify_store(tmp_path) == []
    assert compact_store(tmp_path) == (2, 2)


def test_parts_larger_than_the_limit_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPACT_PAIRS", 50)
    store = filled(tmp_path)
    before = [values.tolist() for values in store.scores(GROUPS)]
    assert compact_store(tmp_path) == (6, 2)
    assert [values.tolist() for values in store.scores(GROUPS)] == before


def test_a_whole_store_has_no_problems(tmp_path: Path) -> None:
    filled(tmp_path)
    assert verify_store(tmp_path) == []


def test_each_kind_of_damage_is_found(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.append(GROUPS[:1], [np.full(4, 9e9, np.float32)], {})
    store.append(GROUPS[1:2], [np.full(4, np.nan, np.float32)], {})
    (store.folder / "part-cut.parquet").write_bytes(next(store.folder.glob("part-*.parquet")).read_bytes()[:100])
    pq.write_table(pa.table({"a": [1]}), store.folder / "part-other.parquet")
    problems = " | ".join(verify_store(tmp_path))
    for told in (
        "part-cut.parquet: not whole, delete it",
        "part-other.parquet: not ours, delete it: it has a (int64)",
        "4 scores are not finite",
    ):
        assert told in problems
    assert "pairs have two different scores" in problems


def test_what_is_not_ours_is_neither_listed_nor_compacted(tmp_path: Path) -> None:
    store = filled(tmp_path)
    for name in ("part-a.parquet", "part-b.parquet"):
        pq.write_table(pa.table({"a": [1]}), store.folder / name)
    for look in (list_store, compact_store):
        with pytest.raises(UserError, match=r"part-a.parquet: not a part of a score store: `distilrank scores verify "):
            look(tmp_path)
    assert len(list(store.folder.glob("part-*"))) == 8


def test_an_identity_in_the_wrong_folder_is_found(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.folder.rename(store.folder.with_name("0" * 32))
    assert "another teacher's" in verify_store(tmp_path)[0]


def test_a_teacher_is_named_by_the_beginning_of_its_digest(tmp_path: Path) -> None:
    filled(tmp_path)
    assert open_store(tmp_path, None).folder.name == ONE.digest
    filled(tmp_path, OTHER)
    assert open_store(tmp_path, OTHER.digest[:6]).folder.name == OTHER.digest
    with pytest.raises(UserError, match="2 teachers"):
        open_store(tmp_path, None)


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    for look in (list_store, verify_store, compact_store):
        with pytest.raises(UserError, match="no score store"):
            look(tmp_path)
