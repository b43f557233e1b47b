"""Tiny random models with tokenizers of their own, and groups of made-up text: all that a quick test needs."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from distilrank.records import Group, Passage

_WORDS = (
    "river stone bridge market window garden silver paper candle engine forest winter summer letter castle "
    "harbour how why what when does open close build break carry follow gather measure repeat return the a of "
    "in to is and"
)
WORDS = _WORDS.split()
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def text(rng: random.Random, fewest: int = 2, most: int = 12) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(fewest, most)))


def groups(count: int, passages: int = 4, *, seed: int = 0, most_words: int = 12) -> list[Group]:
    """Queries with distinct texts and distinct passages; the first passage is labelled 1 and holds the query's words."""
    rng = random.Random(seed)
    result = []
    for number in range(count):
        query = f"{text(rng, 2, 5)} {number}"
        texts = [f"{query} {text(rng)}", *(text(rng, 1, most_words) + f" {place}" for place in range(1, passages))]
        result.append(Group(str(number), query, tuple(Passage(t, label=int(i == 0)) for i, t in enumerate(texts))))
    return result


def group(query: str, *passages: str) -> Group:
    return Group(query, query, tuple(map(Passage, passages)))


def byte_level(corpus: list[str], specials: tuple[str, ...] = SPECIALS, size: int = 500) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def causal_folder(folder: Path, name: str = "Qwen3", *, answers: str = "yes\nno\n", **config: Any) -> Path:
    """A causal language model whose tokenizer knows ChatML; `yes` and `no` are tokens where they are in `answers`."""
    core = byte_level([f"{word} {other}" for word in WORDS for other in WORDS[:6]] + answers.split("\n") * 500)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    more = {"num_key_value_heads": 2, "tie_word_embeddings": False, "vocab_size": len(tokenizer), "initializer_range": 0.3}
    if name == "Qwen3":
        more["head_dim"] = 8
    settings = getattr(transformers, f"{name}Config")(**SIZES | more | {"max_position_embeddings": 1024} | config)
    return saved(folder, getattr(transformers, f"{name}ForCausalLM"), settings, tokenizer)


def words_tokenizer() -> PreTrainedTokenizerFast:
    """BERT's: whole words, pieces and segment ids."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz0123456789?.,'-"))
    entries = special + WORDS + [c for c in letters if c not in WORDS] + [f"##{c}" for c in letters]
    core = Tokenizer(models.WordPiece(vocab={word: i for i, word in enumerate(entries)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=core, model_input_names=inputs, **names)


def bert_folder(folder: Path, *, num_labels: int = 1, **config: Any) -> Path:
    tokenizer = words_tokenizer()
    more = {"vocab_size": len(tokenizer), "max_position_embeddings": 512, "initializer_range": 0.1, "num_labels": num_labels}
    settings = transformers.BertConfig(**SIZES | more | config)
    return saved(folder, transformers.BertForSequenceClassification, settings, tokenizer)


def xlmr_folder(folder: Path) -> Path:
    """XLM-RoBERTa's way: no segment ids, two separators, padding is 1 and positions start after it."""
    core = byte_level([" ".join(WORDS)] * 20, ("<s>", "<pad>", "</s>", "<unk>", "<mask>"), 400)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, model_input_names=["input_ids", "attention_mask"], unk_token="<unk>", **names
    )
    more = {"vocab_size": len(tokenizer), "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}
    settings = transformers.XLMRobertaConfig(**SIZES | more | {"initializer_range": 0.3, "num_labels": 1})
    return saved(folder, transformers.XLMRobertaForSequenceClassification, settings, tokenizer)


def embedder_folder(folder: Path) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    tokenizer = words_tokenizer()
    settings = transformers.BertConfig(**SIZES | {"vocab_size": len(tokenizer), "initializer_range": 0.3})
    body = Transformer(str(saved(folder / "body", transformers.BertModel, settings, tokenizer)))
    SentenceTransformer(modules=[body, Pooling(32)], device="cpu").save(str(folder / "whole"))
    return folder / "whole"


def saved(folder: Path, model: Any, settings: Any, tokenizer: Any, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def with_head(source: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A copy of a model folder whose weights have been changed in place."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def zero_head(weights: dict[str, torch.Tensor]) -> None:
    weights["lm_head.weight"] = torch.zeros_like(weights["lm_head.weight"])
