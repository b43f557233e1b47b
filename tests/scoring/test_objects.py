"""A score store in an object store: the same store, by URL."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

pytest.importorskip("upath", reason="universal_pathlib is not installed: pip install 'distilrank[objects]'")

from test_score import Fake, holds, many

from distilrank.cli import run
from distilrank.errors import UserError
from distilrank.scoring import ScoreStore, score
from distilrank.scoring.keep import compact_store, list_store, verify_store
from distilrank.shards import append_part, parts, place


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/scores"


def test_scores_are_kept_and_read_as_in_a_folder(url: str) -> None:
    teacher = Fake()
    store = ScoreStore(url, teacher.identity, "named")
    assert score(many(20), teacher, store, part_pairs=12) == 80
    assert holds(store, many(20))
    assert score(many(25), Fake(), ScoreStore(url, teacher.identity), part_pairs=12) == 20
    assert holds(ScoreStore(url, teacher.identity), many(25))


def test_it_is_listed_verified_and_compacted(url: str) -> None:
    teacher = Fake()
    store = ScoreStore(url, teacher.identity, "named")
    score(many(20), teacher, store, part_pairs=12)
    (row,) = list_store(place(url))
    assert (row["pairs"], row["model"]) == (80, "named")
    assert verify_store(place(url)) == []
    assert compact_store(place(url))[1] == 1
    assert holds(store, many(20))
    (part,) = parts(store.folder)
    part.write_bytes(b"torn")
    assert len(verify_store(place(url))) == 1
    with pytest.raises(UserError, match="not whole"):
        list(store.scores(many(20)))


def test_a_kind_of_store_that_is_not_there_is_told_in_a_line() -> None:
    with pytest.raises(UserError, match="nosuch://x: "):
        ScoreStore("nosuch://x", Fake().identity)


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    assert place(f"file://{tmp_path}") == tmp_path
    import pyarrow as pa

    assert append_part(f"file://{tmp_path}", pa.table({"a": [1]})).parent == tmp_path


def test_score_as_typed(bert: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "g.jsonl").write_text('{"query": "river", "passages": ["stone", "bridge"]}\n')
    command = ["score", str(tmp_path / "g.jsonl"), "-o", str(tmp_path / "o.jsonl"), "--teacher", str(bert)]
    command += ["--kind", "cross-encoder", "--store", url, "--checks", "warn", "--json"]
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["scored"] == 2
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["scored"] == 0
    assert run(["scores", "verify", url]) == 0
