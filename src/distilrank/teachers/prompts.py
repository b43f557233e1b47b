"""Prompt templates: what a language model reads, piece by piece. No template calls a tokenizer's chat template."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from distilrank.errors import UserError, did_you_mean

DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True)
class YesNoTemplate:
    """A prompt after which the model says `positive` or `negative`.

    Prefix, body and suffix are tokenised apart and joined as token ids; the body is cut on the right, which cuts the
    passage that ends it, and never the prompt.
    """

    name: str
    prefix: str
    body: str
    suffix: str
    positive: str
    negative: str
    source: str


@dataclass(frozen=True)
class LikelihoodTemplate:
    """A prompt around a passage after which a likely query follows.

    `before`, passage, `after` and query are tokenised apart and joined as token ids; only the passage is cut.
    """

    name: str
    before: str
    after: str
    source: str


QWEN3_RERANKER = YesNoTemplate(
    name="qwen3-reranker",
    prefix=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    ),
    body="<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {passage}",
    suffix="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    positive="yes",
    negative="no",
    source="model card of Qwen/Qwen3-Reranker-8B",
)

_QUERY_GENERATION = "query likelihood, Sachan et al. 2022 (arXiv 2204.07496)"

YES_NO = {template.name: template for template in (QWEN3_RERANKER,)}
LIKELIHOOD = {
    template.name: template
    for template in (
        LikelihoodTemplate(
            name="chatml-question",
            before="<|im_start|>user\nWrite a question that this passage answers.\n\n",
            after="<|im_end|>\n<|im_start|>assistant\n",
            source=_QUERY_GENERATION,
        ),
        LikelihoodTemplate(
            name="chatml-docstring",
            before="<|im_start|>user\nWrite the docstring of this Python function in one sentence.\n\n",
            after='<|im_end|>\n<|im_start|>assistant\n"""',
            source=_QUERY_GENERATION,
        ),
    )
}


def yes_no_template(name: str) -> YesNoTemplate:
    """The template of that name. Raises `UserError` when there is none."""
    if name not in YES_NO:
        raise UserError(f"no causal template {name!r}: {did_you_mean(name, YES_NO)}")
    return YES_NO[name]


def likelihood_template(name: str) -> LikelihoodTemplate:
    """The template of that name. Raises `UserError` when there is none."""
    if name not in LIKELIHOOD:
        raise UserError(f"no likelihood template {name!r}: {did_you_mean(name, LIKELIHOOD)}")
    return LIKELIHOOD[name]


def template_digest(template: YesNoTemplate | LikelihoodTemplate) -> str:
    """`name-digest`: two templates of one name with different words are different."""
    text = json.dumps(asdict(template), sort_keys=True, ensure_ascii=False)
    return f"{template.name}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"
