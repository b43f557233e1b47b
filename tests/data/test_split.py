"""A split keeps together what belongs together, and is the same for the same data in any order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from distilrank.cli import run
from distilrank.data.split import split
from distilrank.errors import UserError
from distilrank.records import Group, Passage, read_groups, write_groups


def some(count: int) -> list[Group]:
    return [
        Group(str(n), f"{word} {other} number {n * n}", (Passage("a", id=f"doc{n % 7}#0", label=1), Passage("b", label=0)))
        for n, (word, other) in enumerate((w, o) for w in tiny.WORDS[:16] for o in tiny.WORDS[16:24])
    ][:count]


@settings(max_examples=40)
@given(st.integers(10, 100), st.floats(0.1, 0.5), st.integers(0, 5), st.randoms(use_true_random=False))
def test_every_query_is_in_one_part_whatever_the_order(count: int, share: float, seed: int, random: object) -> None:
    groups = some(count)
    train, test = split(groups, share, seed=seed, threshold=1.0)
    assert {g.query for g in train} | {g.query for g in test} == {g.query for g in groups}
    assert not {g.query for g in train} & {g.query for g in test}
    assert 0 < len(test) <= share * count
    shuffled = list(groups)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert {g.query for g in split(shuffled, share, seed=seed, threshold=1.0)[1]} == {g.query for g in test}


def test_near_duplicates_stay_on_one_side() -> None:
    base = "how do I install the proprietary printer driver on my new computer"
    groups = [Group(str(n), f"{base}{end}", (Passage("a"),)) for n, end in enumerate(("", "?", " please"))] + some(20)
    for seed in range(8):
        train, test = split(groups, 0.3, seed=seed)
        assert len({g.query.startswith(base) for g in test if g.query.startswith(base)}) <= 1
        assert len([g for g in train if g.query.startswith(base)]) in (0, 3)


def test_what_shares_a_document_stays_on_one_side(tmp_path: Path) -> None:
    write_groups(tmp_path / "groups.jsonl", some(60))
    arguments = ["split", str(tmp_path / "groups.jsonl"), "-o", str(tmp_path / "parts"), "--test", "0.4", "--near", "1"]
    assert run([*arguments, "--by", "document"]) == 0
    documents = [{g.passages[0].id for g in read_groups(tmp_path / f"parts/{part}.jsonl")} for part in ("train", "test")]
    assert documents[1]
    assert not documents[0] & documents[1]


def test_what_cannot_be_split_is_told() -> None:
    with pytest.raises(UserError, match="no family of queries is as small"):
        split(some(10), 0.3, keys=[["one"]] * 10)
    with pytest.raises(UserError, match="a share above 0"):
        split(some(10), 1.5)
