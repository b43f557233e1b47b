"""From a recipe's teacher to a teacher; model folders must already be local."""

from __future__ import annotations

from typing import Any

from distilrank.recipe import CausalSpec, CrossEncoderSpec, EmbedderSpec, EnsembleSpec, LikelihoodSpec, PointwiseSpec
from distilrank.teachers.base import Teacher
from distilrank.teachers.causal import CausalTeacher
from distilrank.teachers.cross_encoder import CrossEncoderTeacher
from distilrank.teachers.embedder import EmbedderTeacher
from distilrank.teachers.ensemble import Ensemble
from distilrank.teachers.likelihood import LikelihoodTeacher

Built = Teacher | Ensemble


def build_teacher(spec: PointwiseSpec | EnsembleSpec) -> Built:
    """The teacher that a recipe describes; weights are loaded when the first pair is scored, not here."""
    if isinstance(spec, EnsembleSpec):
        members = tuple(_pointwise(member) for member in spec.members)
        return Ensemble(members, tuple(member.weight for member in spec.members), spec.normalize)
    return _pointwise(spec)


def _pointwise(spec: PointwiseSpec) -> Teacher:
    common: dict[str, Any] = {
        "max_length": spec.max_length,
        "dtype": spec.dtype,
        "device": spec.device,
        "trust_remote_code": spec.trust_remote_code,
    }
    match spec:
        case CausalSpec():
            return CausalTeacher(spec.model, template=spec.template, instruction=spec.instruction, **common)
        case LikelihoodSpec():
            return LikelihoodTeacher(spec.model, template=spec.template, **common)
        case CrossEncoderSpec():
            return CrossEncoderTeacher(spec.model, **common)
        case EmbedderSpec():
            return EmbedderTeacher(spec.model, **common)
