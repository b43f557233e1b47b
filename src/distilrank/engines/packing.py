"""Running a decoder over trie rows: transformers' own model, explicit positions, and the trie as attention mask.

On CUDA the mask is a FlexAttention BlockMask and the layers are compiled one by one, for rows of the budget and once more
for any other length; on a CPU it is a dense mask, of which SDPA gets a stretch at a time.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np

from distilrank.engines.stretches import attends_by_stretches, stretches, use_stretches
from distilrank.engines.trie import Row, dense_mask, lay_out
from distilrank.errors import UserError

BLOCK = 128
STEP = 1_024
"""Rows on CUDA are padded to the budget or, where they are much shorter, to a multiple of this."""
READ = "_distilrank_places"
"""Where a model keeps the places that are read, while it computes a row."""
POSITIONS_MADE_BY_LENGTH = ("dynamic", "longrope")
"""Kinds of rotary embedding whose angles depend on the longest sequence at hand, not on the token's position alone."""


def refuse_unpackable(model: Any, longest: int) -> None:
    """Raise `UserError` when the decoder cannot compute a packed row exactly, for sequences of up to `longest` tokens."""
    config = model.config.get_text_config()
    rotary = next(iter(rotary_kinds(config) & set(POSITIONS_MADE_BY_LENGTH)), None)
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    window = window or getattr(config, "window_size", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    chunk = getattr(config, "attention_chunk_size", None)
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        reason = "takes no position ids"
    elif other := kinds - {"full_attention", "sliding_attention"}:
        reason = f"has layers of the kind {sorted(other)[0]}, which carry a state from token to token"
    elif getattr(config, "alibi", False):
        reason = "counts positions along the row (ALiBi)"
    elif rotary:
        reason = f"has {rotary} rotary positions, which depend on the other sequences of a batch"
    elif min(window or math.inf, chunk or math.inf) < longest:
        seen = min(window or math.inf, chunk or math.inf)
        raise UserError(
            f"{model.name_or_path}: some layers see {seen} tokens at a time, and prompts may take {longest}: "
            f"set max_length to {seen}, or the engine to plain"
        )
    elif not _packs(model):
        reason = "computes something else in a row than alone (seen on a few tokens)"
    else:
        return
    raise UserError(
        f"{model.name_or_path}: {config.model_type} {reason}, so it cannot be packed exactly: set engine to plain"
    )


def rotary_kinds(config: Any) -> set[str]:
    """The kinds of rotary embedding that a model has; some have one for each type of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)] or [parameters]
    return {kind for found in nested if (kind := found.get("rope_type"))}


def _packs(model: Any) -> bool:
    """Whether a few short sequences have in a row the last hidden states that they have alone; before `make_ready`."""
    import torch

    stem = np.arange(5, 17, dtype=np.int32)
    sequences = [np.concatenate([stem, np.full(n, 20 + n, np.int32)]) for n in (1, 4, 9)]
    with torch.inference_mode():
        alone = [
            model.base_model(torch.from_numpy(s)[None].long().to(model.device), use_cache=False).last_hidden_state[0, -1]
            for s in sequences
        ]
        (row,) = lay_out(sequences, [1] * len(sequences), STEP)
        together = hidden_states(model, row, STEP)
    wanted = torch.stack([alone[number] for number in row.numbers]).float()
    off = (together.float() - wanted).norm() / wanted.norm()
    return bool(off < (1e-3 if model.dtype == torch.float32 else 0.1))


def make_ready(model: Any) -> None:
    """Spare the last layer what nobody reads; FlexAttention and compiled layers on CUDA, stretches on a CPU."""
    import torch

    _read_only_where_asked(model)
    if model.device.type != "cuda":
        use_stretches(model)
        return
    try:
        model.set_attn_implementation("flex_attention")
    except ValueError as error:
        raise UserError(f"{model.name_or_path}: has no FlexAttention here: set engine to plain ({error})") from None
    # Layers of several kinds (float8 or not, with a window or not) have a graph each, for the budget and for other lengths.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for layer in getattr(model.base_model, "layers", ()):
        layer.compile()


def _read_only_where_asked(model: Any) -> None:
    """Let the last layer's MLP and output projection compute only the places that are read; the others become zero.

    What comes after the last layer's attention is a matter of each token alone, so this changes nothing that is read, and
    saves about the work of one layer.
    """
    import torch

    last = model.base_model.layers[-1] if getattr(model.base_model, "layers", None) else None
    modules: list[Any] = [getattr(last, "mlp", None), getattr(getattr(last, "self_attn", None), "o_proj", None)]
    if not all(modules) or not hasattr(modules[0], "down_proj"):
        return  # a mixture of experts, or a layer of another make
    for module in modules:
        module.forward = torch.compiler.disable(_Spared(model, module.forward))


class _Spared:
    """A token-wise function on the places that `hidden_states` is about to read; on every token for any other caller."""

    def __init__(self, model: Any, function: Any) -> None:
        self.model, self.function = model, function

    def __call__(self, x: Any) -> Any:
        places = vars(self.model).get(READ)
        if places is None:
            return self.function(x)
        some = self.function(x[:, places])
        return some.new_zeros(*x.shape[:-1], some.shape[-1]).index_copy(1, places, some)


def hidden_states(model: Any, row: Row, budget: int) -> Any:
    """The last hidden states at the row's places, one sequence after another: [places, width]."""
    import torch

    length = len(row.ids)
    if model.device.type == "cuda":
        length = budget if 0.75 * budget < length <= budget else -(-length // STEP) * STEP
    ids = np.zeros((3, length), dtype=np.int32)
    ids[0, : len(row.ids)], ids[1, : len(row.ids)] = row.ids, row.positions
    ids[2] = np.arange(1, length + 1)  # padding sees itself only
    ids[2, : len(row.ids)] = row.ends
    on_device = torch.from_numpy(ids).to(model.device, non_blocking=True)
    ends = on_device[2]
    more: dict[str, Any] = {}
    if model.config._attn_implementation == "flex_attention":
        mask = block_mask(ends)
    else:
        mask = dense_mask(ends, model.dtype)
        if attends_by_stretches(model):
            more["stretches"] = stretches(mask)
    places = np.concatenate(row.places)
    vars(model)[READ] = torch.from_numpy(np.unique(places)).to(model.device, non_blocking=True).long()
    try:
        states = model.base_model(
            input_ids=on_device[:1].long(), position_ids=on_device[1:2].long(), attention_mask=mask, use_cache=False, **more
        ).last_hidden_state[0]
    finally:
        vars(model)[READ] = None
    return states[torch.from_numpy(places).to(model.device, non_blocking=True).long()]


def block_mask(ends: Any) -> Any:
    """The BlockMask of `k <= q < ends[k]`, exact, from the extreme ends of each block of 128 tokens."""
    import torch
    from torch.nn.attention.flex_attention import BlockMask

    blocks = len(ends) // BLOCK
    of_block = ends.view(blocks, BLOCK)
    latest, earliest = of_block.amax(1)[None], of_block.amin(1)[None]
    number = torch.arange(blocks, device=ends.device)
    q, k = number[:, None], number[None]
    some = (q >= k) & (latest > q * BLOCK)
    whole = (q > k) & (earliest >= (q + 1) * BLOCK)

    def listed(chosen: Any) -> tuple[Any, Any]:
        first = torch.argsort(chosen.to(torch.int8), dim=-1, descending=True, stable=True)
        return chosen.sum(-1, dtype=torch.int32)[None, None], first.to(torch.int32)[None, None]

    def sees(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return (query >= key) & (query < ends[key])

    size = (len(ends), len(ends))
    return BlockMask.from_kv_blocks(
        *listed(some & ~whole), *listed(whole), BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=size, compute_q_blocks=False
    )
