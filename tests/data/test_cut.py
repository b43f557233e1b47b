"""A passage is cut to what the student can see of it, and otherwise left to the letter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrank.data import cut_to_student
from distilrank.errors import UserError
from distilrank.records import Group, Passage, read_groups, write_groups
from distilrank.rows import BadLines

LENGTH = 12


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A token a word; two special tokens around the query and one after the passage."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")


words = st.lists(st.sampled_from(["a", "word", "如何", "🙂", "\n", "  two"]), max_size=20).map(" ".join).filter(str.strip)


@given(query=words, passages=st.lists(words, min_size=1, max_size=4))
def test_a_cut_passage_is_the_longest_whole_beginning_that_fits(tokenizer: Any, query: str, passages: list[str]) -> None:
    before = Group("7", query, tuple(Passage(text, id="i", label=1, source="s", rank=3) for text in passages))
    room = LENGTH - 3 - len(query.split())
    if room < 1:
        with pytest.raises(UserError, match=r"leaves no room for a passage in the student's 12 tokens"):
            list(cut_to_student([before], tokenizer, LENGTH))
        return
    (after,) = cut_to_student([before], tokenizer, LENGTH)
    assert (after.query_id, after.query) == ("7", query)
    # Each alone, since those that the cut makes equal become one (below).
    alone = [next(cut_to_student([replace(before, passages=(one,))], tokenizer, LENGTH)).passages for one in before.passages]
    assert {cut.text for cut in after.passages} == {cut.text for (cut,) in alone}
    for whole, (cut,) in zip(before.passages, alone, strict=True):
        assert whole.text.startswith(cut.text)
        assert (cut.id, cut.label, cut.source, cut.rank) == ("i", 1, "s", 3)
        tokens, kept = len(whole.text.split()), len(cut.text.split())
        assert kept == min(tokens, room)
        if tokens <= room:
            assert cut.text == whole.text


def test_teacher_and_student_see_the_same_tokens(tokenizer: Any) -> None:
    group = Group("", "one two three", (Passage(" ".join(map(str, range(40)))),))
    (cut,) = cut_to_student([group], tokenizer, LENGTH)
    whole = tokenizer(group.query, group.passages[0].text, truncation="only_second", max_length=LENGTH)["input_ids"]
    assert tokenizer(cut.query, cut.passages[0].text)["input_ids"] == whole


def of(*passages: tuple[str, int | None]) -> Group:
    return Group("7", "one two three", tuple(Passage(text, label=label, rank=n) for n, (text, label) in enumerate(passages)))


def told(groups: list[Group], tokenizer: Any) -> list[list[tuple[str, int | None, int | None]]]:
    return [[(p.text, p.label, p.rank) for p in group.passages] for group in cut_to_student(groups, tokenizer, LENGTH)]


def test_passages_that_only_the_cut_makes_equal_become_one_with_the_highest_grade(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begins = "a b c d e f"  # as much as there is room for
    groups = [
        of((f"{begins} good", 0), ("x", 0), (begins, None), (f"{begins} bad", 2)),
        of((f"{begins} good", None), (f"{begins} bad", None), ("x", 1), ("x", 1)),
        of((f"{begins} good", 1), ("x", 0), (f"{begins} good", 1)),
    ]
    assert told(groups, tokenizer) == [
        [(begins, 2, 0), ("x", 0, 1)],
        [(begins, None, 0), ("x", 1, 2), ("x", 1, 3)],  # what was there twice stays
        [(begins, 1, 0), ("x", 0, 1), (begins, 1, 2)],
    ]
    assert "3 passages of 2 queries are left out: within 12 tokens they are the same" in capsys.readouterr().err
    write_groups(tmp_path / "g.parquet", cut_to_student(groups, tokenizer, LENGTH))
    assert [len(group.passages) for group in read_groups(tmp_path / "g.parquet")] == [2, 3, 3]


def test_a_query_without_room_is_named_or_left_out_and_counted(tokenizer: Any) -> None:
    long = Group("", " ".join("abcdefghi"), (Passage("x"),))
    with pytest.raises(UserError, match=r"the query 'a b c.*raise student.max_length, or set data.skip_bad_lines"):
        list(cut_to_student([of(("x", 1)), long], tokenizer, LENGTH))
    skip = BadLines()
    assert list(cut_to_student([of(("x", 1)), long], tokenizer, LENGTH, skip)) == [of(("x", 1))]
    assert "leaves no room for a passage in the student's 12 tokens" in skip.summary()


def test_groups_are_cut_as_they_come(tokenizer: Any) -> None:
    def groups() -> Any:
        yield Group("", "q", (Passage("a"),))
        raise AssertionError("read ahead")

    assert next(cut_to_student(groups(), tokenizer, LENGTH)).passages[0].text == "a"
