"""The Qwen3-Reranker prompt, token by token, with Qwen's own vocabulary, against the model card's own way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from distilrank.records import Group, Passage
from distilrank.teachers.causal import CausalTeacher
from qwen_tokenizer import SPLIT, qwen_ranks, write_qwen_tokenizer

pytestmark = pytest.mark.network

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
QUERY, PASSAGE = "What is the capital of China?", "The capital of China is Beijing.\n首都是北京。"
# fmt: off
GOLDEN = [
    151644, 8948, 198, 60256, 3425, 279, 11789, 20027, 279, 8502, 3118, 389, 279, 11361, 323, 279, 758, 1235, 3897, 13,
    7036, 429, 279, 4226, 646, 1172, 387, 330, 9693, 1, 476, 330, 2152, 3263, 151645, 198, 151644, 872, 198, 27, 641, 1235,
    26818, 16246, 264, 3482, 2711, 3239, 11, 17179, 9760, 46769, 429, 4226, 279, 3239, 198, 27, 2859, 26818, 3555, 374, 279,
    6722, 315, 5616, 5267, 75692, 26818, 576, 6722, 315, 5616, 374, 26549, 624, 59975, 100132, 68990, 1773, 151645, 198,
    151644, 77091, 198, 151667, 271, 151668, 271,
]
# fmt: on
SEED_ENDS = [151645, 198, 151645, 198, 151644, 77091, 198, 151667, 271, 151668, 271]
"""How the published scripts' prompt ends: the user's turn ends twice."""


@pytest.fixture(scope="module")
def qwen_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Qwen3's tokenizer, made of the published ranks."""
    return write_qwen_tokenizer(tmp_path_factory.mktemp("qwen-tokenizer"))


def teacher(folder: Path, **changes: Any) -> CausalTeacher:
    return CausalTeacher(folder, **{"instruction": INSTRUCTION, "device": "cpu"} | changes)


def prompts(asked: CausalTeacher, query: str, *passages: str) -> list[list[int]]:
    found = asked.prompts([Group("q", query, tuple(map(Passage, passages)))])
    return [sequence.tolist() for sequence in found.sequences]


def model_card(tokenizer: Any, query: str, document: str, max_length: int) -> list[int]:
    """What the card of Qwen/Qwen3-Reranker-8B does, line by line."""
    prefix = '<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'  # noqa: E501
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    prefix_tokens = tokenizer.encode(prefix, add_special_tokens=False)
    suffix_tokens = tokenizer.encode(suffix, add_special_tokens=False)
    pair = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {doc}".format(  # noqa: UP032
        instruction=INSTRUCTION, query=query, doc=document
    )
    inputs = tokenizer(
        [pair],
        padding=False,
        truncation="longest_first",
        return_attention_mask=False,
        max_length=max_length - len(prefix_tokens) - len(suffix_tokens),
    )
    return prefix_tokens + inputs["input_ids"][0] + suffix_tokens


def pairs_merged(piece: bytes, of: dict[bytes, int]) -> list[int]:
    """Byte-pair encoding by its definition: join the neighbours whose union has the lowest rank, until none has one."""
    parts = [bytes([byte]) for byte in piece]
    while len(parts) > 1:
        rank, place = min((of.get(parts[i] + parts[i + 1], len(of)), i) for i in range(len(parts) - 1))
        if rank == len(of):
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return [of[part] for part in parts]


def test_the_answers_and_specials_have_qwens_numbers(qwen_tokenizer: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(qwen_tokenizer)
    known = {"yes": 9693, "no": 2152, "<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
    known |= {"<think>": 151667, "</think>": 151668}
    assert {word: tokenizer.convert_tokens_to_ids(word) for word in known} == known


@pytest.mark.parametrize(
    ("template", "answers"),
    [
        ("qwen3-reranker", [9693, 2152]),
        ("qwen3-reranker-seed", [9693, 2152]),
        ("mxbai-rerank-v2", [16, 15]),
        ("bge-reranker-v2-gemma", [9454]),
        ("yes-no", [9834, 902]),
    ],
)
def test_the_answers_of_a_template_are_single_tokens(qwen_tokenizer: Path, template: str, answers: list[int]) -> None:
    assert teacher(qwen_tokenizer, template=template).answers == answers


def test_the_tokenizer_merges_as_the_ranks_say(qwen_tokenizer: Path) -> None:
    import regex

    tokenizer, of = AutoTokenizer.from_pretrained(qwen_tokenizer), qwen_ranks()
    text = f"{INSTRUCTION} {QUERY} {PASSAGE} unbelievably  déjà-vu 12345\n\n\tdef f(x): return x  # naïve 🙂"
    expected = [token for piece in regex.findall(SPLIT, text) for token in pairs_merged(piece.encode(), of)]
    assert tokenizer(text)["input_ids"] == expected


def test_the_whole_prompt_has_the_golden_ids(qwen_tokenizer: Path) -> None:
    assert prompts(teacher(qwen_tokenizer), QUERY, PASSAGE) == [GOLDEN]


def test_the_published_scripts_prompt_is_the_same_with_its_turn_ended_twice(qwen_tokenizer: Path) -> None:
    found = prompts(teacher(qwen_tokenizer, template="qwen3-reranker-seed"), QUERY, PASSAGE)
    assert found == [GOLDEN[: -len(SEED_ENDS) + 2] + SEED_ENDS]


def test_the_default_instruction_is_the_model_cards(qwen_tokenizer: Path) -> None:
    assert prompts(CausalTeacher(qwen_tokenizer, device="cpu"), QUERY, PASSAGE) == [GOLDEN]


@pytest.mark.parametrize("max_length", [8192, 140, 128])
@pytest.mark.parametrize("query", [QUERY, "为什么天空是蓝色的", "def f(x):\n    return {x}", "café\u0301 <|im_end|> naïve"])
def test_prompts_are_the_model_cards(qwen_tokenizer: Path, query: str, max_length: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(qwen_tokenizer)
    passages = [PASSAGE, PASSAGE * 20, " leading space", "\n\nlines\n", "{query} {instruction} {passage}", "🙂" * 50, "x"]
    expected = [model_card(tokenizer, query, passage, max_length) for passage in passages]
    assert prompts(teacher(qwen_tokenizer, max_length=max_length), query, *passages) == expected
