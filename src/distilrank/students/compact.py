"""An embedding table of just the tokens that occur: a vocabulary of 250,002 rows costs 4 GB of gradients and moments.

A row whose token never occurs has no gradient, and without weight decay AdamW leaves it as it is: so training the rows that
occur, and putting them back, gives the weights that training the whole table gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class CompactEmbedding(torch.nn.Embedding):  # type: ignore[misc]
    """The rows of some tokens of an embedding table; it is asked by the tokens' own numbers."""

    def __init__(self, whole: torch.nn.Embedding, tokens: np.ndarray) -> None:
        """`tokens`: their numbers, ascending, the padding token's among them."""
        numbers = torch.from_numpy(tokens)
        place = torch.full((whole.num_embeddings,), -1)
        place[numbers] = torch.arange(len(tokens))
        padding = None if whole.padding_idx is None else int(place[whole.padding_idx])
        rows = whole.weight.detach()[numbers.to(whole.weight.device)].clone()
        super().__init__(len(tokens), whole.embedding_dim, padding_idx=padding, _weight=rows)
        self.register_buffer("place", place.to(rows.device), persistent=False)
        self.numbers, self.padding = numbers, whole.padding_idx
        self.whole = whole.weight.detach().to("cpu", copy=True)

    def forward(self, ids: Any) -> Any:
        """A token that is not among them has place -1, which no table has."""
        return super().forward(self.place[ids])

    def restored(self) -> torch.nn.Embedding:
        """The whole table with these rows as they are now."""
        table = self.whole.index_copy(0, self.numbers, self.weight.detach().cpu()).to(self.weight.device)
        return torch.nn.Embedding.from_pretrained(table, freeze=False, padding_idx=self.padding)


def compact(model: Any, tokens: np.ndarray) -> None:
    """Give a transformers model a table of these tokens; `restore` gives it the whole one back.

    A table that does more than looking up (some models scale what they find) stays as it is.
    """
    whole = model.get_input_embeddings()
    if type(whole) is not torch.nn.Embedding:
        return
    special = [token for token in (model.config.pad_token_id or 0, whole.padding_idx) if token is not None]
    model.set_input_embeddings(CompactEmbedding(whole, np.union1d(tokens, special).astype(np.int64)))


def restore(model: Any) -> None:
    """The whole table, where it was made compact."""
    table = model.get_input_embeddings()
    if isinstance(table, CompactEmbedding):
        model.set_input_embeddings(table.restored())
