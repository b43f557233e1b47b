"""A student's folder: opened for training, and written as an ordinary model that every tool opens."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from distilrank.engines.classifier import fp32_head
from distilrank.engines.flat import can_be_flat, first_position, flatten
from distilrank.engines.load import has_head
from distilrank.errors import UserError, first_line
from distilrank.progress import say
from distilrank.shards import whole_folder, write_text
from distilrank.students.tools import write_for_tools
from distilrank.versions import versions

RECORD = "distilrank.json"
"""The file in a model folder that says how it was trained."""


RATES = {512: (2e-4, 1e-4), math.inf: (2e-5, 2e-5)}
"""Learning rates by the largest hidden size they are for, up to one epoch and beyond. The bench's students have 384
(docs/quality.md); the published method taught one of 1,024 at 2e-5, and nothing larger has been tried here."""


def settled(folder: Path, settings: Any) -> Any:
    """The settings with what the student decides: the learning rate where it is `auto`, and a `max_length` for which it has
    positions, since beyond them a table is read past its end.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=settings.trust_remote_code)
    except (OSError, ValueError, KeyError):
        return settings  # opening the student will say what is wrong
    if settings.learning_rate == "auto":
        rates = next(rates for width, rates in RATES.items() if getattr(config, "hidden_size", math.inf) <= width)
        settings = settings.model_copy(update={"learning_rate": rates[settings.epochs > 1]})
    room = int(getattr(config, "max_position_embeddings", None) or settings.max_length)
    room -= first_position(config)
    if room >= settings.max_length:
        return settings
    say(f"  max_length {settings.max_length}: the student has positions for {room} tokens, where longer pairs are cut")
    return settings.model_copy(update={"max_length": room})


def open_student(folder: Path, settings: Any, device: str) -> Any:
    """The student as a cross-encoder with fp32 weights, one output, Identity activation and an fp32 head.

    Raises `UserError` when transformers does not open it as one.
    """
    import torch
    from safetensors import SafetensorError
    from sentence_transformers.cross_encoder import CrossEncoder
    from transformers import AutoConfig

    if not has_head(folder):
        say("  the student has no head yet: it gets a new one, so before training its order is chance")
    more = {"local_files_only": True, "trust_remote_code": settings.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(folder, **more)
        model = CrossEncoder(
            str(folder),
            num_labels=1,
            max_length=settings.max_length,
            activation_fn=torch.nn.Identity(),
            device=device,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
            config_kwargs={} if settings.dropout is None else dict.fromkeys(_dropouts(config), settings.dropout),
            **more,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{folder}: not a cross-encoder that transformers opens: {first_line(error)}") from error
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise UserError(f"{folder}: its weights do not fit a model with one output, as a reranker has it") from error
    body = fp32_head(model[0].model)
    # The published way stays as it is, but on a CPU, where SDPA's backward is slow.
    if can_be_flat(body) and (settings.mode == "groups" or device == "cpu"):
        flatten(body)
    elif settings.mode == "groups":
        say(f"  {body.config.model_type} is trained on padded batches: how to lay it flat is not known here")
    if settings.gradient_checkpointing:
        # Its new name in transformers, where the old one warns.
        enable = getattr(body, "activation_checkpointing_enable", None) or body.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model


def _dropouts(config: Any) -> list[str]:
    """What a configuration calls its dropouts: `hidden_dropout_prob` BERT's, `seq_classif_dropout` DistilBERT's head's."""
    held = config.to_dict()
    return [name for name, value in held.items() if "dropout" in name and not isinstance(value, (bool, str))]


def save_student(model: Any, folder: Path, record: dict[str, Any], card: str) -> None:
    """The model folder, whole or absent, with the record of its training."""
    used = versions("distilrank", "torch", "transformers", "sentence-transformers")
    with whole_folder(folder, ours=RECORD) as partial:
        # The library's own card would quote training texts in a folder that people publish.
        model.save_pretrained(str(partial), create_model_card=False)
        write_for_tools(partial, model.tokenizer, int(model.tokenizer.model_max_length))
        write_text(partial / "README.md", card)
        write_text(partial / RECORD, json.dumps(record | {"versions": used}, indent=1) + "\n")


def card(student: str, losses: str, steps: int, max_length: int, agreements: tuple[float, float]) -> str:
    """The model card: what it is and how it was taught, with no text of the training data."""
    agreement = ""
    if agreements[1] == agreements[1]:
        agreement = (
            f"\nAgreement with the teacher (nDCG@10 on validation queries): {agreements[0]:.4f} before, "
            f"{agreements[1]:.4f} after.\n"
        )
    return f"""---
library_name: sentence-transformers
pipeline_tag: text-ranking
tags: [cross-encoder, reranker, distilrank]
---

# A reranker distilled with distilrank

Made from `{student}` by {losses} in {steps:,} step{"s" * (steps != 1)}; its scores are raw logits (Identity activation),
larger is more relevant. `{RECORD}` holds every setting.
{agreement}
```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("path/to/this/folder", max_length={max_length})
model.predict([("a query", "a passage")])
```
"""
