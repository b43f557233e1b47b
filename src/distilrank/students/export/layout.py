"""What lies beside an exported model: the files that other tools look for, where they look for them.

Read in their sources: Text Embeddings Inference takes `config.json` (one label, an architecture that ends in
`Classification`, a padding token), `tokenizer.json`, the length in `sentence_bert_config.json`, and `model.onnx` or
`onnx/model.onnx`; infinity any `.onnx` file below the folder, by preference one whose name holds `quantize`; fastembed and
flashrank a named file beside `tokenizer.json`, `tokenizer_config.json` with `model_max_length` and `pad_token`,
`special_tokens_map.json` and `config.json` with `pad_token_id`; transformers.js `onnx/model.onnx`, or
`onnx/model_quantized.onnx` for `dtype: "q8"`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from distilrank.engines.load import load_tokenizer, model_config
from distilrank.students.folder import RECORD
from distilrank.students.tools import write_for_tools

MODEL, QUANTISED, OPENVINO = "onnx/model.onnx", "onnx/model_quantized.onnx", "openvino/openvino_model.xml"
KEPT = ("config.json", "README.md", RECORD, "LICENSE")


def length_of(folder: Path, tokenizer: Any) -> int:
    """The most tokens of a pair that a model is meant for: what it was trained with, else what its tokenizer says.

    A tokenizer that says nothing has a huge number; then the positions decide, at most 512.
    """
    limit = min(int(tokenizer.model_max_length), 1_000_000)
    try:
        return min(limit, int(json.loads((folder / RECORD).read_text(encoding="utf-8"))["settings"]["max_length"]))
    except (OSError, ValueError, KeyError, TypeError):
        return limit if limit < 1_000_000 else min(512, int(model_config(folder).get("max_position_embeddings", 512)))


def write_beside(source: Path, output: Path, max_length: int, **config: Any) -> None:
    """Write card, tokenizer and configuration into `output`; `config` are further entries of `config.json`."""
    for name in KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, output / name)
    tokenizer = load_tokenizer(source)
    tokenizer.save_pretrained(output)
    write_for_tools(output, tokenizer, max_length, **config)
