"""The model card: its head is what Hugging Face reads, its figures are the evaluation's, it names no folder of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from distilrank.evidence import System, evaluate
from distilrank.evidence.card import Origin, Origins, licence_of, model_card
from distilrank.evidence.forgetting import forgetting_on
from distilrank.evidence.wording import shown
from evidence import samples

ORIGINS = Origins(
    name="my-domain",
    student=Origin("BAAI/bge-reranker-v2-m3", "apache-2.0"),
    teacher=(Origin("Qwen/Qwen3-Reranker-4B", "apache-2.0"), Origin("my | own embedder")),
    train=Origin("train.jsonl"),
    test=Origin("test set.jsonl"),
    command="distilrank run recipe.yaml",
    method="margin_mse, 1 epoch, learning rate 2e-05",
    max_length=512,
)


def test_the_head_is_valid_metadata_with_every_mean(tmp_path: Path) -> None:
    evaluation = samples.evaluation()
    (path := tmp_path / "README.md").write_text(model_card(evaluation, ORIGINS), encoding="utf-8")
    data = ModelCard.load(path).data
    assert (data.base_model, data.library_name, data.pipeline_tag) == (
        "BAAI/bge-reranker-v2-m3",
        "sentence-transformers",
        "text-ranking",
    )
    found = {result.metric_name: result.metric_value for result in data.eval_results}
    assert found == {shown(name): round(value, 4) for name, value in evaluation.means()["after"].items()}
    name, results = model_index_to_eval_results(data.to_dict()["model-index"])
    assert (name, len(results)) == ("my-domain", 3)
    assert {result.dataset_type for result in results} == {"test-set.jsonl"}


def test_it_says_figures_intervals_and_licences_of_the_evaluation() -> None:
    of = samples.groups()
    lost = forgetting_on("askubuntu", of, samples.scores(of, 3.0, 0), samples.scores(of, 0.5, 1))
    evaluation = samples.evaluation(forgetting=lost)
    card = model_card(evaluation, ORIGINS)
    for name, test in evaluation.comparisons.items():
        assert f"| {shown(name)} | {test.difference:+.4f} | {test.low:+.4f} to {test.high:+.4f} |" in card
    for values in evaluation.means().values():
        assert all(f"{value:.4f}" in card for value in values.values())
    assert f"{evaluation.gap_closed['AP']:.0%} is closed" in card
    assert f"| askubuntu | MAP | {lost[0].before:.4f} | {lost[0].after:.4f} | worse |" in card
    assert "| teacher | my \\| own embedder | not stated" in card
    assert "| student before | BAAI/bge-reranker-v2-m3 | apache-2.0 |" in card
    assert not any(group.query in card for group in of)


def test_a_further_model_is_named_with_the_whole_of_its_source() -> None:
    of = samples.groups()
    other = System("bge-reranker-v2-m3", "model", samples.scores(of, 1.0, 5), "hf:BAAI/bge-reranker-v2-m3")
    card = model_card(evaluate(of, [*samples.systems(of), other]), ORIGINS)
    assert "| bge-reranker-v2-m3 (hf:BAAI/bge-reranker-v2-m3) |" in card


def test_without_labels_it_claims_no_quality(tmp_path: Path) -> None:
    of = samples.groups()
    card = model_card(evaluate(samples.unlabelled(of), samples.systems(of)), ORIGINS)
    assert "quality was not measured" in card
    assert "which is not quality" in card
    (path := tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert ModelCard.load(path).data.eval_results is None


HEADS = {"---\nlicense: mit\n---\nx": "mit", "no head": None, "---\nlanguage: en\n---\n": None, "---\n{\n---\n": None}


@pytest.mark.parametrize(("text", "licence"), HEADS.items())
def test_a_licence_is_what_a_models_own_card_states(tmp_path: Path, text: str, licence: str | None) -> None:
    (tmp_path / "README.md").write_text(text)
    assert licence_of(tmp_path) == licence
    assert licence_of(tmp_path / "absent") is None
