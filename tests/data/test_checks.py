"""What is wrong with groups is counted; a query in both parts is a leak."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from distilrank.cli import run
from distilrank.data import checks
from distilrank.data.bm25 import bm25_scores
from distilrank.data.checks import check, demand_no_leak, in_words
from distilrank.errors import GateError
from distilrank.records import Group, Passage, read_groups, write_groups
from distilrank.rows import BadLines


def group(number: int, query: str, *passages: str, positive: int = 0) -> Group:
    return Group(str(number), query, tuple(Passage(text, label=int(i == positive)) for i, text in enumerate(passages)))


def test_duplicates_candidates_and_blind_spots_are_counted() -> None:
    long = "the river runs under the old stone bridge beside the market"
    groups = [
        group(
            0,
            "where does the river run",
            long,
            f"{long} today",
            "The river runs under the old stone bridge, beside the market!",
        ),
        group(1, "silver candle", "completely unrelated words", "silver candle holder"),
        group(2, "only one", "one candidate"),
        group(3, "only one", "one candidate", "another"),
    ]
    found = check(groups)
    assert (found.queries, found.passages, found.single, found.repeated_queries) == (4, 8, 1, 1)
    assert (found.exact_duplicates, found.near_duplicates) == (1, 1)
    assert (found.labelled, found.never_found) == (4, 1)
    assert found.candidates == {"1": 1, "2-5": 3}
    assert found.leaked is None
    assert {row[0] for row in in_words(found)} >= {"exact duplicates", "near duplicates", "never found"}


def test_a_shared_query_is_a_leak_and_a_shared_passage_is_not() -> None:
    train = [group(0, "how do I install the printer driver on ubuntu", "a", "b"), group(1, "silver", "c", "d")]
    clean = check([group(2, "a candle in the winter window", "a", "e")], train)
    assert (clean.leaked, clean.shared_passages) == (0, 1)
    demand_no_leak(clean)
    leaking = check([group(3, "How do I install the printer driver on Ubuntu?", "x", "y")], train)
    assert leaking.leaked == 1
    with pytest.raises(GateError, match="1 queries are also in the other data"):
        demand_no_leak(leaking)


def test_what_the_student_cannot_see_is_told(bert: Path) -> None:
    from transformers import AutoTokenizer

    groups = [group(0, "river", "stone " * 50, "window")]
    cut = check(groups, tokenizer=AutoTokenizer.from_pretrained(bert), max_length=20).cut
    assert cut is not None
    # [CLS] river [SEP] ... [SEP] leaves 16 of the 50.
    assert (cut.passages, cut.cut, cut.tokens, cut.lost) == (2, 1, 51, 34)


def test_the_command_exits_with_three_on_a_leak(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_groups(tmp_path / "train.jsonl", tiny.groups(20))
    write_groups(tmp_path / "test.jsonl", [*tiny.groups(3), *tiny.groups(3, seed=9)])
    arguments = ["check", str(tmp_path / "test.jsonl"), "--against", str(tmp_path / "train.jsonl"), "--near", "1"]
    assert run(arguments) == 3
    assert "also in the other data" in capfd.readouterr().err
    assert run([*arguments, "--allow-leak", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["leaked"] == 3


@pytest.mark.parametrize(("name", "shared"), [("askubuntu_dup", 1471), ("xquadr_zh", 1039), ("cosqa", 1564), ("epqa", 126)])
def test_real_sets_share_the_passages_that_their_readme_counts(name: str, shared: int, real_data: Path) -> None:
    train, test = (list(read_groups(real_data / name / f"{part}.jsonl", BadLines())) for part in ("train", "test"))
    few = [Group(g.query_id, g.query, g.passages) for g in test]
    assert check(few, train).shared_passages == shared


def test_rows_with_an_empty_text_are_counted_apart(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = {"query": "river", "passages": ["stone", "bridge"]}
    rows = [good, {"query": " \t", "passages": ["a"]}, {"query": "q", "passages": ["a", "\n"]}, {"query": "q"}]
    (tmp_path / "groups.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(["check", str(tmp_path / "groups.jsonl"), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["queries"], found["empty_texts"], found["bad_lines"]) == (1, 2, 1)
    assert found["first_bad_line"].endswith("groups.jsonl:2: query is an empty text")


@given(st.integers(1, 60), st.integers(0, 3))
def test_groups_are_read_once_and_a_sample_of_bounded_size_is_kept(count: int, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "SAMPLE", 4)
        seen = checks._Seen(0.8)
        groups = tiny.groups(count, seed=seed)
        seen.read(iter(groups), "groups")
    places = [groups.index(group) for group in seen.sample]
    assert min(count, 4) <= len(places) <= 8
    steps = {after - before for before, after in pairwise(places)}
    assert places[0] == 0
    assert len(steps) <= 1


@given(st.lists(st.text("ab é中_", min_size=1, max_size=6), min_size=2, max_size=5, unique=True))
def test_bm25_finds_a_positive_unless_no_word_is_shared(texts: list[str]) -> None:
    asked = group(0, *texts)
    found = check([asked])
    scores = bm25_scores([asked])[0]
    assert found.never_found == int(scores[0] <= 0)
