"""Every kind of a recipe becomes its teacher, with the recipe's settings, before any weights are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distilrank.recipe import CausalSpec, CrossEncoderSpec, EmbedderSpec, EnsembleSpec, LikelihoodSpec
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
def test_a_kind_becomes_its_teacher_with_its_settings(qwen: Path, spec: Any) -> None:
    teacher: Any = build_teacher(spec(model=str(qwen), max_length=77, dtype="bfloat16", device="cpu"))
    assert type(teacher) is KINDS[spec]
    assert (teacher.identity.kind, teacher.identity.max_length, teacher.identity.dtype) == (
        spec.model_fields["kind"].default,
        77,
        "bfloat16",
    )
    assert "model" not in vars(teacher)


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
