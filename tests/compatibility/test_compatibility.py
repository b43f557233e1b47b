"""A student's folder opened by the tools that people run, each in its own environment: the same scores, in the same order.

docs/compatibility.md is the table of these tests; with `-s` each cell is printed as a line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import transformers

import tiny
from compatibility import environments
from distilrank.demo.models import demo_model
from distilrank.engines.classifier import Reranker
from distilrank.records import Group, Passage
from distilrank.students.export import ExportSettings, export
from distilrank.students.export.texts import PASSAGES, QUERIES
from distilrank.students.folder import open_student, save_student
from distilrank.students.train import TrainSettings

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
GROUPS = [Group(query, query, tuple(map(Passage, PASSAGES))) for query in QUERIES[:2]]
STUDENTS = ("demo", "xlmr")
"""The demo's reranker (BERT) and a random XLM-RoBERTa, the architecture of bge-reranker-v2-m3."""

RAW = {
    "flagembedding": "flagembedding",
    "vllm": "vllm",
    "rerankers": "frameworks",
    "langchain": "frameworks",
    "llamaindex": "frameworks",
    "sentence_transformers": "frameworks",
    "transformers": "frameworks",
    "transformers_pipeline": "frameworks",
}
"""Tools that give raw logits of the trained folder, and their environments."""
OLDER = ("sentence_transformers", "transformers", "transformers_pipeline")
"""The same with transformers 4 and sentence-transformers 3."""


def xlmr(folder: Path) -> Path:
    """Its own class of tokenizer, too: FlagEmbedding asks that class for the special tokens. Heads are as wide as in
    bge-reranker-v2-m3: vLLM's kernels for CPUs know few widths.
    """
    from transformers import XLMRobertaTokenizer

    text = " ".join([*QUERIES, *PASSAGES])
    pieces = [f"▁{word}" for word in dict.fromkeys(text.split())] + sorted({*text, "▁"} - {" "})
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    scored = [(piece, -8.0 - place / len(pieces)) for place, piece in enumerate(pieces)]
    tokenizer = XLMRobertaTokenizer(vocab=[*special, *scored, ("<mask>", 0.0)])
    sizes = tiny.SIZES | {"vocab_size": len(tokenizer), "max_position_embeddings": 514, "type_vocab_size": 1}
    sizes |= {"hidden_size": 128, "num_attention_heads": 2}
    settings = transformers.XLMRobertaConfig(**sizes, pad_token_id=1, initializer_range=0.1, num_labels=1)
    return tiny.saved(folder, transformers.XLMRobertaForSequenceClassification, settings, tokenizer)


@pytest.fixture(scope="session")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both, written by the function with which a training ends."""
    where = tmp_path_factory.mktemp("students")
    sources = {"demo": demo_model("reranker"), "xlmr": xlmr(where / "source")}
    settings = TrainSettings(precision="float32", device="cpu")
    for name, source in sources.items():
        record = {"settings": settings.model_dump()}
        save_student(open_student(source, settings, "cpu"), where / name, record, "# A card\n")
    return {name: where / name for name in sources}


@pytest.fixture(scope="session")
def exported(students: dict[str, Path]) -> dict[str, Path]:
    """Both as ONNX."""
    folders = {name: folder.with_name(f"{name}-onnx") for name, folder in students.items()}
    for name, folder in folders.items():
        export(students[name], folder, ExportSettings("onnx"), GROUPS)
    return folders


@cache
def wanted(student: Path) -> list[np.ndarray]:
    """Our own fp32 logits."""
    return Reranker(student, dtype="float32", device="cpu").score(GROUPS)


def asked(command: list[str], group: Group) -> np.ndarray:
    """What a tool prints for a group, in a process that reaches no hub."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "", "DO_NOT_TRACK": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "0-1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }  # fmt: skip
    text = json.dumps({"query": group.query, "passages": [passage.text for passage in group.passages]})
    done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True, check=False, timeout=1_800)
    assert done.returncode == 0, done.stderr[-3_000:]
    return np.array(json.loads(done.stdout.strip().splitlines()[-1]))


def by(tool: str, environment: str, folder: Path, group: Group) -> np.ndarray:
    return asked([str(environments.python(environment)), str(HERE / "ask.py"), tool, str(folder)], group)


def same(found: np.ndarray, wanted: np.ndarray, tool: str, student: str, environment: str | None = None) -> None:
    """Both agree to 1e-4; told with the versions that an environment holds."""
    difference = float(np.abs(found - wanted).max())
    told = environments.versions(environment) if environment else environments.JAVASCRIPT
    print(json.dumps({"tool": tool, "student": student, "largest_difference": difference, "versions": told}), flush=True)
    assert difference <= 1e-4


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("tool", RAW)
def test_raw_logits(tool: str, name: str, students: dict[str, Path]) -> None:
    same(by(tool, RAW[tool], students[name], GROUPS[0]), wanted(students[name])[0], tool, name, RAW[tool])


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("tool", OLDER)
def test_raw_logits_with_the_libraries_of_last_year(tool: str, name: str, students: dict[str, Path]) -> None:
    same(by(tool, "older", students[name], GROUPS[0]), wanted(students[name])[0], tool, name, "older")


@pytest.mark.parametrize("name", STUDENTS)
def test_fastembed_gives_raw_logits(name: str, students: dict[str, Path], exported: dict[str, Path]) -> None:
    same(by("fastembed", "onnx", exported[name], GROUPS[1]), wanted(students[name])[1], "fastembed", name, "onnx")


@pytest.mark.parametrize("name", STUDENTS)
def test_flashrank_gives_sigmoids(name: str, students: dict[str, Path], exported: dict[str, Path]) -> None:
    logits = wanted(students[name])[1]
    same(by("flashrank", "onnx", exported[name], GROUPS[1]), 1 / (1 + np.exp(-logits)), "flashrank", name, "onnx")


@pytest.mark.parametrize("name", STUDENTS)
def test_transformers_js_gives_raw_logits(name: str, students: dict[str, Path], exported: dict[str, Path]) -> None:
    command = ["node", str(HERE / "ask.mjs"), str(environments.javascript()), str(exported[name]), "fp32"]
    same(asked(command, GROUPS[0]), wanted(students[name])[0], "transformers.js", name)
