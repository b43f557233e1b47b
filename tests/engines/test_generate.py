"""Lines out of a language model: drawn as they should be, ended where a line ends, the same whatever stands beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from distilrank.engines import generate
from distilrank.engines.generate import Generator, _Draw, _gumbel, _LineEnds
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
    draw = _Draw(range(400), 0.5, 1.0, "cpu")
    drawn = torch.cat([draw(None, logits.expand(400, -1)).argmax(-1) for _ in range(10)])
    counts = np.bincount(drawn.numpy(), minlength=5)
    assert chisquare(counts, 4_000 * (logits[0].double() / 0.5).softmax(-1).numpy()).pvalue > 0.01


def test_noise_is_gumbels_out_of_splitmix64() -> None:
    seeds = [0, 1234567, 2**64 - 1]
    noise = _gumbel(torch.tensor(np.array(seeds, dtype=np.uint64).view(np.int64)), torch.arange(8_000, 12_000)[None])
    assert noise.dtype == torch.float32
    assert noise.isfinite().all()
    for seed, row in zip(seeds, noise.double().numpy(), strict=True):
        uniform = [((mixed(seed, place) >> 41) + 0.5) / 2**23 for place in range(8_001, 12_001)]
        np.testing.assert_allclose(row, -np.log(-np.log1p(-np.array(uniform))), rtol=1e-4, atol=1e-5)
        assert kstest(row, "gumbel_r").pvalue > 0.01
    # The first numbers from seed 1234567, as the reference implementation prints them.
    assert [mixed(1234567, place) for place in (1, 2)] == [6457827717110365317, 3203168211198807973]


def mixed(seed: int, place: int) -> int:
    """The number at a place of SplitMix64, with Python's own numbers."""
    state = (seed + place * 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def test_top_p_leaves_the_likeliest_and_no_others() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]).log()
    draw = _Draw([1, 2], 1.0, 0.75, "cpu")
    drawn = torch.stack([draw(None, logits).argmax(-1) for _ in range(200)])
    assert set(drawn[:, 0].tolist()) == {0, 1}
    assert set(drawn[:, 1].tolist()) == {2, 3}


@pytest.mark.parametrize("most", [4, 64, 5_000])
def test_the_likeliest_are_the_same_however_many_are_sorted_first(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "LIKELIEST", most)
    logits = torch.randn(3, 5_000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.5], [3.0], [9.0]])
    drawn = _Draw([1, 2, 3], 1.0, 0.9, "cpu")(None, logits)
    kept = drawn.isfinite()
    monkeypatch.setattr(generate, "LIKELIEST", 999)
    assert drawn.argmax(-1).equal(_Draw([1, 2, 3], 1.0, 0.9, "cpu")(None, logits).argmax(-1))
    for row, chances in zip(kept, logits.double().softmax(-1), strict=True):
        smallest = chances[row].min()
        assert (chances >= smallest).equal(row)
        assert chances[row].sum() - smallest < 0.9 < chances[row].sum() + 1e-6


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
