"""What sources are called where others may read it: short, told apart, no folder of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from distilrank.pipeline.names import published_name, published_recipe, published_source, short_names


def test_a_published_name_holds_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test.jsonl").touch()
    assert published_name("hf:BAAI/bge-reranker-v2-m3@main") == "BAAI/bge-reranker-v2-m3"
    assert published_name("hf:datasets/mteb/set:test.jsonl.gz") == "mteb/set"
    assert published_name("demo:train:4") == "demo:train:4"
    assert published_name(str(tmp_path / "test.jsonl")) == "test.jsonl"
    monkeypatch.chdir(tmp_path)
    assert published_name(".") == tmp_path.name
    assert published_source(str(tmp_path / "a/../b")) == "b"
    assert published_source("../b") == "b"
    monkeypatch.chdir(tmp_path.parent)
    assert published_source(str(tmp_path / "a/../b")) == f"{tmp_path.name}/b"
    assert published_source("hf:org/name@main") == "hf:org/name@main"
    assert published_source("duckdb:" + "select 1 " * 100).startswith("duckdb:")


def test_a_name_is_the_last_part_and_longer_only_where_it_must_be() -> None:
    assert short_names(["hf:BAAI/bge-reranker-v2-m3", "runs/a/model", "runs/b/model", "/x/y/other"]) == [
        "bge-reranker-v2-m3",
        "a/model",
        "b/model",
        "other",
    ]
    assert short_names(["hf:a/set:test.jsonl", "hf:a/set:dev.jsonl"]) == ["a/set:test.jsonl", "a/set:dev.jsonl"]
    assert short_names(["hf:a/m@one", "hf:b/m", "b/other"]) == ["a/m", "b/m", "other"]
    assert short_names(["pypi:x==1:some/model#sha256=" + "0" * 64, "demo:reranker"]) == ["model", "demo:reranker"]
    assert short_names(["/x/teacher"], ["teacher"]) == ["x/teacher"]
    assert short_names(["demo:reranker", "demo:reranker"]) == ["demo:reranker", "demo:reranker (2)"]


PART = st.text("ab/:@.", min_size=1, max_size=8)


@given(sources=st.lists(PART | PART.map(lambda text: f"hf:{text}") | PART.map(lambda text: f"/{text}"), max_size=6))
def test_names_are_all_different_and_none_is_taken(sources: list[str]) -> None:
    names = short_names(sources, ["a", "b"])
    assert len({*names, "a", "b"}) == len(sources) + 2


def test_a_recipe_that_others_read_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    home = str(tmp_path)
    recipe = {
        "name": "x",
        "data": {"train": f"{home}/train.jsonl", "test": f"duckdb:SELECT * FROM '{home}/my files/t.parquet'"},
        "teacher": {
            "members": [{"model": f"{home}/models/8B"}, {"model": "hf:Qwen/Qwen3-Reranker-8B"}, {"url": "http://a/b"}]
        },
        "student": {"model": "runs/a/model"},
        "evaluate": {"out_of_domain": ["~/secret/a.jsonl", "../b/c.jsonl"]},
        "train": {"learning_rate": 2e-5, "accumulation": None},
    }
    found = published_recipe(yaml.safe_dump(recipe, sort_keys=False))
    assert home not in found
    assert "secret" not in found
    assert yaml.safe_load(found) == {
        "name": "x",
        "data": {"train": "train.jsonl", "test": "duckdb:SELECT * FROM 't.parquet'"},
        "teacher": {"members": [{"model": "8B"}, {"model": "hf:Qwen/Qwen3-Reranker-8B"}, {"url": "http://a/b"}]},
        "student": {"model": "runs/a/model"},
        "evaluate": {"out_of_domain": ["a.jsonl", "c.jsonl"]},
        "train": {"learning_rate": 2e-5, "accumulation": None},
    }
