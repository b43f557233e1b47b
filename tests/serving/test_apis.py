"""Each API says what its own servers say, and its scores are the model's: asked by hand, and by our own client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import tiny
from distilrank.serving.app import best_first, shortest, sigmoid
from distilrank.teachers.cross_encoder import CrossEncoderTeacher
from distilrank.teachers.http import HttpTeacher
from serving.servers import metric, running

QUERY = "how does the river open the window"
TEXTS = [
    "stone bridge market",
    "the river open window garden",
    "why",
    "castle harbour letter winter of the summer",
    "a candle",
]
MOST = 64


@pytest.fixture(scope="module")
def client(bert: Path) -> Iterator[httpx.Client]:
    with running(bert, max_length=MOST) as client:
        yield client


def logits(folder: Path, pairs: list[tuple[str, str]], side: str = "right", most: int = MOST) -> np.ndarray:
    """The plain library, one pair at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side=side)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found = []
    with torch.inference_mode():
        for query, text in pairs:
            inputs = tokenizer(query, text, truncation="longest_first", max_length=most, return_tensors="pt")
            found.append(model(**inputs).logits.item())
    return np.array(found)


@pytest.fixture(scope="module")
def expected(bert: Path) -> np.ndarray:
    return logits(bert, [(QUERY, text) for text in TEXTS])


def test_tei(client: httpx.Client, expected: np.ndarray) -> None:
    ranks = client.post("/rerank", json={"query": QUERY, "texts": TEXTS, "raw_scores": True}).json()
    assert [rank["index"] for rank in ranks] == np.argsort(-expected, kind="stable").tolist()
    np.testing.assert_allclose([rank["score"] for rank in ranks], np.sort(expected)[::-1], atol=1e-5)
    assert all(set(rank) == {"index", "score"} for rank in ranks)
    squashed = client.post("/rerank", json={"query": QUERY, "texts": TEXTS, "return_text": True}).json()
    assert [rank["text"] for rank in squashed] == [TEXTS[rank["index"]] for rank in ranks]
    np.testing.assert_allclose([rank["score"] for rank in squashed], 1 / (1 + np.exp(-np.sort(expected)[::-1])), atol=1e-5)


@pytest.mark.parametrize("version", ["1", "2"])
def test_cohere_and_jina(client: httpx.Client, expected: np.ndarray, version: str) -> None:
    documents = [{"text": text, "id": place} if place % 2 else text for place, text in enumerate(TEXTS)]
    body = {"model": "any", "query": QUERY, "documents": documents, "top_n": 2, "return_documents": True}
    found = client.post(f"/v{version}/rerank", json=body).json()
    assert set(found) == {"id", "model", "results", "usage", "meta"}
    assert found["meta"]["api_version"] == {"version": version}
    assert found["usage"]["total_tokens"] == found["meta"]["tokens"]["input_tokens"] > 0
    best = np.argsort(-expected, kind="stable")[:2].tolist()
    assert [result["index"] for result in found["results"]] == best
    for result in found["results"]:
        given = documents[result["index"]]
        assert result["document"] == (given if isinstance(given, dict) else {"text": given})
        assert result["relevance_score"] == pytest.approx(1 / (1 + np.exp(-expected[result["index"]])), abs=1e-5)
    more = {"text": "why", "none": None, "deep": [{"none": None}], "number": 10**30}
    body = {"query": QUERY, "documents": [more], "return_documents": True}
    assert client.post(f"/v{version}/rerank", json=body).json()["results"][0]["document"] == more
    bare = client.post(f"/v{version}/rerank", json={"query": QUERY, "documents": TEXTS}).json()["results"]
    assert len(bare) == len(TEXTS)
    assert all("document" not in result for result in bare)


def test_vllm(client: httpx.Client, expected: np.ndarray) -> None:
    for body in ({"text_1": QUERY, "text_2": TEXTS}, {"text_1": [QUERY] * len(TEXTS), "text_2": TEXTS}):
        found = client.post("/score", json=body).json()
        assert found["object"] == "list"
        assert [each["index"] for each in found["data"]] == list(range(len(TEXTS)))
        np.testing.assert_allclose([each["score"] for each in found["data"]], expected, atol=1e-5)
    squashed = client.post("/score", json={"text_1": QUERY, "text_2": TEXTS, "use_activation": True}).json()["data"]
    np.testing.assert_allclose([each["score"] for each in squashed], 1 / (1 + np.exp(-expected)), atol=1e-5)
    for first, second in (("queries", "documents"), ("queries", "items"), ("data_1", "data_2")):
        assert client.post("/score", json={first: QUERY, second: TEXTS}).json()["data"] == found["data"]
    uneven = client.post("/score", json={"text_1": [QUERY] * 2, "text_2": TEXTS})
    assert uneven.status_code == 400
    assert "text_1 has 2 texts and text_2 5" in uneven.json()["error"]["message"]


@pytest.mark.parametrize("api", ["tei", "vllm"])
def test_a_server_of_ours_is_a_teacher_with_the_scores_of_its_model(client: httpx.Client, bert: Path, api: str) -> None:
    groups = tiny.groups(6, 5, most_words=20)
    asked = HttpTeacher(str(client.base_url), api=api, batch=3).score(groups)
    plain = CrossEncoderTeacher(bert, max_length=MOST, dtype="float32", device="cpu").score(groups)
    for there, here in zip(asked, plain, strict=True):
        np.testing.assert_allclose(there, here, atol=1e-5)


def test_cohere_gives_probabilities_to_our_client(client: httpx.Client, bert: Path) -> None:
    groups = tiny.groups(4, 5)
    asked = HttpTeacher(str(client.base_url), api="cohere", scores="probabilities").score(groups)
    plain = CrossEncoderTeacher(bert, max_length=MOST, dtype="float32", device="cpu").score(groups)
    for there, here in zip(asked, plain, strict=True):
        np.testing.assert_allclose(there, here, atol=1e-4)


def test_what_is_too_long_is_cut_from_either_side_or_refused(client: httpx.Client, bert: Path) -> None:
    long = " ".join(tiny.WORDS * 4)
    for direction in ("Right", "Left"):
        body = {"query": QUERY, "texts": [long], "raw_scores": True, "truncation_direction": direction}
        score = client.post("/rerank", json=body).json()[0]["score"]
        assert score == pytest.approx(logits(bert, [(QUERY, long)], direction.lower())[0], abs=1e-5)
    refused = client.post("/rerank", json={"query": QUERY, "texts": [long], "truncate": False})
    assert refused.status_code == 413
    given = len(AutoTokenizer.from_pretrained(bert)(QUERY, long)["input_ids"])
    message = f"Input validation error: `inputs` must have less than {MOST + 1} tokens. Given: {given}"
    assert refused.json() == {"error": message, "error_type": "Validation"}
    fits = client.post("/rerank", json={"query": QUERY, "texts": ["why"], "truncate": False})
    assert fits.status_code == 200


def test_a_document_is_read_as_far_as_is_said(client: httpx.Client, bert: Path) -> None:
    body = {"query": QUERY, "documents": ["river stone garden paper candle"], "max_tokens_per_doc": 2}
    score = client.post("/v2/rerank", json=body).json()["results"][0]["relevance_score"]
    assert score == pytest.approx(1 / (1 + np.exp(-logits(bert, [(QUERY, "river stone")])[0])), abs=1e-5)
    for most in ("3.0", "1" + "0" * 300):
        sent = f'{{"query": "why", "documents": ["river", ""], "max_tokens_per_doc": {most}, "top_n": {most}}}'
        answer = client.post("/v2/rerank", content=sent, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200


def test_info_is_teis_and_names_no_path(client: httpx.Client, bert: Path) -> None:
    info = client.get("/info").json()
    assert info["model_id"] == bert.name
    assert info["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert (info["max_input_length"], info["max_client_batch_size"], info["model_dtype"]) == (MOST, 1_000, "float32")


def test_metrics_count_by_path_and_status(client: httpx.Client) -> None:
    line = 'distilrank_requests_total{path="/rerank",status="200"}'
    before, pairs = metric(client, line), metric(client, "distilrank_pairs_total")
    client.post("/rerank", json={"query": QUERY, "texts": TEXTS})
    client.get("/a/path/that/a/client/made/up")
    assert metric(client, line) == before + 1
    assert metric(client, "distilrank_pairs_total") == pairs + len(TEXTS)
    assert metric(client, 'distilrank_requests_total{path="other",status="404"}') >= 1
    assert metric(client, "distilrank_queue_pairs") == 0
    assert metric(client, "distilrank_batch_tokens_count") > 0
    assert "made/up" not in client.get("/metrics").text


def test_health_docs_and_page_need_no_network(client: httpx.Client) -> None:
    assert client.get("/health").status_code == 200
    for path in ("/", "/docs", "/page.js", "/page.css"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "://" not in answer.text
    assert client.get("/docs/static/swagger-ui-bundle.js").status_code == 200
    assert set(client.get("/openapi.json").json()["paths"]) == {
        "/rerank", "/v1/rerank", "/v2/rerank", "/score", "/health", "/info", "/metrics",
    }  # fmt: skip


def test_windows_of_the_server_are_those_of_the_engine(bert: Path) -> None:
    from distilrank.engines.classifier import Reranker

    long = [" ".join(tiny.WORDS * 3), "why", " ".join(tiny.WORDS[::-1] * 2)]
    expected = Reranker(bert, max_length=40, dtype="float32", device="cpu", windows=6).score([tiny.group(QUERY, *long)])[0]
    with running(bert, max_length=40, windows=6) as client:
        found = client.post("/score", json={"text_1": QUERY, "text_2": long}).json()["data"]
        np.testing.assert_allclose([each["score"] for each in found], expected, atol=1e-5)
        refused = client.post("/rerank", json={"query": "river " * 38, "texts": ["why"]})
        assert refused.status_code == 413
        assert "windows of 40 that overlap by 6" in refused.json()["error"]
        assert "river" not in refused.text


def test_a_model_is_not_asked_beyond_its_positions(bert: Path) -> None:
    long = [" ".join(tiny.WORDS * 40)]
    with running(bert, max_length=2_000) as client:  # its tokenizer names no limit
        assert client.get("/info").json()["max_input_length"] == 512
        score = client.post("/score", json={"text_1": QUERY, "text_2": long}).json()["data"][0]["score"]
        assert score == pytest.approx(logits(bert, [(QUERY, long[0])], most=512)[0], abs=1e-5)


def test_ties_keep_their_order_and_numbers_their_value() -> None:
    assert best_first(np.array([1, 3, 1, 3], dtype=np.float32)) == [1, 3, 0, 2]
    extreme = sigmoid(np.array([-800, -30, 0, 30, 800], dtype=np.float32))
    np.testing.assert_allclose(extreme, [0, 9.3576e-14, 0.5, 1, 1], rtol=1e-4)
    assert shortest(np.float32(0.1)) == 0.1
    assert np.float32(shortest(np.float32(1 / 3))) == np.float32(1 / 3)
