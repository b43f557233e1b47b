"""A score store in S3, spoken to over HTTP: parts are whole or absent, and what others read there is what was written."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

pytest.importorskip("moto", reason="moto is not installed: pip install -e '.[dev]'")
pytest.importorskip("s3fs", reason="s3fs is not installed: pip install -e '.[dev]'")

from s3_server import Door, s3_door
from test_score import Fake, holds, many, value

from distilrank.cli import run
from distilrank.errors import UserError
from distilrank.records import GroupFile, read_groups, write_groups
from distilrank.scoring import ScoreStore, score
from distilrank.scoring.keep import compact_store, list_store, verify_store
from distilrank.scoring.store import pair_digest
from distilrank.shards import append_part, parts, place


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with s3_door() as opened, pytest.MonkeyPatch.context() as environment:
        for name, setting in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{opened.port}",
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "2",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            environment.setenv(name, setting)
        yield opened


@pytest.fixture
def arrow(door: Door) -> Any:
    """The same store by another client: pyarrow's own."""
    from pyarrow.fs import S3FileSystem

    return S3FileSystem(
        access_key="someone",
        secret_key="secret",
        region="us-east-1",
        endpoint_override=f"127.0.0.1:{door.port}",
        scheme="http",
        allow_bucket_creation=True,
    )


@pytest.fixture
def bucket(arrow: Any) -> str:
    name = f"bucket-{uuid.uuid4().hex}"
    arrow.create_dir(name)
    return name


def test_what_is_written_is_what_another_client_reads(bucket: str, arrow: Any) -> None:
    teacher = Fake()
    store = ScoreStore(f"s3://{bucket}/scores", teacher.identity, "named")
    assert score(many(10), teacher, store, part_pairs=16) == 40
    assert holds(store, many(10))
    assert len(parts(store.folder)) == 3
    names = [file.path for file in arrow.get_file_info(_all(f"{bucket}/scores")) if file.path.endswith(".parquet")]
    found = ds.dataset(names, format="parquet", filesystem=arrow).to_table()
    assert dict(zip(found["pair"].to_pylist(), found["score"].to_pylist(), strict=True)) == {
        pair_digest(group.query, passage.text): float(value(group.query, passage.text))
        for group in many(10)
        for passage in group.passages
    }


def test_what_another_writer_adds_meanwhile_is_seen(bucket: str) -> None:
    teacher = Fake()
    first, second = (ScoreStore(f"s3://{bucket}/scores", teacher.identity) for _ in range(2))
    assert score(many(5), teacher, first) == 20
    assert score(many(10), Fake(), second) == 20
    assert score(many(15), teacher, first) == 20
    assert holds(first, many(15))


def test_it_is_listed_verified_and_compacted(bucket: str) -> None:
    teacher, url = Fake(), place(f"s3://{bucket}/scores")
    store = ScoreStore(f"s3://{bucket}/scores", teacher.identity, "named")
    score(many(10), teacher, store, part_pairs=16)
    (row,) = list_store(url)
    assert (row["pairs"], row["parts"], row["model"]) == (40, 3, "named")
    assert compact_store(url) == (3, 1)
    assert verify_store(url) == []
    assert holds(store, many(10))
    parts(store.folder)[0].write_bytes(b"torn")
    (problem,) = verify_store(url)
    assert problem.startswith(f"s3://{bucket}/scores/")


def test_a_put_that_is_cut_in_the_middle_is_made_again(bucket: str, door: Door) -> None:
    teacher, cut = Fake(), door.cut
    store = ScoreStore(f"s3://{bucket}/scores", teacher.identity)
    door.cuts = 1
    assert score(many(10), teacher, store) == 40
    assert door.cut == cut + 1
    assert holds(store, many(10))
    assert verify_store(place(f"s3://{bucket}/scores")) == []


def test_a_put_that_is_cut_every_time_leaves_nothing_and_is_told_in_a_line(bucket: str, door: Door) -> None:
    teacher = Fake()
    store = ScoreStore(f"s3://{bucket}/scores", teacher.identity)
    assert score(many(5), teacher, store) == 20
    door.cuts = 100
    try:
        with pytest.raises(UserError, match=rf"s3://{bucket}/scores/.*/part-\w+.parquet: cannot be written: ") as error:
            score(many(10), teacher, store)
    finally:
        door.cuts = 0
    assert "\n" not in str(error.value)
    assert len(parts(store.folder)) == 1
    assert score(many(10), teacher, store) == 20
    assert holds(store, many(10))


def test_a_bucket_that_is_not_there_is_told_in_a_line_and_not_made(arrow: Any) -> None:
    from pyarrow.fs import FileType

    with pytest.raises(UserError, match="s3://nosuchbucket/x/part-"):
        append_part("s3://nosuchbucket/x", pa.table({"a": [1]}))
    with pytest.raises(UserError, match=r"s3://nosuchbucket/g\.jsonl: no such file"):
        list(read_groups(place("s3://nosuchbucket/g.jsonl")))
    assert arrow.get_file_info("nosuchbucket").type == FileType.NotFound


@pytest.mark.parametrize("name", ["groups.parquet", "groups.jsonl", "groups.jsonl.gz", "groups.jsonl.zst"])
def test_groups_are_read_from_a_bucket(name: str, bucket: str, tmp_path: Path) -> None:
    write_groups(tmp_path / name, many(7))
    place(f"s3://{bucket}/{name}").write_bytes((tmp_path / name).read_bytes())
    groups = GroupFile(place(f"s3://{bucket}/{name}"))
    assert list(groups) == list(groups) == many(7)
    with pytest.raises(UserError, match=f"s3://{bucket}/absent.parquet: no such file"):
        list(read_groups(place(f"s3://{bucket}/absent.parquet")))


def test_score_as_typed(bert: Path, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place(f"s3://{bucket}/g.jsonl").write_text('{"query": "river", "passages": ["stone", "bridge"]}\n')
    command = ["score", f"s3://{bucket}/g.jsonl", "-o", str(tmp_path / "o.jsonl"), "--teacher", str(bert)]
    command += ["--kind", "cross-encoder", "--store", f"s3://{bucket}/scores", "--checks", "skip", "--json"]
    for scored in (2, 0):
        assert run(command) == 0
        assert json.loads(capsys.readouterr().out)["scored"] == scored
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 2
    command[1] = "s3://nosuchbucket/g.jsonl"
    assert run(command) == 2


def _all(folder: str) -> Any:
    from pyarrow.fs import FileSelector

    return FileSelector(folder, recursive=True)
