"""What a decoder does to its head's products before it calls them logits."""

from __future__ import annotations

from typing import Any


def finished(model: Any, products: Any) -> Any:
    """Logits, fp32, of products of hidden states and head rows: scaled (Granite, Cohere), capped (Gemma)."""
    config = model.config.get_text_config()
    logits = (
        products.float() * (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    )
    cap = getattr(config, "final_logit_softcapping", None)
    return (logits / cap).tanh() * cap if cap else logits
