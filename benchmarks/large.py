"""A model of bge-reranker-v2-m3's shape (XLM-R-large, vocabulary of 250,002) with random weights, for speed alone."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import tiny

SHAPE = {
    "vocab_size": 250_002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 8194,
}


def large_model(folder: Path, device: str, spread: float) -> Path:
    """The model in a folder, made on a device, weights of a deviation; its tokenizer takes a word for a token."""
    tiny.xlmr_folder(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    for key, value in (SHAPE | {"initializer_range": spread}).items():
        setattr(config, key, value)
    torch.manual_seed(0)
    with torch.device(device):
        transformers.XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    return folder
