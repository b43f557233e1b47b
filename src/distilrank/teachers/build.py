"""From a recipe's teacher to a teacher; model folders must already be local."""

from __future__ import annotations

from typing import Any

from distilrank.recipe import (
    CausalSpec,
    CrossEncoderSpec,
    EmbedderSpec,
    EnsembleSpec,
    HttpSpec,
    LikelihoodSpec,
    PointwiseSpec,
)
from distilrank.teachers.base import Teacher
from distilrank.teachers.causal import CausalTeacher
from distilrank.teachers.cross_encoder import CrossEncoderTeacher
from distilrank.teachers.embedder import EmbedderTeacher
from distilrank.teachers.ensemble import Ensemble
from distilrank.teachers.http import HttpTeacher
from distilrank.teachers.likelihood import LikelihoodTeacher

Built = Teacher | Ensemble


def build_teacher(spec: PointwiseSpec | EnsembleSpec) -> Built:
    """The teacher that a recipe describes; weights are loaded when the first pair is scored, not here."""
    if isinstance(spec, EnsembleSpec):
        members = tuple(build_pointwise(member) for member in spec.members)
        return Ensemble(members, tuple(member.weight for member in spec.members), spec.normalize)
    return build_pointwise(spec)


def build_pointwise(spec: PointwiseSpec) -> Teacher:
    """The one teacher that a recipe describes, no ensemble."""
    if isinstance(spec, HttpSpec):
        return HttpTeacher(spec.url, **spec.model_dump(exclude={"kind", "url", "weight"}))
    settings: dict[str, Any] = spec.model_dump(exclude={"kind", "model", "weight"})
    match spec:
        case CausalSpec():
            return CausalTeacher(spec.model, **settings)
        case LikelihoodSpec():
            return LikelihoodTeacher(spec.model, **settings)
        case CrossEncoderSpec():
            return CrossEncoderTeacher(spec.model, **settings)
        case EmbedderSpec():
            return EmbedderTeacher(spec.model, **settings)
