"""The checks before spending: an intact teacher passes, and each known way to break one is caught and named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny
from distilrank.errors import GateError, UserError
from distilrank.recipe import teacher_spec
from distilrank.records import Group
from distilrank.teachers import checks as module
from distilrank.teachers.checks import Check, check_teacher, demand, mean_correlation, mean_kendall

GROUPS = tiny.groups(12, 4)


def spec(folder: Path, **changes: Any) -> Any:
    return teacher_spec("causal", str(folder), **{"dtype": "float32", "device": "cpu"} | changes)


def by_name(found: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in found}


def stems(text: str) -> set[str]:
    return {word[:4] for word in text.lower().split() if len(word) > 3}


def of_words(monkeypatch: pytest.MonkeyPatch, sign: float) -> None:
    """Make every causal teacher count the words that query and passage share: a random model knows nothing."""
    from distilrank.teachers.causal import CausalTeacher

    def score(self: Any, groups: list[Group], advance: Any = None) -> list[np.ndarray]:
        result = []
        for group in groups:
            asked = stems(group.query)
            shared = [len(asked & stems(passage.text)) for passage in group.passages]
            result.append(np.array(shared, np.float32) * sign + np.linspace(0, 0.1, len(shared), dtype=np.float32))
        return result

    monkeypatch.setattr(CausalTeacher, "score", score)


def test_an_intact_teacher_passes_with_its_prompt_shown(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_words(monkeypatch, 1.0)
    found = by_name(check_teacher(spec(qwen), GROUPS))
    assert {check.verdict for check in found.values()} == {"ok"}
    assert list(found) == ["template", "prompt", "passages cut", "spread", "canaries", "engine"]
    assert f"<Query>: {GROUPS[0].query}\n<Document>: {GROUPS[0].passages[0].text}<|im_end|>" in found["prompt"].detail


def test_answers_the_wrong_way_round_fail_the_canaries(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_words(monkeypatch, -1.0)
    assert by_name(check_teacher(spec(qwen), GROUPS))["canaries"].verdict == "failed"


@pytest.mark.parametrize(("right", "verdict"), [(16, "ok"), (12, "warning"), (8, "failed")])
def test_canaries_are_passed_by_a_margin_or_do_not_judge(right: int, verdict: str) -> None:
    scores = [np.array([1.0, 0.0, 0.0]) if i < right else np.array([0.0, 1.0, 1.0]) for i in range(16)]
    assert module._order(scores).verdict == verdict


def test_a_head_of_zeros_is_caught(qwen: Path, tmp_path: Path) -> None:
    folder = tiny.with_head(qwen, tmp_path / "zeroed", tiny.zero_head)
    found = by_name(check_teacher(spec(folder), GROUPS))
    assert found["spread"].verdict == "failed"
    assert "has its head been loaded" in found["spread"].detail


def test_an_untied_head_that_is_not_in_the_checkpoint_is_caught(qwen: Path, tmp_path: Path) -> None:
    folder = tiny.with_head(qwen, tmp_path / "headless", lambda weights: weights.pop("lm_head.weight"))
    (failed,) = [check for check in check_teacher(spec(folder), GROUPS) if check.verdict == "failed"]
    assert "lm_head.weight not among its weights" in failed.detail


def test_a_tied_head_needs_no_weights_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_words(monkeypatch, 1.0)
    folder = tiny.causal_folder(tmp_path, tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert all(check.verdict == "ok" for check in check_teacher(spec(folder), GROUPS))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("<think>\\n\\n</think>\\n\\n", "", "'<|im_end|>"),
        ('positive: "yes"', 'positive: "no"', "its positive is 'no'"),
        ("<Document>", "<Passage>", "it has 'Passage>"),
    ],
)
def test_a_template_changed_under_its_old_name_is_caught(
    qwen: Path, tmp_path: Path, before: str, after: str, told: str
) -> None:
    packaged = Path(module.__file__).parent / "templates" / "qwen3-reranker.yaml"
    text = packaged.read_text()
    assert before in text
    (tmp_path / "mine.yaml").write_text(text.replace(before, after))
    check = by_name(check_teacher(spec(qwen, template=str(tmp_path / "mine.yaml")), GROUPS))["template"]
    assert check.verdict == "failed"
    if after:
        assert told in check.detail


def test_a_template_of_another_name_is_the_users_own_affair(qwen: Path, tmp_path: Path) -> None:
    packaged = Path(module.__file__).parent / "templates" / "qwen3-reranker.yaml"
    (tmp_path / "mine.yaml").write_text(packaged.read_text().replace("name: qwen3-reranker", "name: mine") + "# mine")
    assert by_name(check_teacher(spec(qwen, template=str(tmp_path / "mine.yaml")), GROUPS))["template"].verdict == "ok"


def test_an_engine_that_computes_something_else_is_caught(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distilrank.engines import packing

    stretches = packing.stretches

    def forgets_the_prefix(mask: Any) -> Any:
        q = torch.arange(mask.shape[-1])
        return stretches(mask.masked_fill(q[:, None] - q[None] > 4, torch.finfo(mask.dtype).min))

    monkeypatch.setattr(packing, "stretches", forgets_the_prefix)
    found = by_name(check_teacher(spec(qwen), GROUPS))
    assert found["engine"].verdict == "failed"
    assert "both in float32, on 32 pairs" in found["engine"].detail
    assert found["engine"].detail.endswith(
        "a correlation of 0.9999 is asked: use engine plain, and please report this model"
    )


def test_the_packed_engine_passes_in_float32_and_bfloat16(qwen: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        check = by_name(check_teacher(spec(qwen, dtype=dtype), GROUPS))["engine"]
        assert check.verdict == "ok"
        assert check.detail.startswith(f"packed against plain transformers, both in {dtype}, on 32 pairs: ")
        assert check.detail.endswith(f"; a correlation of {module.PARITY[dtype]} is asked")


def test_kendall_is_said_to_be_undefined_where_nothing_can_be_ordered(qwen: Path) -> None:
    single = [tiny.group(group.query, group.passages[0].text) for group in GROUPS]
    detail = by_name(check_teacher(spec(qwen), single))["engine"].detail
    assert "Kendall undefined (no query has two passages told apart), largest" in detail
    assert "nan" not in detail
    assert "Kendall undefined" in module._float8(*[[np.array([float(n)]) for n in range(4)]] * 3).detail


@pytest.mark.parametrize("changes", [{"template": "none.yaml"}, {"template": "qwen"}, {"instruction": "web"}])
def test_a_mistyped_setting_is_no_failed_check(qwen: Path, changes: dict[str, str]) -> None:
    with pytest.raises(UserError) as error:
        check_teacher(spec(qwen, **changes), GROUPS)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(("noise", "verdict"), [(0.1, "ok"), (0.6, "failed")])
def test_float8_is_held_against_bfloat16_query_by_query(noise: float, verdict: str) -> None:
    rng = np.random.default_rng(0)
    plain = [rng.normal(size=8) for _ in range(16)]
    packed = [values + rng.normal(size=8) * 0.01 for values in plain]
    found = module._float8([values + rng.normal(size=8) * noise for values in plain], packed, plain)
    assert found.verdict == verdict
    assert "bfloat16's own" in found.detail


def test_float8_is_checked_in_both_precisions(qwen: Path) -> None:
    found = by_name(check_teacher(spec(qwen, dtype="float8", keep_layers=0), GROUPS))
    assert "mean correlation within a query" in found["float8"].detail


def test_passages_cut_short_are_a_warning(qwen: Path) -> None:
    long = [tiny.group("how", "window " * 400, "stone") for _ in range(3)]
    check = by_name(check_teacher(spec(qwen, max_length=300), long))["passages cut"]
    assert check.verdict == "warning"
    assert check.detail.startswith("50.0% of 6 passages")


def test_without_groups_the_canaries_are_the_sample(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_words(monkeypatch, 1.0)
    assert all(check.verdict == "ok" for check in check_teacher(spec(qwen), []))


@pytest.mark.parametrize("kind", ["cross-encoder", "embedder"])
def test_other_kinds_are_checked_by_spread_and_canaries(kind: str, bert: Path, embedder: Path) -> None:
    folder = {"cross-encoder": bert, "embedder": embedder}[kind]
    found = check_teacher(teacher_spec(kind, str(folder), device="cpu"), GROUPS)
    assert [check.name for check in found] == ["spread", "canaries"]


def test_a_folder_without_weights_is_one_failed_check(tmp_path: Path) -> None:
    (found,) = check_teacher(spec(tmp_path), GROUPS)
    assert (found.name, found.verdict) == ("loads and answers", "failed")


def test_only_a_sample_of_the_groups_is_read(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_words(monkeypatch, 1.0)
    read = 0

    def endless() -> Iterator[Group]:
        nonlocal read
        while True:
            read += 1
            yield GROUPS[read % len(GROUPS)]

    check_teacher(spec(qwen), endless())
    assert read <= module.CUT_QUERIES + 1


def test_a_failed_check_stops_unless_forced(capsys: pytest.CaptureFixture[str]) -> None:
    found = [Check("spread", "ok", "fine"), Check("canaries", "failed", "wrong way round")]
    with pytest.raises(GateError, match="canaries: wrong way round"):
        demand(found)
    demand(found, forced=True)
    said = capsys.readouterr().err
    assert "wrong way round" in said
    assert "fine" not in said


def test_the_canaries_are_distinct_texts() -> None:
    groups = module._canaries()
    assert len({group.query for group in groups}) == len({group.passages[0].text for group in groups}) == len(groups) >= 12
    assert all(len({passage.text for passage in group.passages}) == len(group.passages) for group in groups)


def test_correlation_and_kendall_are_those_of_scipy_query_by_query() -> None:
    from scipy.stats import kendalltau, pearsonr

    rng = np.random.default_rng(0)
    first = [rng.normal(size=n) for n in (3, 5, 8)]
    second = [values + rng.normal(size=len(values)) for values in first]
    pairs = list(zip(first, second, strict=True))
    assert mean_correlation(first, second) == pytest.approx(np.mean([pearsonr(a, b).statistic for a, b in pairs]))
    assert mean_kendall(first, second) == pytest.approx(np.mean([kendalltau(a, b).statistic for a, b in pairs]))


def test_details_are_plain_text_for_json(qwen: Path) -> None:
    json.dumps([vars(check) for check in check_teacher(spec(qwen), GROUPS)])


def test_groups_of_one_passage_are_compared_by_their_scores() -> None:
    rng = np.random.default_rng(0)
    one, other = ([rng.normal(size=1) for _ in range(32)] for _ in range(2))
    assert module._pooled_correlation(one, one) == pytest.approx(1.0)
    assert module._pooled_correlation(one, other) < 0.6
    assert module._float8(one, one, one).verdict == "ok"
    assert module._float8(other, one, one).verdict == "failed"


def test_passages_that_nothing_tells_apart_agree_whatever_the_rounding() -> None:
    alike = [np.full(4, 2.5) for _ in range(8)]
    rounded = [values + np.random.default_rng(0).normal(size=4) * 1e-7 for values in alike]
    assert module._pooled_correlation(rounded, alike) == 1.0
    assert module._pooled_correlation([values + np.arange(4) for values in alike], alike) == 0.0


def test_demanding_nothing_is_fine() -> None:
    demand([])
    with pytest.raises(UserError):
        demand([Check("x", "failed", "y")])
