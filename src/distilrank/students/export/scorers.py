"""Scoring groups with an exported model: the same tokens and batches, whatever runs the model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.engines.batches import length_sorted, padded_batch, split_like
from distilrank.engines.classifier import TOKENS_A_BATCH, encode_pairs
from distilrank.errors import UserError
from distilrank.progress import Advance
from distilrank.records import Group

Inputs = dict[str, np.ndarray]
"""`input_ids`, `attention_mask` and, where the model has them, `token_type_ids`: int64 [rows, longest]."""
Forward = Callable[[Inputs], np.ndarray]
"""A padded batch to raw logits, float32 [rows]."""


def score(groups: Sequence[Group], tokenizer: Any, max_length: int, forward: Forward, advance: Advance) -> list[np.ndarray]:
    """Raw logits, float32 [passages] a group, in order; `advance` is told how many pairs are done."""
    result = np.empty(sum(len(group.passages) for group in groups), dtype=np.float32)
    for rows, inputs in batches(groups, tokenizer, max_length):
        result[rows] = forward(inputs)
        advance(len(rows))
    return split_like(result, [group.passages for group in groups])


def batches(groups: Sequence[Group], tokenizer: Any, max_length: int) -> list[tuple[np.ndarray, Inputs]]:
    """All pairs of some groups in padded batches of like length: (numbers of the pairs, inputs)."""
    queries = [group.query for group in groups for _ in group.passages]
    encoded = encode_pairs(tokenizer, queries, [p.text for group in groups for p in group.passages], max_length)
    found = []
    for rows in length_sorted([len(ids) for ids in encoded["input_ids"]], TOKENS_A_BATCH["cpu"]):
        chosen = {key: [values[row] for row in rows.tolist()] for key, values in encoded.items()}
        inputs = padded_batch(chosen, tokenizer.pad_token_id or 0)
        found.append((rows, {key: value.numpy() for key, value in inputs.items()}))
    return found


def onnx_forward(file: Path) -> Forward:
    """An ONNX file in onnxruntime on the CPU. Raises `UserError` when onnxruntime is not installed."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError("ONNX needs onnxruntime: pip install 'distilrank[export]'") from None

    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # else it takes all cores, whatever OMP_NUM_THREADS says
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = {node.name for node in session.get_inputs()}

    def forward(inputs: Inputs) -> np.ndarray:
        wanted = {name: value for name, value in inputs.items() if name in names}
        return np.asarray(session.run(["logits"], wanted)[0][:, 0])

    return forward


def openvino_library() -> Any:
    """The `openvino` package. Raises `UserError` when it is not installed."""
    # Its import would report to its maker without asking; without this module it has nothing to report with.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ModuleNotFoundError:
        raise UserError("OpenVINO needs its library: pip install 'distilrank[openvino]'") from None
    return openvino


def openvino_forward(file: Path) -> Forward:
    """An OpenVINO model on the CPU, in float32: where the CPU has bfloat16, OpenVINO would choose that by itself."""
    import torch

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino_library().compile_model(str(file), "CPU", settings)
    names = {name for node in compiled.inputs for name in node.names}

    def forward(inputs: Inputs) -> np.ndarray:
        return np.asarray(compiled({name: value for name, value in inputs.items() if name in names})["logits"][:, 0])

    return forward


def torch_forward(folder: Path, dtype: str) -> Forward:
    """A model folder in the precision that it is stored in, as transformers computes with it by default."""
    import torch

    from distilrank.engines.load import load_model

    model = load_model("AutoModelForSequenceClassification", folder, dtype, "cpu")

    def forward(inputs: Inputs) -> np.ndarray:
        with torch.inference_mode():
            logits = model(**{name: torch.from_numpy(value) for name, value in inputs.items()}).logits
        return np.asarray(logits[:, 0].float().numpy())

    return forward
