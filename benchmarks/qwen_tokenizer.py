"""Qwen3's own tokenizer without a hub: made of the vocabulary that the wheel dashscope 2.0.2 carries.

python benchmarks/qwen_tokenizer.py DIR
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distilrank.data.sources import fetch

VOCABULARY = (
    "pypi:dashscope==2.0.2:dashscope/resources/qwen.tiktoken"
    "#sha256=0602d1800f7433bdb7953560986eaf5146454ed3988636c0a91963ba24e74258"
)
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIALS = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|> "
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> "
    "<|file_sep|> <tool_response> </tool_response> <think> </think>"
)


def qwen_ranks() -> dict[bytes, int]:
    """Token -> rank, as published."""
    lines = fetch(VOCABULARY).read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}


def write_qwen_tokenizer(folder: Path) -> Path:
    """Write a tokenizer folder that transformers opens."""
    of, letters = qwen_ranks(), _bytes_as_letters()

    def written(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    halves = [
        (rank, of[token[:cut]], of[token[cut:]], token[:cut], token[cut:])
        for token, rank in of.items()
        for cut in range(1, len(token))
        if token[:cut] in of and token[cut:] in of
    ]
    merges = [(written(left), written(right)) for *_, left, right in sorted(halves)]
    core = Tokenizer(models.BPE({written(token): rank for token, rank in of.items()}, merges))
    core.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIALS.split()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    return folder


def _bytes_as_letters() -> dict[int, str]:
    """GPT-2's way to write any byte as a printable letter."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return dict(zip([*kept, *sorted(set(range(256)) - set(kept))], map(chr, [*kept, *range(256, 324)]), strict=True))


if __name__ == "__main__":
    print(write_qwen_tokenizer(Path(sys.argv[1])))
