"""An exported folder is found, opened and asked in padded batches; what it cannot be is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tiny
from distilrank.errors import UserError
from distilrank.serving import ServeSettings
from distilrank.serving.engine import ONNX_FILES, onnx_file, open_engine
from serving.servers import running

pytest.importorskip("onnxruntime")
SETTINGS = ServeSettings(engine="onnx", max_length=64, threads=1)


def summing(folder: Path, name: str = ONNX_FILES[0]) -> Path:
    """A graph whose logit is the sum of the tokens that are not padding, beside a tokenizer: no library's, known by hand."""
    tiny.words_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "LABEL_0"}}))
    inputs = [
        helper.make_tensor_value_info(each, TensorProto.INT64, ["batch", "sequence"])
        for each in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["kept"]),
        helper.make_node("Cast", ["kept"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers", "axes"], ["logits"], keepdims=1),
    ]
    graph = helper.make_graph(nodes, "summing", inputs, [output], [axes])
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / name)
    return folder


@pytest.mark.parametrize("name", [*ONNX_FILES, "onnx/model_O4.onnx"])
def test_a_graph_is_found_and_its_rows_are_scored_in_their_order(tmp_path: Path, name: str) -> None:
    engine = open_engine(summing(tmp_path, name), SETTINGS)
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 90, size=length).tolist() for length in rng.integers(1, 60, size=200)]
    found = engine.score({"input_ids": rows, "token_type_ids": [[0] * len(row) for row in rows]})
    np.testing.assert_array_equal(found, [sum(row) for row in rows])
    assert found.dtype == np.float32


def test_it_is_served(tmp_path: Path) -> None:
    folder, texts = summing(tmp_path), ["river stone", "garden", "why does the candle open"]
    tokenizer = tiny.words_tokenizer()
    expected = [sum(tokenizer("how", text)["input_ids"]) for text in texts]
    with running(folder, engine="onnx", threads=1) as client:
        data = client.post("/score", json={"text_1": "how", "text_2": texts}).json()["data"]
        assert [each["score"] for each in data] == expected
        assert client.get("/info").json()["model_dtype"] == "float32"


def test_a_classifier_of_several_labels_is_refused(tmp_path: Path) -> None:
    folder = summing(tmp_path)
    model = onnx.load(folder / ONNX_FILES[0])
    model.graph.node[-1].output[0] = "one"
    model.graph.node.append(helper.make_node("Concat", ["one", "one"], ["logits"], axis=1))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    onnx.save(model, folder / ONNX_FILES[0])
    with pytest.raises(UserError, match="2 outputs; a reranker has one"):
        open_engine(folder, SETTINGS)


def test_int8_is_told_as_such(tmp_path: Path) -> None:
    assert open_engine(summing(tmp_path / "a", "model_quantized.onnx"), SETTINGS).dtype == "int8"
    folder = summing(tmp_path / "b")
    (folder / "export.json").write_text('{"format": "onnx-int8", "dtype": "int8"}')
    assert open_engine(folder, SETTINGS).dtype == "int8"


def test_no_graph_several_and_a_broken_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.onnx file: make one with `distilrank export"):
        onnx_file(tmp_path)
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="2 graphs, none called onnx/model"):
        onnx_file(tmp_path)
    with pytest.raises(UserError, match="use --engine onnx"):
        open_engine(summing(tmp_path / "graph"), ServeSettings())
    broken = summing(tmp_path / "broken")
    (broken / ONNX_FILES[0]).write_bytes(b"not a graph")
    with pytest.raises(UserError, match="not a graph that onnxruntime opens"):
        open_engine(broken, SETTINGS)
