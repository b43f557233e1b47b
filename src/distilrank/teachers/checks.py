"""Checks before GPU-hours are spent: does this teacher, run this way, say what it should?

Each check is cheap (tens of pairs) and catches a mistake that has cost somebody a night: a head that was not loaded, a
template that is not the model's, answers the wrong way round, passages cut short, an engine that computes something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any, Literal

import numpy as np
import yaml

from distilrank.engines.load import device_of, dtype_of
from distilrank.errors import GateError, UserError
from distilrank.metrics import Scores
from distilrank.progress import say
from distilrank.recipe import LanguageModelCommon, PointwiseSpec
from distilrank.records import Group, Passage
from distilrank.teachers.base import Teacher
from distilrank.teachers.build import build_pointwise
from distilrank.teachers.prompts import packaged_templates

Verdict = Literal["ok", "warning", "failed"]

PARITY_QUERIES, PARITY_PASSAGES = 8, 4
FLOAT8_QUERIES, FLOAT8_PASSAGES = 16, 8
CUT_QUERIES, CUT_PASSAGES = 256, 16
LOADS = "loads and answers"
CUT_WARNING = 0.1
"""Share of the passages that do not fit from which on it is worth a word."""
CANARY_OTHERS = 3
CANARY_OK, CANARY_FAILED = 0.85, 0.6
"""Shares of the canaries' comparisons that are right: an intact teacher has more than the first, a coin .5."""
PARITY = {"float32": 0.9999, "bfloat16": 0.95}
"""Least correlation, within queries, of two ways to compute the same scores (docs/performance.md)."""
FLOAT8 = 0.95


@dataclass(frozen=True)
class Check:
    """What one check found; `detail` is for a person."""

    name: str
    verdict: Verdict
    detail: str


def check_teacher(spec: PointwiseSpec, groups: Iterable[Group], teacher: Teacher | None = None) -> list[Check]:
    """All checks of a teacher whose model is local, on canaries and on some of the user's own groups (may be none).

    `teacher` is the one that will be used, where it is built already; it keeps its weights. A teacher that cannot be
    loaded or asked gives one failed check with the reason. Raises `UserError` when its settings name what does not exist.
    """
    teacher = teacher or build_pointwise(spec)
    sample = [group for group in islice(groups, CUT_QUERIES) if group.passages]
    checks: list[Check] = []
    try:
        if isinstance(spec, LanguageModelCommon):
            checks += _of_prompt(teacher, _some(sample, CUT_QUERIES, CUT_PASSAGES) or _canaries())
        float8 = getattr(spec, "dtype", "") == "float8"
        size = (FLOAT8_QUERIES, FLOAT8_PASSAGES) if float8 else (PARITY_QUERIES, PARITY_PASSAGES)
        own = _some(sample, *size) or _canaries()
        # The others first, so that one model at a time is in memory.
        wide = {"dtype": "bfloat16"} if float8 else {}
        plain = _scores_as(spec, own, engine="plain", **wide) if _engine(spec) != "plain" else None
        packed = _scores_as(spec, own, **wide) if float8 and plain else plain
        canaries, scores = teacher.score(_canaries()), teacher.score(own)
        checks += [_spread([*canaries, *scores]), _order(canaries)]
        if float8 and plain and packed:
            checks += [_parity(spec, packed, plain), _float8(scores, packed, plain)]
        elif plain:
            checks.append(_parity(spec, scores, plain))
    except UserError as error:
        checks.append(Check(LOADS, "failed", str(error)))
    return checks


def demand(checks: Sequence[Check], *, forced: bool = False) -> None:
    """Tell what is worth a word; raises `GateError` when a check failed, unless forced."""
    failed = [check for check in checks if check.verdict == "failed"]
    for check in checks:
        if check.verdict != "ok" and (forced or check not in failed[:1]):  # the first failure is the error itself
            say(f"  check: {check.name}: {check.verdict}: {check.detail}")
    if failed and not forced:
        if failed[0].name == LOADS:
            raise UserError(failed[0].detail)  # nothing to go on with
        raise GateError(
            f"the teacher failed a check before scoring ({failed[0].name}: {failed[0].detail}): look at it with "
            "`distilrank doctor`, or go on all the same with --checks warn (in a recipe, score.checks: warn)"
        )


def _of_prompt(teacher: Any, groups: Sequence[Group]) -> list[Check]:
    template, asked = teacher.template, teacher.prompts(groups)
    packaged = packaged_templates().get(template.name)
    checks = []
    if packaged and packaged.digest != template.digest:
        detail = (
            f"calls itself {template.name} but {_difference(packaged, template)}; if that is meant, give it another name"
        )
        checks.append(Check("template", "failed", detail))
    else:
        checks.append(Check("template", "ok", f"{template.name}, from {template.source}"))
    checks.append(Check("prompt", "ok", teacher.decoder.tokenizer.decode(asked.sequences[0].tolist())))
    share = float(asked.cut.mean())
    most = teacher.decoder.max_length
    detail = f"{share:.1%} of {len(asked.cut):,} passages do not fit into {most:,} tokens with the prompt and are cut"
    return [*checks, Check("passages cut", "warning" if share > CUT_WARNING else "ok", detail)]


def _difference(packaged: Any, template: Any) -> str:
    for name in ("positive", "negative", "start"):
        expected, found = getattr(packaged, name), getattr(template, name)
        if expected != found:
            return f"its {name} is {found!r} where the packaged one has {expected!r}"
    expected, found = "".join(packaged.pieces), "".join(template.pieces)
    place = next(
        (i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), min(len(expected), len(found))
    )
    if expected == found:
        return "it joins its pieces in other places than the packaged one"
    return f"it has {found[place : place + 30]!r} where the packaged one has {expected[place : place + 30]!r}"


def _spread(scores: Scores) -> Check:
    flat = np.concatenate([np.asarray(values, dtype=np.float64) for values in scores])
    deviation = float(flat.std())
    if deviation <= 1e-6 * max(1.0, float(np.abs(flat).max())):
        return Check("spread", "failed", f"every score is {flat[0]:.4g}: has its head been loaded?")
    return Check("spread", "ok", f"scores from {flat.min():.3g} to {flat.max():.3g}, deviation {deviation:.3g}")


def _order(scores: Scores) -> Check:
    margins = np.concatenate([values[0] - np.asarray(values[1:], dtype=np.float64) for values in scores])
    right = float((margins > 0).mean())
    detail = f"{right:.0%} of {len(margins)} relevant passages above irrelevant ones, mean margin {margins.mean():.3g}"
    if right >= CANARY_OK:
        return Check("canaries", "ok", detail)
    if right > CANARY_FAILED:
        return Check("canaries", "warning", f"{detail}: this teacher cannot be judged by them")
    return Check("canaries", "failed", f"{detail}: no better than chance; template, answers or weights are wrong")


def _parity(spec: Any, found: Scores, plain: Scores) -> Check:
    correlation = _pooled_correlation(found, plain)
    dtype = "bfloat16" if spec.dtype == "float8" else dtype_of(spec.dtype, device_of(spec.device))
    detail = (
        f"{_engine(spec)} against plain transformers, both in {dtype}, on {sum(map(len, plain))} pairs: correlation within "
        f"a query {correlation:.5f}, Kendall {_kendall(found, plain)}, largest difference {_largest(found, plain):.2g}"
    )
    return _judged("engine", correlation, PARITY[dtype], detail, "use engine plain, and please report this model")


def _float8(found: Scores, packed: Scores, plain: Scores) -> Check:
    correlation = mean_correlation(found, plain)
    if correlation != correlation:  # no query has three passages
        correlation = _pooled_correlation(found, plain)
    detail = (
        f"float8 against bfloat16 on {sum(map(len, plain))} pairs: mean correlation within a query {correlation:.4f}, "
        f"Kendall {_kendall(found, plain)} (bfloat16's own, packed against plain: {_kendall(packed, plain)})"
    )
    return _judged("float8", correlation, FLOAT8, detail, "use bfloat16, or keep more layers in it")


def _judged(name: str, correlation: float, least: float, detail: str, advice: str) -> Check:
    detail = f"{detail}; a correlation of {least} is asked"
    return Check(name, "ok", detail) if correlation >= least else Check(name, "failed", f"{detail}: {advice}")


def mean_correlation(first: Scores, second: Scores) -> float:
    """Mean over queries of Pearson's correlation; queries with fewer than 3 passages or a constant side are left out."""
    found = [
        np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True) if len(a) > 2 and np.ptp(a) > 0 and np.ptp(b) > 0
    ]
    return float(np.mean(found)) if found else float("nan")


def mean_kendall(first: Scores, second: Scores) -> float:
    """Mean over queries of Kendall's tau-b."""
    from scipy.stats import kendalltau

    pairs = [(a, b) for a, b in zip(first, second, strict=True) if len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0]
    return float(np.mean([kendalltau(a, b).statistic for a, b in pairs])) if pairs else float("nan")


def _kendall(first: Scores, second: Scores) -> str:
    value = mean_kendall(first, second)
    return f"{value:.3f}" if value == value else "undefined (no query has two passages told apart)"


def _pooled_correlation(first: Scores, second: Scores) -> float:
    """Correlation of the differences within queries, all queries together; of the scores where no query has two passages.

    Two ways that differ by rounding where there is nothing to tell apart agree.
    """
    within = any(len(values) > 1 for values in first)
    a, b = (
        np.concatenate([np.asarray(values, np.float64) - (np.mean(values) if within else 0.0) for values in scores])
        for scores in (first, second)
    )
    scale = max(1.0, *(float(np.abs(np.asarray(values)).max()) for values in second))
    if min(a.std(), b.std()) <= 1e-5 * scale:
        return float(np.abs(a - b).max() <= 1e-3 * scale)
    return float(np.corrcoef(a, b)[0, 1])


def _largest(first: Scores, second: Scores) -> float:
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(first, second, strict=True))


def _scores_as(spec: PointwiseSpec, groups: Sequence[Group], **changes: Any) -> Scores:
    other = build_pointwise(spec.model_copy(update=changes))
    try:
        return other.score(groups)
    finally:
        other.release()


def _engine(spec: PointwiseSpec) -> str:
    return getattr(spec, "engine", "plain")


def _some(groups: Sequence[Group], queries: int, passages: int) -> list[Group]:
    """So many groups, spread over the sample, with so many passages each."""
    wanted = [group for group in groups if len(group.passages) > 1] or list(groups)
    step = max(1, len(wanted) // queries)
    return [Group(g.query_id, g.query, g.passages[:passages]) for g in wanted[::step][:queries]]


@cache
def _canaries() -> list[Group]:
    """A group a query: its own passage first, then those of the next ones."""
    text = files("distilrank.teachers").joinpath("canaries.yaml").read_text("utf-8")
    pairs: list[tuple[str, str]] = yaml.safe_load(text)
    around = range(CANARY_OTHERS + 1)
    return [
        Group(f"canary-{i}", query, tuple(Passage(pairs[(i + step) % len(pairs)][1]) for step in around))
        for i, (query, _) in enumerate(pairs)
    ]
