"""The model card (README.md of the model folder) once there is evidence: what the model was made of, and what it is worth.

Its head is Hugging Face's metadata with a `model-index`. It quotes no text of the data and names no folder of this machine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilrank.evidence.evaluate import Evaluation, System
from distilrank.evidence.table import interval, verdict
from distilrank.evidence.wording import p_value, shown

UNKNOWN = "not stated where it came from: look it up before you pass this model on"


@dataclass(frozen=True)
class Origin:
    """Something that the model was made of: where it came from, and its licence as far as that says so."""

    source: str
    """A hub name, a package, or the last part of a path."""
    licence: str | None = None


@dataclass(frozen=True)
class Origins:
    """What a model was made of, and how."""

    name: str
    student: Origin
    teacher: Sequence[Origin]
    train: Origin
    test: Origin
    command: str
    method: str
    """The training in a few words, such as `margin_mse, 1 epoch, learning rate 2e-05`."""
    max_length: int


def model_card(evaluation: Evaluation, origins: Origins) -> str:
    """The card as Markdown with its YAML head. Every figure in it stands in the evaluation."""
    head = _metadata(evaluation, origins).to_yaml()
    teachers = " + ".join(f"`{teacher.source}`" for teacher in origins.teacher)
    parts = [
        f"---\n{head}\n---\n",
        f"# {origins.name}, a reranker distilled with distilrank\n",
        f"`{origins.student.source}` learnt the score differences of {teachers} on `{origins.train.source}` "
        f"({origins.method}). No relevance label was used for training. Its scores are raw logits (Identity activation), "
        "larger is more relevant.\n",
        _USE.format(max_length=origins.max_length),
        "## What it is worth\n",
        _quality(evaluation, origins),
        _agreement(evaluation),
        _forgetting(evaluation),
        _cost(evaluation),
        _limits(evaluation, origins),
        _licences(origins),
        f"## How it was made\n\n```\n{origins.command}\n```\n\n`distilrank.json` in this folder holds every setting of the "
        "training and the versions.\n",
    ]
    return "\n".join(part for part in parts if part)


_USE = """```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("path/to/this/folder", max_length={max_length})
model.predict([("a query", "a passage")])
```

## Intended use

Reordering the candidates that a first stage found for a query, on text like that it was taught on. It is no retriever and no
classifier, and its scores are no probabilities.
"""


def licence_of(folder: str | Path) -> str | None:
    """The licence that a model folder's own card states, none where it has no card or that says nothing."""
    import yaml
    from huggingface_hub import metadata_load

    path = Path(folder) / "README.md"
    try:
        found = (metadata_load(path) or {}).get("license") if path.is_file() else None
    except (yaml.YAMLError, ValueError, OSError):
        return None
    return str(found) if found else None


def _metadata(evaluation: Evaluation, origins: Origins) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    after = evaluation.with_role("after")
    means = evaluation.means().get(after.name, {}) if after else {}
    results = [
        EvalResult(
            task_type="text-ranking",
            task_name="Reranking",
            dataset_type=_identifier(origins.test.source),
            dataset_name=origins.test.source,
            dataset_split="test",
            metric_type=shown(name).lower(),
            metric_name=shown(name),
            metric_value=round(value, 4),
        )
        for name, value in means.items()
    ]
    hub = [origin.source for origin in (origins.student,) if _on_hub(origin.source)]
    return ModelCardData(
        model_name=origins.name,
        base_model=hub[0] if hub else None,
        library_name="sentence-transformers",
        pipeline_tag="text-ranking",
        tags=["cross-encoder", "reranker", "distillation", "distilrank"],
        eval_results=results or None,
    )


def _on_hub(source: str) -> bool:
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", source))


def _identifier(source: str) -> str:
    return re.sub(r"[^\w./-]+", "-", source).strip("-") or "test"


def _quality(evaluation: Evaluation, origins: Origins) -> str:
    if not evaluation.measures:
        return "The test set has no labels: quality was not measured.\n"
    means = evaluation.means()
    names = evaluation.measures
    lines = [
        f"On the {int(evaluation.judged.sum()):,} held-out queries of `{origins.test.source}` that count, every system on "
        "the same candidates:\n",
        "| system | " + " | ".join(map(shown, names)) + " |",
        "|---" * (len(names) + 1) + "|",
        *(
            f"| {_cell(_with_source(system))} | " + " | ".join(f"{means[system.name][name]:.4f}" for name in names) + " |"
            for system in evaluation.systems
        ),
    ]
    if evaluation.comparisons:
        lines += ["", "| after - before | difference | 95 % interval | p | verdict |", "|---|---|---|---|---|"]
        for name, test in evaluation.comparisons.items():
            lines.append(
                f"| {shown(name)} | {test.difference:+z.4f} | {interval(test)} | {p_value(test.p_holm)} | {verdict(test)} |"
            )
        lines += ["", "Paired t-test over queries, corrected by Holm over the systems; bootstrap interval."]
        gap = evaluation.gap_closed.get(names[0], float("nan"))
        if math.isfinite(gap):
            lines.append(f"Of the gap in {shown(names[0])} between the student before and its teacher, {gap:.0%} is closed.")
    return "\n".join(lines) + "\n"


def _with_source(system: System) -> str:
    """A further model's name with the whole of its source; what the others are stands elsewhere in the card."""
    return (
        f"{system.name} ({system.source})"
        if system.role == "model" and system.source not in ("", system.name)
        else system.name
    )


def _agreement(evaluation: Evaluation) -> str:
    before, after = evaluation.with_role("before"), evaluation.with_role("after")
    if not (before and after and evaluation.agreement):
        return ""
    first, last = evaluation.agreement[before.name], evaluation.agreement[after.name]
    return (
        f"Agreement with the teacher, which is not quality: Kendall's tau {first.kendall_tau:.3f} before and "
        f"{last.kendall_tau:.3f} after, nDCG@10 against its scores {first.ndcg:.3f} and {last.ndcg:.3f}, the same first "
        f"passage in {first.top1:.0%} and {last.top1:.0%} of {last.queries:,} queries.\n"
    )


def _forgetting(evaluation: Evaluation) -> str:
    lines = [
        f"| {_cell(line.name)} | {shown(line.measure)} | {line.before:.4f} | {line.after:.4f} | {verdict(line.paired)} |"
        for line in evaluation.forgetting
    ]
    head = "| outside the domain | metric | before | after | verdict |\n|---|---|---|---|---|\n"
    sets = "\n\nThe same test, corrected by Holm over the sets.\n"
    return head + "\n".join(lines) + sets if lines else ""


def _cost(evaluation: Evaluation) -> str:
    after = evaluation.with_role("after")
    cost = evaluation.costs.get(after.name) if after else None
    if not cost:
        return ""
    size = f"{cost.parameters / 1e6:,.0f} million parameters, " if cost.parameters else ""
    runs = [
        f"{run.p50_ms:.0f} ms a query of {run.candidates} candidates (p95 {run.p95_ms:.0f}) on {run.device}"
        + (f" with {run.threads} threads" if run.threads else "")
        + (f" in {run.dtype}" if run.dtype else "")
        for run in cost.runs
    ]
    return f"Cost: {size}{(cost.bytes or 0) / 1e6:,.0f} MB; {'; '.join(runs)}.\n"


def _limits(evaluation: Evaluation, origins: Origins) -> str:
    lines = [f"- Query and passage beyond {origins.max_length} tokens together are cut."]
    if not evaluation.forgetting:
        lines.append("- What it does outside its domain was not measured.")
    lines.append("- What the teacher gets wrong, it was taught; biases of teacher and student were not examined.")
    after = evaluation.with_role("after")
    if after and (level := evaluation.levels.get(after.name)):
        lines.append(
            f"- One threshold for all queries: {level.threshold:.2f}; a cut chosen like this has, on queries it has not "
            f"seen, precision {level.precision:.2f} and recall {level.recall:.2f} (AUC across queries {level.auc:.3f}, "
            f"within a query {level.auc_within:.3f})."
        )
    lines += [f"- {note}" for note in evaluation.settings.get("notes") or []]
    return "## Limits\n\n" + "\n".join(lines) + "\n"


def _licences(origins: Origins) -> str:
    rows = [("student before", origins.student), *(("teacher", teacher) for teacher in origins.teacher)]
    rows += [("training data", origins.train), ("test data", origins.test)]
    lines = [f"| {part} | {_cell(origin.source)} | {origin.licence or UNKNOWN} |" for part, origin in rows]
    return (
        "## Licences\n\nWhat it was made of; the licence of this model must fit them all.\n\n| part | source | licence |\n"
        "|---|---|---|\n" + "\n".join(dict.fromkeys(lines)) + "\n"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
