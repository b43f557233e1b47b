"""Batched scores are those of the plain library, pair by pair, and their last bits are kept."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel

import tiny
from distilrank.engines import classifier
from distilrank.engines.batches import padded_batch
from distilrank.engines.classifier import Reranker, encode_pairs, fp32_head, score_encoded
from distilrank.engines.load import load_model
from distilrank.errors import UserError

RNG = random.Random(1)
PAIRS = [(tiny.text(RNG), tiny.text(RNG, 1, 60)) for _ in range(40)]
MOST = 48  # tokens: some of the pairs are cut
both = pytest.mark.parametrize("name", ["bert", "xlmr"])


@pytest.fixture
def folder(name: str, request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(name)


@pytest.fixture
def groups() -> list[tiny.Group]:
    return [tiny.group(query, *(passage for _, passage in PAIRS[i::7])) for i, (query, _) in enumerate(PAIRS[:7])]


@both
def test_batched_scores_equal_one_by_one_forwards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(classifier.TOKENS_A_BATCH, "cpu", 300)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    one_by_one = []
    with torch.inference_mode():
        for query, passage in PAIRS:
            inputs = tokenizer(query, passage, truncation="longest_first", max_length=MOST, return_tensors="pt")
            one_by_one.append(model(**inputs).logits.item())
    encoded = encode_pairs(tokenizer, *zip(*PAIRS, strict=True), MOST)
    found = score_encoded(model, encoded, tokenizer.pad_token_id, "float32")
    np.testing.assert_allclose(found, one_by_one, atol=1e-5)
    assert np.ptp(found) > 0.01


@both
def test_a_reranker_scores_as_sentence_transformers_does(folder: Path, groups: list[tiny.Group]) -> None:
    from sentence_transformers import CrossEncoder

    theirs = CrossEncoder(str(folder), max_length=MOST, device="cpu", activation_fn=torch.nn.Identity())
    ours = Reranker(folder, max_length=MOST, dtype="float32", device="cpu").score(groups)
    for group, values in zip(groups, ours, strict=True):
        expected = theirs.predict([(group.query, passage.text) for passage in group.passages])
        np.testing.assert_allclose(values, expected, atol=1e-5)
        assert values.dtype == np.float32


@both
def test_the_head_is_float32_under_autocast_and_ties_fewer_pairs(folder: Path) -> None:
    plain = load_model("AutoModelForSequenceClassification", folder, "float32", "cpu")
    exact = fp32_head(load_model("AutoModelForSequenceClassification", folder, "float32", "cpu"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = encode_pairs(tokenizer, *zip(*PAIRS, strict=True), MOST)
    inputs = padded_batch(encoded, tokenizer.pad_token_id)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        coarse, fine = plain(**inputs).logits, exact(**inputs).logits
    assert (coarse.dtype, fine.dtype) == (torch.bfloat16, torch.float32)
    assert len(fine.unique()) > len(coarse.unique())
    torch.testing.assert_close(fine, coarse.float(), atol=0.1, rtol=0.05)


def test_progress_counts_every_pair(bert: Path, groups: list[tiny.Group]) -> None:
    told: list[int] = []
    Reranker(bert, dtype="float32", device="cpu").score(groups, told.append)
    assert sum(told) == sum(len(group.passages) for group in groups)


def test_no_groups_have_no_scores(bert: Path) -> None:
    assert Reranker(bert).score([]) == []


def test_a_model_with_two_outputs_is_no_reranker(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 outputs; a reranker has one"):
        _ = Reranker(tiny.bert_folder(tmp_path, num_labels=2)).model


def test_an_encoder_without_a_head_scores_only_where_a_new_head_is_allowed(bert: Path, tmp_path: Path) -> None:
    BertModel.from_pretrained(bert).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    groups = tiny.groups(3, 3)
    with pytest.raises(UserError, match="not among its weights"):
        Reranker(tmp_path, device="cpu").score(groups)
    first, again = (np.concatenate(Reranker(tmp_path, device="cpu", fresh_head=True).score(groups)) for _ in range(2))
    np.testing.assert_array_equal(first, again)  # the same new head each time
    whole = np.concatenate(Reranker(bert, device="cpu").score(groups))
    np.testing.assert_array_equal(whole, np.concatenate(Reranker(bert, device="cpu", fresh_head=True).score(groups)))


def test_a_model_with_no_head_of_that_width_is_refused() -> None:
    model = SimpleNamespace(
        modules=lambda: [torch.nn.Linear(4, 7)], config=SimpleNamespace(num_labels=1), name_or_path="llm"
    )
    with pytest.raises(UserError, match="llm: SimpleNamespace has no head"):
        fp32_head(model)
