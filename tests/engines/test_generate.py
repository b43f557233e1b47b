"""Lines out of a language model: drawn as they should be, ended where a line ends, the same whatever stands beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from distilrank.engines import generate
from distilrank.engines.generate import Generator, _Draw, _LineEnds
from distilrank.errors import UserError

CHATS = [[{"role": "user", "content": f"{word} stone " * (1 + n)}] for n, word in enumerate(["river", "castle", "window"])]


def generator(folder: Path) -> Generator:
    return Generator(folder, dtype="float32", device="cpu")


def lines(made: Generator, chats: Any = CHATS, seeds: Any = (1, 2, 3), **changes: Any) -> list[str]:
    settings = {"most_tokens": 8, "temperature": 1.0, "top_p": 1.0} | changes
    return [line for _, line in sorted(pair for batch in made.lines(chats, list(seeds), **settings) for pair in batch)]


SHARED = [[{"role": "system", "content": "winter forest paper " * 15}, *chat] for chat in CHATS]


@pytest.mark.parametrize("chats", [CHATS, SHARED])
@pytest.mark.parametrize("family", ["qwen", "llama"])
def test_temperature_zero_is_greedy_generation_without_padding(
    family: str, chats: Any, request: pytest.FixtureRequest
) -> None:
    made = generator(request.getfixturevalue(family))
    rows = made.tokenizer([made.prompt(chat) for chat in chats])["input_ids"]
    assert (made._read_once(rows)[0] > 0) == (chats is SHARED)
    for chat, found in zip(chats, lines(made, chats, temperature=0.0), strict=True):
        ids = torch.tensor([made.tokenizer(made.prompt(chat))["input_ids"]])
        whole = made.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        text = made.tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)
        assert found == next((line.strip() for line in text.splitlines() if line.strip()), "")


def test_a_line_depends_on_its_seed_and_not_on_its_neighbours(qwen: Path) -> None:
    made = generator(qwen)
    for chats in (CHATS, SHARED):
        together = lines(made, chats)
        assert together == [lines(made, [chat], [seed])[0] for chat, seed in zip(chats, (1, 2, 3), strict=True)]
        assert together != lines(made, chats, seeds=(4, 5, 6))


def test_draws_have_the_softmaxs_frequencies() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.5]])
    draw = _Draw([7], 0.5, 1.0, "cpu")
    counts = np.bincount([int(draw(None, logits).argmax()) for _ in range(4_000)], minlength=5)
    assert chisquare(counts, 4_000 * (logits[0].double() / 0.5).softmax(-1).numpy()).pvalue > 0.01


def test_top_p_leaves_the_likeliest_and_no_others() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]).log()
    draw = _Draw([1, 2], 1.0, 0.75, "cpu")
    drawn = torch.stack([draw(None, logits).argmax(-1) for _ in range(200)])
    assert set(drawn[:, 0].tolist()) == {0, 1}
    assert set(drawn[:, 1].tolist()) == {2, 3}


def test_a_row_ends_at_a_line_end_that_comes_after_something() -> None:
    ends = _LineEnds(torch.tensor([False, True]), 1)  # token 1 is a line end
    assert ends(torch.tensor([[1, 0, 1], [1, 1, 1], [1, 1, 0]]), None).tolist() == [True, False, False]


def test_chats_go_through_the_models_own_template_where_it_has_one(qwen: Path) -> None:
    made = generator(qwen)
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert made.prompt(chat) == "s\n\nu\n"
    made.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ enable_thinking }}"
    assert made.prompt(chat) == "<system>s<user>uFalse"


def test_windows_and_batches_change_nothing(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = generator(qwen)
    whole = lines(made)
    monkeypatch.setitem(generate.PROMPTS_A_WINDOW, "cpu", 2)
    monkeypatch.setitem(generate.TOKENS_A_BATCH, "cpu", 1)
    assert lines(made) == whole


def test_a_prompt_that_does_not_fit_is_refused(qwen: Path) -> None:
    with pytest.raises(UserError, match=r"a prompt of [\d,]+ tokens does not fit: the model reads 1,024"):
        lines(generator(qwen), [[{"role": "user", "content": "river " * 1_200}]], [1])
