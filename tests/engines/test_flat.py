"""A flat forward gives the logits and the gradients of a padded one, for each architecture."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.engines import kernels
from distilrank.engines.batches import moved
from distilrank.engines.flat import Size, can_be_flat, flat_batch, flatten
from distilrank.engines.kernels import FLAT

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 200,
    "num_labels": 1,
    "initializer_range": 0.2,
    "pad_token_id": 1,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Bert": {"pad_token_id": 0},
    "Roberta": {"type_vocab_size": 1},
    "XLMRoberta": {"type_vocab_size": 1},
    "XLMRobertaXL": {"type_vocab_size": 1},
    "Electra": {"pad_token_id": 0, "embedding_size": 16},
    "Gte": {"pad_token_id": 0},
    "NomicBert": {"pad_token_id": 0},
    "ModernBert": {"local_attention": 8, "global_attn_every_n_layers": 2, "cls_token_id": 3, "sep_token_id": 4},
}
# Some are younger than the oldest transformers that we run on.
ARCHITECTURES = {name: more for name, more in ARCHITECTURES.items() if hasattr(transformers, f"{name}Config")}
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=9)


def made(name: str, dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    settings = getattr(transformers, f"{name}Config")(**SIZES | ARCHITECTURES[name])
    model = getattr(transformers, f"{name}ForSequenceClassification")(settings).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return model


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The same weights twice: padded and flat."""
    padded = made(request.param)
    return padded, flatten(copy.deepcopy(padded))


def rows_of(lengths: list[int], model: Any) -> tuple[list[list[int]], list[list[int]] | None]:
    rng = np.random.default_rng(sum(lengths))
    ids = [rng.integers(5, 200, length).tolist() for length in lengths]
    types = [[int(i > length // 2) for i in range(length)] for length in lengths]
    return ids, types if getattr(model.config, "type_vocab_size", 0) > 1 else None


def padded_logits(model: Any, ids: list[list[int]], types: list[list[int]] | None) -> Any:
    longest, pad = max(map(len, ids)), model.config.pad_token_id
    inputs = {"input_ids": [row + [pad] * (longest - len(row)) for row in ids]}
    inputs["attention_mask"] = [[1] * len(row) + [0] * (longest - len(row)) for row in ids]
    if types is not None:
        inputs["token_type_ids"] = [row + [0] * (longest - len(row)) for row in types]
    return model(**{key: torch.tensor(value) for key, value in inputs.items()}).logits


def relative(found: Any, expected: Any) -> float:
    return float((found - expected).norm() / expected.norm())


@settings(max_examples=20)
@given(LENGTHS, st.integers(0, 60))
def test_logits_are_those_of_a_padded_forward(pair: tuple[Any, Any], lengths: list[int], slack: int) -> None:
    padded, flat = pair
    ids, types = rows_of(lengths, padded)
    with torch.no_grad():
        expected = padded_logits(padded, ids, types)
        for size in (None, Size(sum(lengths) + slack, len(lengths) + slack % 3, 40)):
            found = flat(**flat_batch(ids, types, flat.config, size=size)).logits
            assert len(found) == (size.pairs if size else len(lengths))
            assert relative(found[: len(lengths)], expected) < 1e-5


@settings(max_examples=8)
@given(LENGTHS, st.integers(0, 30))
def test_gradients_are_those_of_a_padded_backward(pair: tuple[Any, Any], lengths: list[int], slack: int) -> None:
    padded, flat = pair
    ids, types = rows_of(lengths, padded)
    padded_logits(padded, ids, types).square().sum().backward()
    size = Size(sum(lengths) + slack, len(lengths), 40)
    flat(**flat_batch(ids, types, flat.config, size=size)).logits.square().sum().backward()
    gradients = []
    for model in pair:
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        model.zero_grad(set_to_none=True)
    assert relative(gradients[1], gradients[0]) < 1e-4


def test_a_pair_does_not_depend_on_its_neighbours(pair: tuple[Any, Any]) -> None:
    _, flat = pair
    ids, types = rows_of([7, 30, 2, 19], flat)
    with torch.no_grad():
        whole = flat(**flat_batch(ids, types, flat.config)).logits
        for number in range(4):
            alone = flat(**flat_batch(ids[number : number + 1], types and types[number : number + 1], flat.config)).logits
            torch.testing.assert_close(alone[0], whole[number], atol=1e-5, rtol=1e-5)


@given(LENGTHS, st.integers(0, 200), st.integers(0, 5))
def test_every_token_belongs_to_a_pair_that_is_no_longer_than_the_longest(
    lengths: list[int], slack: int, missing: int
) -> None:
    size = Size(sum(lengths) + slack, len(lengths) + missing, 40)
    batch = flat_batch([[5] * length for length in lengths], None, transformers.XLMRobertaConfig(pad_token_id=1), size=size)
    bounds = batch[FLAT]["bounds"].tolist()
    assert (bounds[0], bounds[-1]) == (0, size.tokens)
    assert batch[FLAT]["longest"] == 40 >= max(np.diff(bounds))
    assert len(bounds) == 1 + size.pairs + -(-size.tokens // 40)  # the same for every batch of the size
    assert len(batch["firsts"]) == size.pairs
    assert batch["position_ids"].min() == 2
    assert len(set(batch[FLAT]["places"].tolist())) == size.tokens


@pytest.mark.parametrize("size", [Size(9, 5, 10), Size(20, 1, 10), Size(20, 2, 4)])
def test_what_does_not_fit_is_an_error(size: Size) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        flat_batch([[5] * 5, [5] * 5], None, transformers.BertConfig(), size=size)


def test_a_padded_batch_is_still_taken(pair: tuple[Any, Any]) -> None:
    ids, types = rows_of([7, 30, 2, 19], pair[0])
    with torch.no_grad():
        torch.testing.assert_close(
            padded_logits(pair[1], ids, types), padded_logits(pair[0], ids, types), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("name", ["XLMRoberta", "Bert"])
def test_after_the_last_attention_first_tokens_go_on_alone(name: str) -> None:
    model = flatten(made(name))
    widths = []
    for layer in model.base_model.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, args, output: widths.append(args[0].shape[1]))
    ids, types = rows_of([7, 30, 2, 19], model)
    with torch.no_grad():
        model(**flat_batch(ids, types, model.config))
    assert widths == [58] * (len(widths) - 1) + [4]


def test_an_unknown_encoder_or_pooling_is_not_flat() -> None:
    assert can_be_flat(made("XLMRoberta"))
    modern = made("ModernBert")
    modern.config.classifier_pooling = "mean"
    assert not can_be_flat(modern)
    config = transformers.DebertaV2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32)
    assert not can_be_flat(transformers.DebertaV2ForSequenceClassification(config))


def test_attention_dropout_is_kept_in_training() -> None:
    model = flatten(made("XLMRoberta"))
    model.config.attention_probs_dropout_prob = 0.5
    for layer in model.roberta.encoder.layer:
        layer.attention.self.dropout.p = 0.5
    model.train()
    batch = flat_batch([[5, 6, 7, 8]] * 3, None, model.config)
    assert model(**batch).logits.std() > 0
    model.eval()
    assert model(**batch).logits.std() < 1e-6


def dropped(query: Any, key: Any, value: Any, bounds: Any, longest: int, scaling: float, dropout: float) -> Any:
    places = torch.cat([torch.arange(n) + i * longest for i, n in enumerate(bounds.diff().tolist())])
    flat = {"bounds": bounds, "places": places, "longest": longest}
    return kernels._gridded(torch.nn.Identity(), query, key, value, flat, scaling, dropout, None)


class DroppedAnew(torch.autograd.Function):
    """Attention whose backward drops other weights than its forward did."""

    @staticmethod
    def forward(context: Any, value: Any, *others: Any) -> Any:
        context.others = (value.detach(), *others)
        return dropped(*others[:2], value, *others[2:])

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        value, *others = context.others
        value.requires_grad_()
        with torch.enable_grad():
            dropped(*others[:2], value, *others[2:]).backward(gradient)
        return value.grad, *[None] * len(others)


def test_dropout_that_differs_on_the_way_back_is_noticed() -> None:
    assert kernels.dropout_error(dropped, "cpu") < 0.05
    assert kernels.dropout_error(lambda query, key, value, *more: DroppedAnew.apply(value, query, key, *more), "cpu") > 0.05


@pytest.mark.gpu
def test_on_a_gpu_dropout_on_the_way_back_is_that_on_the_way_there() -> None:
    assert kernels.dropout_error(kernels._short) < 0.05
    assert kernels.dropout_error(kernels._flash) < 0.05
    # What it is there for; where this fails, torch has mended it, and `_efficient` can take dropout again.
    assert kernels.dropout_error(kernels._efficient) > 0.05


@pytest.mark.gpu
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_on_a_gpu_the_kernel_agrees(name: str) -> None:
    padded = made(name).cuda()
    flat = flatten(copy.deepcopy(padded))
    ids, types = rows_of([7, 130, 2, 19], padded)

    batch = moved(flat_batch(ids, types, flat.config, size=Size(256, 5, 130)), "cuda")
    expected = padded.cpu()
    with torch.no_grad():
        assert relative(flat(**batch).logits[:4].cpu(), padded_logits(expected, ids, types)) < 1e-4
