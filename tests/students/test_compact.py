"""A table of the tokens that occur trains to the weights that the whole table trains to, bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distilrank.engines.load import load_model
from distilrank.students.compact import CompactEmbedding, compact, restore
from distilrank.students.optimiser import GuardedAdamW


@pytest.fixture(scope="module", params=["bert", "xlmr"])
def model(request: pytest.FixtureRequest) -> Any:
    return load_model("AutoModelForSequenceClassification", request.getfixturevalue(request.param), "float32", "cpu")


def trained(model: Any, ids: Any, steps: int = 4) -> dict[str, Any]:
    groups = [{"params": list(model.parameters()), "weight_decay": 0.0}]
    optimiser = GuardedAdamW(groups, 1e-3, 0.01, "cpu")  # the norm is larger: clipping is at work
    mask = (ids != model.config.pad_token_id).long()
    for _ in range(steps):
        optimiser.zero_grad()
        model(input_ids=ids, attention_mask=mask).logits.square().sum().backward()
        optimiser.step()
    return model.state_dict()


def test_training_a_compact_table_gives_the_weights_of_training_the_whole_one(model: Any) -> None:
    pad, tokens = model.config.pad_token_id, np.array([2, 3, 9, 17, 30])
    ids = torch.from_numpy(np.random.default_rng(0).choice(tokens, (6, 8)))
    ids[2, 5:] = pad
    small, whole = copy.deepcopy(model), copy.deepcopy(model)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    compact(small, tokens)
    assert small.get_input_embeddings().weight.shape[0] == len(np.union1d(tokens, [pad]))
    trained(small, ids)
    restore(small)
    expected, found = trained(whole, ids), small.state_dict()
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)
    table = next(name for name in expected if "word_embeddings" in name)
    assert not torch.equal(expected[table], before[table])


def test_a_restored_model_is_the_one_it_was(model: Any, tmp_path: Path) -> None:
    small = copy.deepcopy(model)
    compact(small, np.array([5, 6]))
    restore(small)
    assert type(small.get_input_embeddings()) is torch.nn.Embedding
    assert small.get_input_embeddings().padding_idx == model.get_input_embeddings().padding_idx
    for name, value in model.state_dict().items():
        assert torch.equal(small.state_dict()[name], value)
    restore(small)  # where there is nothing to restore, nothing changes


def test_a_table_that_scales_what_it_finds_stays_whole(model: Any) -> None:
    class Scaled(torch.nn.Embedding):  # type: ignore[misc]
        def forward(self, ids: Any) -> Any:
            return 3 * super().forward(ids)

    scaled = copy.deepcopy(model)
    table = Scaled(50, 32)
    scaled.set_input_embeddings(table)
    compact(scaled, np.array([5, 6]))
    assert scaled.get_input_embeddings() is table


def test_a_token_that_is_not_in_the_table_is_an_error_and_not_another_token(model: Any) -> None:
    table = CompactEmbedding(model.get_input_embeddings(), np.array([1, 5, 6]))
    assert torch.equal(table(torch.tensor([5, 6])), model.get_input_embeddings()(torch.tensor([5, 6])))
    with pytest.raises(IndexError):
        table(torch.tensor([7]))
