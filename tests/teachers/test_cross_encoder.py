"""Any reranker's raw logit; the query is never cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from distilrank.engines.classifier import encode_pairs
from distilrank.errors import UserError
from distilrank.teachers.cross_encoder import CrossEncoderTeacher

GROUPS = tiny.groups(4, 5, most_words=60)
both = pytest.mark.parametrize("name", ["bert", "xlmr"])


@both
def test_scores_equal_sentence_transformers_raw_logits(name: str, request: pytest.FixtureRequest) -> None:
    from sentence_transformers import CrossEncoder

    folder = request.getfixturevalue(name)
    theirs = CrossEncoder(str(folder), max_length=64, device="cpu", activation_fn=torch.nn.Identity())
    ours = CrossEncoderTeacher(folder, max_length=64, dtype="float32", device="cpu").score(GROUPS)
    for group, values in zip(GROUPS, ours, strict=True):
        expected = theirs.predict([(group.query, passage.text) for passage in group.passages])
        np.testing.assert_allclose(values, expected, atol=1e-5)


@both
@settings(max_examples=30, deadline=None)
@given(words=st.integers(1, 20), passage_words=st.integers(1, 60))
def test_a_query_stands_whole_or_is_refused(
    name: str, words: int, passage_words: int, request: pytest.FixtureRequest
) -> None:
    teacher = CrossEncoderTeacher(request.getfixturevalue(name), max_length=32, dtype="float32", device="cpu")
    query, passage = " ".join(["river"] * words), " ".join(["stone"] * passage_words)
    asked = teacher.tokenizer(query, add_special_tokens=False)["input_ids"]
    try:
        teacher.score([tiny.group(query, passage)])
    except UserError:
        assert len(asked) > 12
    else:
        ids = encode_pairs(teacher.tokenizer, [query], [passage], 32)["input_ids"][0]
        assert ids[1 : 1 + len(asked)] == asked


def test_the_identity_says_logit_and_changes_with_weights_and_length(bert: Path, xlmr: Path) -> None:
    identity = CrossEncoderTeacher(bert).identity
    assert (identity.kind, identity.score, identity.bounded) == ("cross-encoder", "logit", False)
    others = [CrossEncoderTeacher(xlmr).identity, CrossEncoderTeacher(bert, max_length=64).identity]
    assert identity.digest not in {other.digest for other in others}


def test_no_groups_have_no_scores(bert: Path) -> None:
    assert CrossEncoderTeacher(bert).score([]) == []


def test_what_is_prepared_is_scored_when_it_is_asked_for(bert: Path) -> None:
    teacher = CrossEncoderTeacher(bert, max_length=64, dtype="float32", device="cpu")
    told: list[int] = []
    answer = teacher.prepare(GROUPS)
    for prepared, scored in zip(answer(told.append), teacher.score(GROUPS), strict=True):
        np.testing.assert_array_equal(prepared, scored)
    assert sum(told) == 20


def test_released_weights_are_loaded_again_when_the_teacher_is_asked_again(bert: Path) -> None:
    teacher = CrossEncoderTeacher(bert, max_length=64, dtype="float32", device="cpu")
    before = teacher.score(GROUPS[:1])[0]
    teacher.release()
    assert "model" not in vars(teacher)
    np.testing.assert_array_equal(teacher.score(GROUPS[:1])[0], before)


def test_windows_are_another_teacher_and_none_is_the_one_there_was(bert: Path) -> None:
    plain, windowed = (CrossEncoderTeacher(bert, max_length=32, dtype="float32", windows=overlap) for overlap in (None, 4))
    assert plain.identity.template == ""
    assert len({plain.identity.digest, windowed.identity.digest, CrossEncoderTeacher(bert, windows=5).identity.digest}) == 3
    groups = [tiny.group("how why", " ".join(tiny.WORDS * 3))]
    assert windowed.score(groups)[0][0] >= plain.score(groups)[0][0] - 1e-6
    with pytest.raises(UserError, match="tokens"):
        windowed.refuse_long_queries([tiny.group("river " * 14, "stone")])
