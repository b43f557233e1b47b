"""A language model as teacher by query likelihood: mean log p(query tokens | prompt around the passage).

Any causal language model can do it, without yes/no training (Sachan et al. 2022, arXiv 2204.07496). All the queries of
one passage share its prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distilrank.engines.load import device_of, dtype_of, load_model, load_tokenizer, weights_digest
from distilrank.engines.packing import Prefixed, branch_log_likelihoods
from distilrank.records import Group
from distilrank.teachers.base import Advance, TeacherIdentity, too_long
from distilrank.teachers.prompts import likelihood_template, template_digest


class LikelihoodTeacher:
    """Mean log-likelihood of the query's tokens after the passage; scores are negative, larger is more relevant."""

    shares: Literal["query", "passage"] = "passage"

    def __init__(
        self,
        folder: str | Path,
        *,
        template: str = "chatml-question",
        max_length: int = 512,
        dtype: str = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
    ) -> None:
        self.folder, self.max_length = Path(folder), max_length
        self.template = likelihood_template(template)
        self.device = device_of(device)
        self.dtype = dtype_of(dtype, self.device)
        self.trust_remote_code = trust_remote_code

    @cached_property
    def identity(self) -> TeacherIdentity:
        return TeacherIdentity(
            kind="likelihood",
            score="log-likelihood",
            weights=weights_digest(self.folder),
            dtype=self.dtype,
            max_length=self.max_length,
            template=template_digest(self.template),
        )

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.folder, trust_remote_code=self.trust_remote_code)

    @cached_property
    def model(self) -> Any:
        return load_model(
            "AutoModelForCausalLM", self.folder, self.dtype, self.device, trust_remote_code=self.trust_remote_code
        )

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return list(self.tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else []

    def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
        """Mean log-likelihoods, float32 [passages] a group."""
        before, after = self._ids([self.template.before, self.template.after])
        queries = self._ids([group.query for group in groups])
        asked_of: dict[str, list[tuple[int, int]]] = {}
        for number, group in enumerate(groups):
            for place, passage in enumerate(group.passages):
                asked_of.setdefault(passage.text, []).append((number, place))
        items = []
        for tokens, uses in zip(self._ids(list(asked_of)), asked_of.values(), strict=True):
            # A pair's score must not depend on who else asks of the passage: it is cut for the room of its own query.
            by_room: dict[int, list[tuple[int, int]]] = {}
            for number, place in uses:
                room = self.max_length - len(before) - len(after) - len(queries[number])
                if room < 1:
                    raise too_long(groups[number].query, self.max_length - room, self.max_length)
                by_room.setdefault(min(room, len(tokens)), []).append((number, place))
            for room, places in by_room.items():
                prefix = [*before, *tokens[:room], *after]
                items.append((Prefixed(prefix, [queries[number] for number, _ in places]), places))
        result = [np.empty(len(group.passages), dtype=np.float32) for group in groups]
        means = branch_log_likelihoods(self.model, [item for item, _ in items], advance)
        for (_, places), values in zip(items, means, strict=True):
            for (number, place), value in zip(places, values, strict=True):
                result[number][place] = value
        return result
