"""From a recipe's teacher to a teacher; model folders must already be local."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distilrank.engines.load import model_config
from distilrank.errors import UserError
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
    """The one teacher that a recipe describes, no ensemble. Raises `UserError` when its model is one for another kind."""
    if isinstance(spec, HttpSpec):
        return HttpTeacher(spec.url, **spec.model_dump(exclude={"kind", "url", "weight"}))
    refuse_other_kind(spec.kind, Path(spec.model))
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


def refuse_other_kind(kind: str, folder: Path, use: str = "") -> None:
    """Where a model says what it is, and that is not what this kind asks: said before it is loaded.

    `use` says what to do, where the model is no teacher.
    """
    names = model_config(folder).get("architectures") or [] if (folder / "config.json").is_file() else []
    fitting = ["cross-encoder"] if any("SequenceClassification" in name for name in names) else []
    if not fitting and any("CausalLM" in name or "LMHead" in name for name in names):
        fitting = ["causal", "likelihood", "embedder"]
    if (folder / "modules.json").is_file() and "embedder" not in fitting:
        fitting.append("embedder")
    if fitting and kind not in fitting:
        held = names[0] if names else "an embedder"
        if use:
            raise UserError(f"{folder}: holds {held}: {use}")
        use = f"use kind {' or '.join(fitting)} (--kind, or teacher.kind in a recipe)"
        raise UserError(f"{folder}: holds {held}, which kind {kind} cannot ask: {use}")
