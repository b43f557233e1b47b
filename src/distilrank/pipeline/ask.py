"""Asking a teacher: its model brought here, its checks passed, and what the store lacks scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilrank.data import fetch
from distilrank.errors import UserError
from distilrank.progress import say
from distilrank.recipe import EnsembleSpec, HttpSpec, PointwiseSpec, ScoreSpec
from distilrank.records import Group
from distilrank.shards import write_text
from distilrank.versions import versions

QUERIES_A_WINDOW = 10_000

if TYPE_CHECKING:
    from distilrank.scoring import Aside, ScoreStore
    from distilrank.scoring.score import Drive
    from distilrank.teachers import Teacher


def resolve_model(source: str, *, offline: bool = False) -> Path:
    """The local folder of a model source, the demo's models among them. Raises `UserError` when it is no folder."""
    if source.startswith("demo:"):
        from distilrank.demo import demo_model

        return demo_model(source.removeprefix("demo:"), offline=offline)
    folder = fetch(source, offline=offline)
    if not folder.is_dir():
        raise UserError(f"{source}: a model is a folder, this is a file")
    return folder


def local_teacher(spec: Any, resolve: Callable[[str], Path]) -> Any:
    """A recipe's teacher with every model source replaced by its local folder."""
    if isinstance(spec, EnsembleSpec):
        return spec.model_copy(update={"members": tuple(local_teacher(member, resolve) for member in spec.members)})
    return spec if isinstance(spec, HttpSpec) else spec.model_copy(update={"model": str(resolve(spec.model))})


def teacher_here(spec: PointwiseSpec, *, offline: bool = False) -> Teacher:
    """A recipe's teacher built where this is called: in another process, or on another node, that finds its model itself."""
    from distilrank.teachers import build_pointwise

    return build_pointwise(local_teacher(spec, lambda source: resolve_model(source, offline=offline)))


def ask(
    groups: Iterable[Group],
    spec: PointwiseSpec,
    teacher: Teacher,
    store: ScoreStore,
    settings: ScoreSpec,
    *,
    title: str = "score",
    drive: Drive | None = None,
    aside: Aside | None = None,
) -> int:
    """Score what the store lacks of the groups; returns how many pairs that were.

    `drive` says where (`pipeline.where`); none: in this process.

    `groups` is iterated more than once. The checks of `teachers/checks.py` come before the first pair, once for an engine
    and a store. Raises `GateError` when one fails and `settings.checks` is `stop`.
    """
    from distilrank.scoring import score

    def check() -> None:
        if aside:
            aside.check()  # the rows that cannot be read are known by now
        waiting = iter(groups if aside is None or not aside.most else ())  # else they are set aside when their turn comes
        while window := list(islice(waiting, QUERIES_A_WINDOW)):
            teacher.refuse_long_queries(window)
        if settings.checks != "skip":
            sample = _that_fit(groups, teacher) if aside and aside.most else groups
            _check_once(spec, sample, teacher, store.folder, forced=settings.checks == "warn")

    most = settings.part_pairs
    return score(groups, teacher, store, part_pairs=most, title=title, check=check, aside=aside, drive=drive)


def _that_fit(groups: Iterable[Group], teacher: Teacher) -> Iterator[Group]:
    """The groups without those whose query is too long, which are set aside when their turn comes."""
    for group in groups:
        try:
            teacher.refuse_long_queries([group])
        except UserError:
            continue
        yield group


def _check_once(spec: PointwiseSpec, groups: Iterable[Group], teacher: Teacher, folder: Path, *, forced: bool) -> None:
    """Check a teacher unless this engine in these versions has passed for this store; what it found is kept there."""
    from distilrank.teachers.checks import check_teacher, demand

    engine = ("vllm",) if teacher.engine == "vllm" and find_spec("vllm") else ()
    used = versions("distilrank", "torch", "transformers", *engine)
    kept = folder / f"checks-{teacher.engine}.json"
    if kept.exists() and json.loads(kept.read_text(encoding="utf-8"))["versions"] == used:
        return
    say(f"  checking the teacher ({spec.kind}, {teacher.engine}) before it is paid for")
    checks = check_teacher(spec, groups, teacher)
    demand(checks, forced=forced)
    if any(check.verdict == "failed" for check in checks):
        return  # forced: it is checked anew the next time
    record = {"versions": used, "checks": [asdict(check) for check in checks]}
    write_text(kept, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
