"""The store keeps what was paid for by content: whole parts only, whoever writes and whenever they are killed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.errors import UserError
from distilrank.records import Group, Passage
from distilrank.scoring import ScoreStore
from distilrank.scoring.store import pair_digest
from distilrank.shards import parts
from distilrank.teachers import TeacherIdentity

IDENTITY = TeacherIdentity("causal", "logit difference", "weights", "float32", 512, "template", "instruction")
words = st.sampled_from(["a", "b", "ab", "如何", "🙂", "a\x00b"])
groups_of_words = st.lists(
    st.builds(
        lambda query, texts: Group(query, query, tuple(map(Passage, texts))), words, st.lists(words, min_size=1, max_size=6)
    ),
    max_size=6,
)


def group(query: str, *texts: str) -> Group:
    return Group(query, query, tuple(map(Passage, texts)))


def values(groups: Sequence[Group]) -> list[np.ndarray]:
    """A score that the pair alone decides."""
    return [
        np.asarray([int.from_bytes(pair_digest(g.query, p.text)[:3], "big") / 997 for p in g.passages], dtype=np.float32)
        for g in groups
    ]


def lacking(store: ScoreStore, groups: Sequence[Group]) -> list[tuple[str, str]]:
    with store.missing(groups) as missing:
        pairs = [(g.query, p.text) for g in missing.groups for p in g.passages]
        assert missing.pairs == len(pairs)
    return pairs


@settings(max_examples=20)
@given(kept=groups_of_words, wanted=groups_of_words)
def test_what_is_missing_is_the_difference_of_two_sets_in_order(
    tmp_path_factory: pytest.TempPathFactory, kept: list[Group], wanted: list[Group]
) -> None:
    store = ScoreStore(tmp_path_factory.mktemp("store"), IDENTITY)
    for of_query in kept:
        store.append([of_query], values([of_query]), {})
    have = {(g.query, p.text) for g in kept for p in g.passages}
    asked = dict.fromkeys((g.query, p.text) for g in wanted for p in g.passages)
    assert lacking(store, wanted) == [pair for pair in asked if pair not in have]


@settings(max_examples=20)
@given(groups=groups_of_words.filter(bool))
def test_scores_come_back_in_the_order_of_the_groups(tmp_path_factory: pytest.TempPathFactory, groups: list[Group]) -> None:
    store = ScoreStore(tmp_path_factory.mktemp("store"), IDENTITY)
    store.append(groups[::-1], values(groups[::-1]), {})
    for found, wanted in zip(store.scores(groups), values(groups), strict=True):
        assert found.dtype == np.float32
        assert found.tolist() == wanted.tolist()


def test_more_pairs_than_a_batch_holds_keep_their_order(tmp_path: Path) -> None:
    groups = [group(f"q{n}", *(f"p{i}" for i in range(50))) for n in range(1_100)]
    store = ScoreStore(tmp_path, IDENTITY)
    store.append(groups[500:], values(groups[500:]), {})
    assert lacking(store, groups) == [(g.query, p.text) for g in groups[:500] for p in g.passages]
    store.append(groups[:500], values(groups[:500]), {})
    assert np.concatenate(list(store.scores(groups))).tolist() == np.concatenate(values(groups)).tolist()


def test_query_and_passage_do_not_run_into_each_other() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), ("c", "ab"), ("é", "c"), ("e\u0301", "c")]
    assert len({pair_digest(*pair) for pair in pairs}) == len(pairs)
    assert all(len(pair_digest(*pair)) == 16 for pair in pairs)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "others"},
        {"dtype": "bfloat16"},
        {"max_length": 256},
        {"template": "t"},
        {"instruction": "i"},
        {"score": "s"},
    ],
)
def test_another_identity_has_a_place_of_its_own(tmp_path: Path, change: dict[str, object]) -> None:
    groups = [group("q", "a", "b")]
    store, other = ScoreStore(tmp_path, IDENTITY), ScoreStore(tmp_path, replace(IDENTITY, **change))
    store.append(groups, values(groups), {})
    assert lacking(store, groups) == []
    assert lacking(other, groups) == [("q", "a"), ("q", "b")]


def test_the_folder_says_whose_scores_they_are(tmp_path: Path) -> None:
    store, groups = ScoreStore(tmp_path, IDENTITY), [group("q", "a")]
    assert store.folder == tmp_path / IDENTITY.digest
    assert not store.folder.exists(), "a teacher that failed its checks has no scores, and no place in the list"
    store.append(groups, values(groups), {})
    described = json.loads((store.folder / "identity.json").read_text())
    assert TeacherIdentity(**described) == IDENTITY


def test_a_part_is_pairs_scores_and_where_they_come_from(tmp_path: Path) -> None:
    store, groups = ScoreStore(tmp_path, IDENTITY), [group("q", "a", "b")]
    path = store.append(groups, values(groups), {"engine": "plain"})
    table = pq.read_table(path)
    assert path.name.startswith("part-")
    assert table.column("pair").to_pylist() == [pair_digest("q", "a"), pair_digest("q", "b")]
    assert table.schema.field("score").type == pa.float32()
    assert table.schema.metadata[b"engine"] == b"plain"


def test_what_was_half_written_is_not_there(tmp_path: Path) -> None:
    store, groups = ScoreStore(tmp_path, IDENTITY), [group("q", "a")]
    store.folder.mkdir()
    (store.folder / ".part-0123.parquet.4567.tmp").write_bytes(b"PAR1 half a part")
    assert lacking(store, groups) == [("q", "a")]
    store.append(groups, values(groups), {})
    assert len(list(store.scores(groups))) == 1


def test_a_store_may_lie_in_a_folder_of_any_name(tmp_path: Path) -> None:
    store, groups = ScoreStore(tmp_path / "it's [v2] *", IDENTITY), [group("q", "a")]
    store.append(groups, values(groups), {})
    store.append(groups, values(groups), {})
    assert lacking(store, groups) == []


def test_a_pair_without_a_score_is_said(tmp_path: Path) -> None:
    store, groups = ScoreStore(tmp_path, IDENTITY), [group("q", "a"), group("lonely", "b")]
    store.append(groups[:1], values(groups[:1]), {})
    with pytest.raises(UserError, match=r"no score for a passage of 'lonely'"):
        list(store.scores(groups))


@pytest.mark.parametrize("damage", [b"", b"not Parquet", None, "columns", "types", "middle"])
def test_a_corrupt_part_names_the_store(tmp_path: Path, damage: bytes | str | None) -> None:
    store, groups = ScoreStore(tmp_path, IDENTITY), [group("q", "a"), group("r", "b")]
    store.append(groups, values(groups), {})
    path = store.append(groups, values(groups), {})
    if damage == "columns":
        pq.write_table(pa.table({"other": [1]}), path)
    elif damage == "types":
        pq.write_table(pa.table({"pair": ["x"], "score": ["1"]}), path)
    elif damage == "middle":
        content = bytearray(path.read_bytes())
        content[4:60] = b"\xff" * 56
        path.write_bytes(content)
    else:
        path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)  # type: ignore[arg-type]
    with pytest.raises(UserError) as error:
        list(store.scores(groups))
    assert str(error.value).startswith(str(store.folder))
    assert f"`distilrank scores verify {tmp_path}` lists what to delete" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=str(store.folder)):
        lacking(store, groups)


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    groups = [group(f"q{n}", "a", "b") for n in range(60)]

    def write(share: int) -> None:
        store = ScoreStore(tmp_path, IDENTITY)
        for of_query in groups[share::3] + groups[:5]:
            store.append([of_query], values([of_query]), {})

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    store = ScoreStore(tmp_path, IDENTITY)
    assert np.concatenate(list(store.scores(groups))).tolist() == np.concatenate(values(groups)).tolist()
    assert len(parts(store.folder)) == 75
    assert not list(store.folder.glob(".*"))
