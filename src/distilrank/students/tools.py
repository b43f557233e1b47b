"""What a cross-encoder's folder says to tools other than the library that saved it, so that its order is the same in all.

Each entry is read by some tool's source (docs/compatibility.md says which): without them the tools refuse the folder, cut at
another length, or put a sigmoid on the logits, which makes ties of all scores above 17 in float32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

IDENTITY = "torch.nn.modules.linear.Identity"
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LOCAL = ("is_local", "local_files_only", "name_or_path")
"""How the tokenizer was opened here, which is nobody's business elsewhere."""


def write_for_tools(folder: Path, tokenizer: Any, max_length: int, **config: Any) -> None:
    """Complete the JSON files of a folder with a cross-encoder; `config` are further entries of its `config.json`.

    `max_length` is the most tokens of a pair.
    """
    _change(folder / "config.json", _config(_read(folder / "config.json"), tokenizer) | config)
    _change(folder / "tokenizer_config.json", _tokenizer_config(_read(folder / "tokenizer_config.json"), max_length))
    # transformers 5 writes it no more; flashrank does not start without it.
    special = {name: str(getattr(tokenizer, name)) for name in SPECIAL if getattr(tokenizer, name, None)}
    _change(folder / "special_tokens_map.json", special)
    # Text Embeddings Inference does not start where this file is there without a length.
    lengths = {"max_seq_length": max_length, "do_lower_case": False}
    _change(folder / "sentence_bert_config.json", _read(folder / "sentence_bert_config.json") | lengths)


def _config(config: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """One output that is a raw logit, in every tool's words."""
    entries = {key: value for key, value in config.items() if key != "_name_or_path"}
    known = dict(config.get("sentence_transformers") or {})
    entries |= {
        "problem_type": "regression",  # transformers' pipeline: no sigmoid, no softmax
        "sentence_transformers": known | {"activation_fn": IDENTITY},  # sentence-transformers 4 and 5, vLLM
        "sbert_ce_default_activation_function": IDENTITY,  # sentence-transformers up to 3
    }
    if config.get("pad_token_id") is None:
        entries["pad_token_id"] = tokenizer.pad_token_id or 0
    return entries


def _tokenizer_config(config: dict[str, Any], max_length: int) -> dict[str, Any]:
    entries = {key: value for key, value in config.items() if key not in _LOCAL} | {"model_max_length": max_length}
    if entries.get("tokenizer_class") == "TokenizersBackend":
        entries["tokenizer_class"] = "PreTrainedTokenizerFast"  # the same class by the name that transformers 4 knows, too
    return entries


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _change(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
