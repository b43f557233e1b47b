"""A packed decoder, a plain one and the model itself agree; memory that runs out costs time, not the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from distilrank.engines import decoder as module
from distilrank.engines.decoder import Decoder
from distilrank.errors import UserError

SEQUENCES = st.lists(st.lists(st.integers(5, 9), min_size=1, max_size=40), min_size=1, max_size=20)


def made(folder: Path, **changes: Any) -> Decoder:
    return Decoder(folder, **{"dtype": "float32", "device": "cpu", "max_length": 256} | changes)


def sums(hidden: Any, numbers: Any) -> Any:
    return hidden.float().sum(1)


def read(decoder: Decoder, sequences: list[list[int]], told: Any = lambda done: None) -> np.ndarray:
    arrays = [np.array(sequence, np.int32) for sequence in sequences]
    return decoder.read(decoder.lay_out(arrays, [1] * len(arrays)), sums, told)


@pytest.fixture(scope="module", params=["qwen", "llama"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def packed(folder: Path) -> Decoder:
    return made(folder)


@pytest.fixture(scope="module")
def alone(folder: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder).eval().model

    def state(sequence: list[int]) -> float:
        with torch.inference_mode():
            return float(model(torch.tensor([sequence])).last_hidden_state[0, -1].sum())

    return state


@settings(max_examples=25)
@given(SEQUENCES, st.integers(20, 200))
def test_packed_equals_one_by_one(packed: Decoder, alone: Any, sequences: list[list[int]], budget: int) -> None:
    packed.budget = budget
    found = read(packed, sequences)
    np.testing.assert_allclose(found, [alone(sequence) for sequence in sequences], atol=1e-4)
    assert found.dtype == np.float32


def test_plain_equals_one_by_one(folder: Path, alone: Any) -> None:
    sequences = [[5 + i % 7] * (1 + i % 30) for i in range(60)]
    np.testing.assert_allclose(read(made(folder, engine="plain"), sequences), [alone(s) for s in sequences], atol=1e-4)


def test_progress_counts_every_sequence(packed: Decoder) -> None:
    told: list[int] = []
    packed.budget = 30
    read(packed, [[5, 6, 7 + i] for i in range(40)], told.append)
    assert sum(told) == 40


def test_nothing_is_read_from_nothing(packed: Decoder) -> None:
    assert len(read(packed, [])) == 0


def test_memory_that_runs_out_halves_the_rows_and_goes_on(
    folder: Path, alone: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = module.hidden_states
    lengths = []

    def tight(model: Any, row: Any, budget: int) -> Any:
        lengths.append(len(row.ids))
        if len(row.ids) > 60:
            raise torch.cuda.OutOfMemoryError
        return real(model, row, budget)

    monkeypatch.setattr(module, "hidden_states", tight)
    decoder = made(folder)
    decoder.budget = 200
    sequences = [[5 + i % 7] * (1 + i % 30) + [i] for i in range(5, 60)]
    np.testing.assert_allclose(read(decoder, sequences), [alone(sequence) for sequence in sequences], atol=1e-4)
    assert decoder.budget == 50
    assert "rows of 100 tokens" in capsys.readouterr().err
    assert max(lengths) > 100


def test_memory_too_small_for_one_prompt_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(model: Any, row: Any, budget: int) -> Any:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(module, "hidden_states", none)
    decoder = made(folder)
    decoder.budget = 64
    with pytest.raises(UserError, match="out of GPU memory"):
        read(decoder, [[5] * 40])


def test_an_unknown_engine_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="no engine 'fast': packed, plain"):
        made(folder, engine="fast")


def test_the_start_is_what_the_tokenizer_itself_puts_before_a_text(folder: Path, bert: Path) -> None:
    assert made(folder).start.tolist() == []
    assert made(bert).start.tolist() == [2]


def test_released_weights_are_loaded_again(folder: Path) -> None:
    decoder = made(folder)
    before = read(decoder, [[5, 6, 7]])
    decoder.release()
    assert "model" not in vars(decoder)
    np.testing.assert_array_equal(read(decoder, [[5, 6, 7]]), before)
