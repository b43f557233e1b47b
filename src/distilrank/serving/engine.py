"""How a model folder is computed: torch on a CPU or GPU, or onnxruntime on an exported model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from distilrank.engines.batches import Encoded, length_sorted, padded_arrays
from distilrank.engines.flat import first_position
from distilrank.engines.load import load_tokenizer, model_config
from distilrank.errors import UserError
from distilrank.serving.settings import ServeSettings

ONNX_FILES = ("onnx/model.onnx", "model.onnx", "onnx/model_quantized.onnx", "model_quantized.onnx")
"""Where `distilrank export` and the tools that read it keep the graph; the first that is there is served."""


NO_LIMIT = 1_000_000
"""What a tokenizer says that knows no limit is far beyond it."""
TOKENS_A_FORWARD = 2_048
"""Of a padded batch: what is of like length goes together, and activations stay in the caches."""


@dataclass(frozen=True)
class Engine:
    """A loaded model: raw logits, float32 [rows], of tokenised rows in any order, by one thread at a time."""

    name: str
    score: Callable[[Encoded], np.ndarray]
    tokenizer: Any
    labels: dict[str, str]
    dtype: str
    batch_tokens: int


def open_engine(folder: Path, settings: ServeSettings) -> Engine:
    """The model of a folder, loaded. Raises `UserError` when it is no reranker or the engine is not installed."""
    config = model_config(folder)
    labels = config.get("id2label") or {"0": "LABEL_0"}
    name = folder.resolve().name
    engine = (_onnx if settings.engine == "onnx" else _torch)(folder, name, labels, settings)
    if engine.tokenizer.model_max_length > NO_LIMIT and (positions := _positions(config)):
        engine.tokenizer.model_max_length = positions
    return engine


def _positions(config: dict[str, Any]) -> int | None:
    """The tokens that a model has positions for, which is all that is known where the tokenizer names no limit."""
    if not (positions := config.get("max_position_embeddings")):
        return None
    known = SimpleNamespace(model_type=config.get("model_type", ""), pad_token_id=config.get("pad_token_id") or 0)
    return int(positions - first_position(known))


def _torch(folder: Path, name: str, labels: dict[str, str], settings: ServeSettings) -> Engine:
    import torch

    from distilrank.engines.fast import FastReranker

    if _graphs(folder) and not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder}: an ONNX graph and no safetensors: use --engine onnx")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    model = FastReranker(folder, max_length=settings.max_length, dtype=settings.dtype, device=settings.device)
    tokens = settings.batch_tokens or (32_768 if model.device.startswith("cuda") else 4_096)
    return Engine(name, model.score_rows, model.tokenizer, labels, model.dtype, tokens)


def _onnx(folder: Path, name: str, labels: dict[str, str], settings: ServeSettings) -> Engine:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("--engine onnx needs onnxruntime: pip install 'distilrank[export]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads or 0
    options.log_severity_level = 3
    file = onnx_file(folder)
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes, one for each kind of damage
        raise UserError(f"{file}: not a graph that onnxruntime opens: {str(error).splitlines()[0]}") from None
    width = session.get_outputs()[0].shape[-1]
    outputs = width if isinstance(width, int) else len(labels)  # an axis may have a name in place of a size
    if outputs != 1:
        raise UserError(f"{folder}: {outputs} outputs; a reranker has one")
    tokenizer = load_tokenizer(folder)
    tokens = settings.batch_tokens or 4_096
    scorer = OnnxScorer(session, tokenizer.pad_token_id or 0)
    return Engine(name, scorer, tokenizer, labels, _onnx_dtype(folder, file), tokens)


def _onnx_dtype(folder: Path, file: Path) -> str:
    """int8 or float32, as `distilrank export` has noted it, else by the file's name."""
    try:
        return str(json.loads((folder / "export.json").read_text(encoding="utf-8"))["dtype"])
    except (OSError, ValueError, KeyError, TypeError):
        return "int8" if "int8" in file.name or "quantized" in file.name else "float32"


def onnx_file(folder: Path) -> Path:
    """The graph in an exported folder. Raises `UserError` when there is none, or several of unknown names."""
    for name in ONNX_FILES:
        if (folder / name).is_file():
            return folder / name
    found = _graphs(folder)
    if len(found) != 1:
        told = f"{len(found)} graphs, none called {ONNX_FILES[0]}" if found else "no .onnx file"
        raise UserError(f"{folder}: {told}: make one with `distilrank export MODEL -o DIR --format onnx`")
    return found[0]


def _graphs(folder: Path) -> list[Path]:
    return sorted({*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")})


class OnnxScorer:
    """A session's logits of rows in any order: length-sorted padded batches under a token budget."""

    def __init__(self, session: Any, pad: int) -> None:
        self.session, self.pad = session, pad
        self.inputs = {each.name for each in session.get_inputs()}

    def __call__(self, encoded: Encoded) -> np.ndarray:
        lengths = [len(row) for row in encoded["input_ids"]]
        result = np.empty(len(lengths), dtype=np.float32)
        for rows in length_sorted(lengths, TOKENS_A_FORWARD):
            chosen = {key: [values[row] for row in rows.tolist()] for key, values in encoded.items()}
            inputs = {key: value for key, value in padded_arrays(chosen, self.pad).items() if key in self.inputs}
            (logits, *_) = self.session.run(None, inputs)
            result[rows] = logits.reshape(len(rows), -1)[:, 0]
        return result
