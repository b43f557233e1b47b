"""A passage is cut to what the student can see of it, and otherwise left to the letter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrank.data import cut_to_student
from distilrank.errors import UserError
from distilrank.records import Group, Passage

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
        with pytest.raises(UserError, match=r"fills the student's .* tokens"):
            list(cut_to_student([before], tokenizer, LENGTH))
        return
    (after,) = cut_to_student([before], tokenizer, LENGTH)
    assert (after.query_id, after.query, len(after.passages)) == ("7", query, len(passages))
    for whole, cut in zip(before.passages, after.passages, strict=True):
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


def test_groups_are_cut_as_they_come(tokenizer: Any) -> None:
    def groups() -> Any:
        yield Group("", "q", (Passage("a"),))
        raise AssertionError("read ahead")

    assert next(cut_to_student(groups(), tokenizer, LENGTH)).passages[0].text == "a"
