"""Attention over a trie row on a CPU: a stretch of queries at a time, against the keys that any of them may see.

In a row of 2,048 tokens a token sees its own prompt, a tenth of the row; a dense mask would make it pay for all of it.
"""

from __future__ import annotations

from typing import Any

NAME = "distilrank-stretches"
QUERIES = 256
MORE_THAN_PRODUCTS = ("s_aux", "softcap", "position_bias")
"""What a model may pass that changes attention itself."""


def use_stretches(model: Any) -> None:
    """Switch a transformers decoder to it where it would run SDPA; a forward without `stretches` stays SDPA."""
    if model.config._attn_implementation != "sdpa":
        return  # the model needs more of its attention than products (sinks, caps)
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def attends_by_stretches(model: Any) -> bool:
    """Whether the decoder has been switched."""
    return bool(model.config._attn_implementation == NAME)


def stretches(mask: Any) -> list[tuple[slice, Any, Any]]:
    """For each stretch of queries: where it lies, which keys it sees, and their part of the dense mask."""
    found = []
    for start in range(0, mask.shape[2], QUERIES):
        queries = slice(start, min(start + QUERIES, mask.shape[2]))
        rows = mask[:, :, queries]
        keys = (rows[0, 0] == 0).any(0).nonzero()[:, 0]
        found.append((queries, keys, rows[..., keys].contiguous()))
    return found


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    stretches: Any = None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Any, None]:
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if stretches is None or any(more.get(name) is not None for name in MORE_THAN_PRODUCTS):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)[0], None
    groups = query.shape[1] // key.shape[1]
    parts = []
    for queries, keys, sees in stretches:
        k, v = (x[:, :, keys].repeat_interleave(groups, dim=1) for x in (key, value))
        parts.append(
            torch.nn.functional.scaled_dot_product_attention(query[:, :, queries], k, v, attn_mask=sees, scale=scaling)
        )
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None
