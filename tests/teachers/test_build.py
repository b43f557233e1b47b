"""Every kind of a recipe becomes its teacher, with the recipe's settings, before any weights are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from distilrank.errors import UserError
from distilrank.recipe import CausalSpec, CrossEncoderSpec, EmbedderSpec, EnsembleSpec, LikelihoodSpec, teacher_spec
from distilrank.teachers import Ensemble, build_teacher
from distilrank.teachers.causal import CausalTeacher
from distilrank.teachers.cross_encoder import CrossEncoderTeacher
from distilrank.teachers.embedder import EmbedderTeacher
from distilrank.teachers.likelihood import LikelihoodTeacher

KINDS: dict[Any, Any] = {
    CausalSpec: CausalTeacher,
    LikelihoodSpec: LikelihoodTeacher,
    CrossEncoderSpec: CrossEncoderTeacher,
    EmbedderSpec: EmbedderTeacher,
}


@pytest.mark.parametrize("spec", KINDS)
def test_a_kind_becomes_its_teacher_with_its_settings(qwen: Path, bert: Path, spec: Any) -> None:
    folder = bert if spec is CrossEncoderSpec else qwen
    teacher: Any = build_teacher(spec(model=str(folder), max_length=77, dtype="bfloat16", device="cpu"))
    assert type(teacher) is KINDS[spec]
    assert (teacher.identity.kind, teacher.identity.max_length, teacher.identity.dtype) == (
        spec.model_fields["kind"].default,
        77,
        "bfloat16",
    )
    assert "model" not in vars(teacher)


@pytest.mark.parametrize("spec", [CausalSpec, LikelihoodSpec])
def test_what_language_models_have_reaches_the_decoder(qwen: Path, spec: Any) -> None:
    teacher: Any = build_teacher(spec(model=str(qwen), engine="plain", dtype="float8", keep_layers=1, device="cpu"))
    decoder = teacher.decoder
    assert (teacher.engine, decoder.engine, decoder.dtype, decoder.keep_layers) == ("plain", "plain", "float8", 1)
    assert build_teacher(spec(model=str(qwen), device="cpu")).engine == "packed"  # type: ignore[union-attr]


@pytest.mark.parametrize("spec", KINDS)
def test_every_kind_says_what_the_scoring_needs_to_know(qwen: Path, bert: Path, spec: Any) -> None:
    teacher: Any = build_teacher(spec(model=str(bert if spec is CrossEncoderSpec else qwen), device="cpu"))
    assert teacher.shares == ("passage" if spec is LikelihoodSpec else "query")
    assert teacher.engine == ("plain" if spec in (CrossEncoderSpec, EmbedderSpec) else "packed")
    assert teacher.portion > 0


@pytest.mark.parametrize(
    ("held", "kind", "advice"),
    [
        ("bert", "causal", r"BertForSequenceClassification, which kind causal cannot ask: use kind cross-encoder \(--kind,"),
        ("bert", "likelihood", r"use kind cross-encoder \(--kind,"),
        ("bert", "embedder", r"use kind cross-encoder \(--kind,"),
        ("qwen", "cross-encoder", r"Qwen3ForCausalLM, .* use kind causal or likelihood or embedder \("),
        ("embedder", "causal", r"BertModel, .* use kind embedder \("),
        ("embedder", "cross-encoder", r"use kind embedder \("),
    ],
)
def test_a_model_for_another_kind_is_refused_with_that_kind(
    request: pytest.FixtureRequest, held: str, kind: str, advice: str
) -> None:
    with pytest.raises(UserError, match=advice):
        build_teacher(teacher_spec(kind, str(request.getfixturevalue(held))))


def test_a_model_that_does_not_say_what_it_is_may_be_tried(qwen: Path, tmp_path: Path) -> None:
    shutil.copytree(qwen, tmp_path / "silent")
    config = json.loads((tmp_path / "silent/config.json").read_text())
    for names in (None, [], ["SomethingModel"]):
        (tmp_path / "silent/config.json").write_text(json.dumps(config | {"architectures": names}))
        for kind in ("causal", "likelihood", "cross-encoder", "embedder"):
            build_teacher(teacher_spec(kind, str(tmp_path / "silent")))


def test_the_default_instruction_is_the_named_one_written_out(qwen: Path) -> None:
    teacher: Any = build_teacher(CausalSpec(model=str(qwen)))
    assert teacher.identity.instruction == "Given a web search query, retrieve relevant passages that answer the query"


def test_template_and_instruction_reach_the_identity(qwen: Path) -> None:
    causal: Any = build_teacher(CausalSpec(model=str(qwen), instruction="Find it"))
    likelihood: Any = build_teacher(LikelihoodSpec(model=str(qwen), template="chatml-docstring"))
    assert causal.identity.instruction == "Find it"
    assert likelihood.identity.template.startswith("chatml-docstring-")


def test_an_ensemble_has_its_members_weights_and_rule(qwen: Path, embedder: Path) -> None:
    members = (LikelihoodSpec(model=str(qwen)), EmbedderSpec(model=str(embedder), weight=0.5))
    built = build_teacher(EnsembleSpec(members=members, normalize="query"))
    assert isinstance(built, Ensemble)
    assert [type(member) for member in built.members] == [LikelihoodTeacher, EmbedderTeacher]
    assert (built.weights, built.normalize) == ((1.0, 0.5), "query")
