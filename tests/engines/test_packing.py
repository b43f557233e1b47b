"""The mask is the trie's, block by block; what cannot be packed exactly is refused, and everything else is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from distilrank.engines.load import load_model
from distilrank.engines.packing import BLOCK, block_mask, hidden_states, make_ready, refuse_unpackable
from distilrank.engines.trie import dense_mask, lay_out
from distilrank.errors import UserError

EXACT = {
    "Qwen3": {},
    "Qwen2": {},
    "Llama": {},
    "Granite": {"logits_scaling": 4.0},
    "Gemma": {"head_dim": 8},
    "Gemma2": {"head_dim": 8, "sliding_window": 64},
    "Mistral": {"sliding_window": 64},
    "Phi3": {"pad_token_id": 0},
    "StableLm": {},
    "Nemotron": {},
    "GptOss": {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 64},
}
REFUSED = {
    "a window shorter than the prompts": ("Mistral", {"sliding_window": 16}, "set max_length to 16"),
    "positions by the longest sequence": (
        "Llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}},
        "dynamic rotary positions",
    ),
    "a window by another name": (
        "GPTNeo",
        {"num_layers": 2, "num_heads": 4, "window_size": 8, "attention_types": [[["global", "local"], 1]]},
        "see 8 tokens",
    ),
    "no position ids": ("Bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 4}, "takes no position ids"),
}


def some_ends(rng: np.random.Generator, tokens: int) -> np.ndarray:
    sequences = [rng.integers(0, 2, rng.integers(1, 60)).astype(np.int32) for _ in range(200)]
    row = next(lay_out(sequences, [1] * len(sequences), tokens))
    return np.concatenate([row.ends, np.arange(len(row.ends) + 1, tokens + 1, dtype=np.int32)])


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_the_block_mask_is_the_trie_block_by_block(seed: int) -> None:
    ends = torch.from_numpy(some_ends(np.random.default_rng(seed), 8 * BLOCK))
    sees = dense_mask(ends, torch.float32)[0, 0] == 0
    blocks = sees.view(8, BLOCK, 8, BLOCK).permute(0, 2, 1, 3).flatten(2)
    mask = block_mask(ends)
    assert torch.equal(mask.to_dense()[0, 0].bool(), blocks.any(-1))
    whole = torch.zeros(8, 8, dtype=torch.bool)
    for row in range(8):
        whole[row, mask.full_kv_indices[0, 0, row, : mask.full_kv_num_blocks[0, 0, row]].long()] = True
    assert torch.equal(whole & ~torch.eye(8, dtype=torch.bool), blocks.all(-1) & ~torch.eye(8, dtype=torch.bool))
    q, k = torch.meshgrid(torch.arange(len(ends)), torch.arange(len(ends)), indexing="ij")
    assert torch.equal(mask.mask_mod(None, None, q, k), sees)


@pytest.mark.parametrize("name", EXACT)
def test_each_kind_of_decoder_computes_in_a_row_what_it_computes_alone(tmp_path: Path, name: str) -> None:
    folder = tiny.causal_folder(tmp_path, name, **EXACT[name])
    model = load_model("AutoModelForCausalLM", folder, "float32", "cpu")
    rng = np.random.default_rng(0)
    stem = rng.integers(5, 250, 12).astype(np.int32)
    sequences = [np.concatenate([stem, rng.integers(5, 250, n).astype(np.int32)]) for n in (1, 5, 9, 30)]
    refuse_unpackable(model, 64)
    plain = [model.base_model(torch.from_numpy(s)[None].long()).last_hidden_state[0, -2:].detach() for s in sequences]
    make_ready(model)
    with torch.inference_mode():
        for row in lay_out(sequences, [2] * 4, 80):
            found = hidden_states(model, row, 80).split(2)
            for number, states in zip(row.numbers, found, strict=True):
                np.testing.assert_allclose(states, plain[number], atol=1e-4)
    again = model.base_model(torch.from_numpy(sequences[0])[None].long()).last_hidden_state[0, -2:].detach()
    np.testing.assert_allclose(again, plain[0], atol=1e-6)  # any other caller gets every token


@pytest.mark.parametrize("oddity", REFUSED)
def test_what_cannot_be_packed_exactly_is_refused_with_the_way_out(tmp_path: Path, oddity: str) -> None:
    name, config, message = REFUSED[oddity]
    model = load_model("AutoModelForCausalLM", tiny.causal_folder(tmp_path, name, **config), "float32", "cpu")
    with pytest.raises(UserError, match=message) as refused:
        refuse_unpackable(model, 64)
    assert "plain" in str(refused.value)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_a_gpu_rows_equal_plain_batches(tmp_path: Path, dtype: str) -> None:
    from distilrank.engines.decoder import Decoder

    sizes: dict[str, Any] = {"hidden_size": 128, "head_dim": 32, "num_hidden_layers": 4, "intermediate_size": 256}
    folder = tiny.causal_folder(tmp_path, **sizes)
    rng = np.random.default_rng(0)
    stems = [rng.integers(5, 250, 20).astype(np.int32) for _ in range(20)]
    sequences = [
        np.concatenate([s, rng.integers(5, 250, rng.integers(1, 90)).astype(np.int32)]) for s in stems for _ in range(9)
    ]
    results = []
    for engine in ("packed", "plain"):
        decoder = Decoder(folder, engine=engine, dtype=dtype, device="cuda", max_length=1_024)
        decoder.budget = 2_048
        laid = decoder.lay_out(sequences, [1] * len(sequences))
        results.append(decoder.read(laid, lambda hidden, numbers: hidden.float().mean(1)))
    scale = results[1].std()
    np.testing.assert_allclose(results[0], results[1], atol=(1e-4 if dtype == "float32" else 6e-2) * scale)
