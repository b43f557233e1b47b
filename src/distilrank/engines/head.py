"""What a decoder does to its head's products before it calls them logits."""

from __future__ import annotations

from typing import Any

from distilrank.errors import UserError


def finished(model: Any, products: Any) -> Any:
    """Logits, fp32, of products of hidden states and head rows: scaled (Granite, Cohere), capped (Gemma)."""
    config = model.config.get_text_config()
    logits = (
        products.float() * (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    )
    cap = getattr(config, "final_logit_softcapping", None)
    return (logits / cap).tanh() * cap if cap else logits


def refuse_odd_head(model: Any) -> None:
    """Raise `UserError` when the logits are not the last hidden states times the head, seen on a few tokens."""
    import torch

    head = model.get_output_embeddings()
    if head is None or model.base_model is model:
        raise UserError(f"{model.name_or_path}: {type(model).__name__} has no body and head apart: it cannot teach this way")
    ids = torch.arange(5, 13, device=model.device)[None]
    with torch.inference_mode():
        wanted = model(ids, use_cache=False).logits[0, -1].float()
        found = finished(model, head(model.base_model(ids, use_cache=False).last_hidden_state[0, -1:]))[0]
    if not bool((found - wanted).norm() <= 0.05 * wanted.norm()):
        raise UserError(
            f"{model.name_or_path}: {type(model).__name__} does more to its logits than a product with its head: it cannot "
            "teach this way"
        )
