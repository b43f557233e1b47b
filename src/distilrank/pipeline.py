"""A recipe as stages: what each reads, does and writes. The one place where the rooms are joined."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.data import cut_to_student, fetch
from distilrank.errors import UserError
from distilrank.evidence.evaluate import Role
from distilrank.metrics import is_judged
from distilrank.progress import bar, say
from distilrank.recipe import EnsembleSpec, Recipe
from distilrank.records import BadLines, Group, GroupFile, read_groups, read_scored, write_groups, write_scored
from distilrank.shards import write_text
from distilrank.stages import Stage, plan_stages, run_stages, stage_times, start_folder

NAMES = ("data", "score", "mine", "train", "evaluate", "report")


def run_recipe(recipe: Recipe, *, offline: bool = False, restart_from: str | None = None) -> Path:
    """Run all stages of a recipe, skipping what is done; returns the run folder.

    Raises `UserError` for what the user can mend; whatever was finished before stays.
    """
    start_folder(recipe.folder)
    write_text(recipe.folder / "recipe.yaml", recipe.to_yaml())
    say(f"{recipe.name} -> {recipe.folder}")
    run_stages(RecipePlan(recipe, offline=offline), recipe.folder, restart_from)
    return recipe.folder


def plan_recipe(recipe: Recipe) -> list[tuple[str, str, str]]:
    """What `run_recipe` would do, a line a stage: (stage, what it does, state). Touches no network."""
    return plan_stages(RecipePlan(recipe, offline=True), recipe.folder)


class RecipePlan:
    """The stages of a recipe. Sources are fetched when the stage that needs them is built."""

    def __init__(self, recipe: Recipe, *, offline: bool) -> None:
        self.recipe, self.offline, self.folder = recipe, offline, recipe.folder
        self.train_groups, self.test_groups = self.folder / "data/train.parquet", self.folder / "data/test.parquet"
        self.scored, self.training = self.folder / "data/train.scored.parquet", self.folder / "data/training.parquet"
        self.combination = self.folder / "data/teacher.json"
        self.model, self.evaluation = self.folder / "model", self.folder / "evaluation"

    def names(self) -> Sequence[str]:
        """The stages of this recipe, in order; without test data there is nothing to evaluate."""
        return NAMES if self.recipe.data.test else NAMES[:4]

    def describe(self, name: str) -> str:
        """What a stage does, in a line, from the recipe alone."""
        recipe = self.recipe
        members = recipe.teacher.members if isinstance(recipe.teacher, EnsembleSpec) else (recipe.teacher,)
        teacher = " + ".join(f"{member.kind} {member.model}" for member in members)
        test = f" and {recipe.data.test}" if recipe.data.test else ""
        train = recipe.train
        return {
            "data": f"read {recipe.data.train}{test}",
            "score": f"ask the teacher ({teacher})",
            "mine": f"choose the margins ({recipe.mine.strategy}, {recipe.mine.format})",
            "train": f"teach {recipe.student.model} ({train.loss}, {train.epochs:g} epoch, lr {train.learning_rate:g})",
            "evaluate": f"measure before, after, teacher and {', '.join(recipe.evaluate.baselines)}",
            "report": "write report.html",
        }[name]

    def stage(self, name: str) -> Stage:
        """The stage, with its inputs at hand. Raises `UserError` when one of them cannot be had."""
        settings, inputs, outputs = getattr(self, f"_{name}_io")()
        return Stage(name, self.describe(name), settings, inputs, outputs, getattr(self, f"_{name}"))

    # ---- where models come from

    def resolve(self, source: str) -> Path:
        """The local folder of a model source."""
        return resolve_model(source, offline=self.offline)

    @cached_property
    def student(self) -> Path:
        """The student's folder before training."""
        return self.resolve(self.recipe.student.model)

    @cached_property
    def teacher(self) -> Any:
        """The teacher, its weights not yet in memory."""
        from distilrank.teachers import build_teacher

        return build_teacher(local_teacher(self.recipe.teacher, self.resolve))

    @cached_property
    def members(self) -> tuple[Any, ...]:
        """The teacher's pointwise members; a plain teacher is its own only one."""
        from distilrank.teachers import Ensemble

        return self.teacher.members if isinstance(self.teacher, Ensemble) else (self.teacher,)

    def member_scores(self) -> list[Path]:
        """Files with each member's scores on the test groups, for an ensemble."""
        if not isinstance(self.recipe.teacher, EnsembleSpec) or not self.recipe.data.test:
            return []
        return [self.folder / f"data/test.member-{number}.parquet" for number in range(len(self.recipe.teacher.members))]

    # ---- data

    def _data_io(self) -> tuple[Any, list[Path], list[Path]]:
        data, student = self.recipe.data, self.recipe.student
        sources = [source for source in (data.train, data.test) if source]
        settings = {"data": data.model_dump(), "seed": self.recipe.seed}
        if any(source.startswith("demo:") for source in sources):
            settings["python"] = platform.python_version()
        inputs = [fetch(source, dataset=True, offline=self.offline) for source in sources if not source.startswith("demo:")]
        if data.cut_to_student:
            settings["max_length"] = student.max_length
            inputs += [file for file in sorted(self.student.glob("token*")) if file.is_file()]
        return settings, inputs, [self.train_groups, *([self.test_groups] if data.test else [])]

    def _data(self) -> None:
        data = self.recipe.data
        wanted = [(data.train, data.train_queries, self.train_groups), (data.test, data.test_queries, self.test_groups)]
        for source, most, path in wanted:
            if source:
                skip = BadLines() if data.skip_bad_lines else None
                count = write_groups(path, self._cut(islice(self._groups(source, most, skip), most)))
                if path == self.test_groups and not any(map(is_judged, read_groups(path))):
                    raise UserError(f"{source}: no query has both a positive and a negative passage: leave data.test out")
                say(f"  {path.stem}: {count:,} queries")
                if skip and skip.reasons:
                    say(f"  {skip.summary()}")

    def _groups(self, source: str, most: int | None, skip: BadLines | None) -> Iterable[Group]:
        if source.startswith("demo:"):
            from distilrank.demo import demo_groups

            part, _, candidates = source.removeprefix("demo:").partition(":")
            if part not in ("train", "test") or not (candidates or "16").isdigit():
                raise UserError(f"{source}: write it as demo:train:8 (8 passages a query) or demo:test:16")
            return demo_groups(part, most, int(candidates or 16), self.recipe.seed)
        return read_groups(fetch(source, dataset=True, offline=self.offline), skip)

    def _cut(self, groups: Iterable[Group]) -> Iterator[Group]:
        if not self.recipe.data.cut_to_student:
            return iter(groups)
        from distilrank.engines.load import load_tokenizer

        student = self.recipe.student
        return cut_to_student(
            groups, load_tokenizer(self.student, trust_remote_code=student.trust_remote_code), student.max_length
        )

    # ---- score

    def _score_io(self) -> tuple[Any, list[Path], list[Path]]:
        spec = self.recipe.teacher
        settings: dict[str, Any] = {"members": [member.identity.digest for member in self.members]}
        if isinstance(spec, EnsembleSpec):
            settings |= {"weights": [member.weight for member in spec.members], "normalize": spec.normalize}
        inputs, outputs = [self.train_groups], [self.scored, self.combination]
        if self.recipe.data.test:
            inputs.append(self.test_groups)
            outputs += [self.folder / "data/test.scored.parquet", *self.member_scores()]
        return settings, inputs, outputs

    def _score(self) -> None:
        from distilrank.scoring import scored_pairs
        from distilrank.teachers import Ensemble, release

        of_train, of_test = [], []
        for member in self.members:
            of_train.append(self._ask(member, self.train_groups))
            if self.recipe.data.test:
                of_test.append(self._ask(member, self.test_groups))
            release(member)
        affines: Sequence[Any] = ()
        train, test = of_train[0], of_test[0] if of_test else []
        if isinstance(self.teacher, Ensemble):
            affines = self.teacher.fit(of_train)
            train = self.teacher.combine(of_train, affines)
            test = self.teacher.combine(of_test, affines) if of_test else []
        write_scored(self.scored, scored_pairs(GroupFile(self.train_groups), train))
        if of_test:
            write_scored(self.folder / "data/test.scored.parquet", scored_pairs(GroupFile(self.test_groups), test))
            for path, scores in zip(self.member_scores(), of_test, strict=False):
                write_scored(path, scored_pairs(GroupFile(self.test_groups), scores))
        record = {
            "members": [asdict(member.identity) for member in self.members],
            "affines": [asdict(affine) for affine in affines],
        }
        write_text(self.combination, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    def _ask(self, member: Any, path: Path) -> list[np.ndarray]:
        """A member's scores of a file of groups: what the store lacks is asked, the rest is read."""
        from distilrank.scoring import ScoreStore, score

        groups = GroupFile(path)
        store = ScoreStore(self.recipe.store, member.identity)
        title = f"{member.identity.kind}, {path.stem}"
        asked = score(groups, member, store, part_pairs=self.recipe.score.part_pairs, title=title)
        say(f"  {title}: {asked:,} pairs scored, the rest was in the store")
        return list(store.scores(groups))

    # ---- mine

    def _mine_io(self) -> tuple[Any, list[Path], list[Path]]:
        return self.recipe.mine.model_dump(), [self.scored], [self.training]

    def _mine(self) -> None:
        from distilrank.mining import MiningSettings, mine

        spec = self.recipe.mine
        settings = MiningSettings(spec.strategy, spec.top_k, spec.num_negatives)
        count = mine(self.scored, self.training, settings, triplets=spec.format == "triplets")
        say(f"  {count:,} {spec.format}")

    # ---- train

    def _train_io(self) -> tuple[Any, list[Path], list[Path]]:
        return asdict(self._train_settings()), [self.training, *_weights(self.student)], [self.model]

    def _train_settings(self) -> Any:
        from distilrank.students import TrainSettings

        recipe = self.recipe
        bounded = all(member.identity.bounded for member in self.members) or recipe.train.bounded_scores
        return TrainSettings(
            **recipe.train.model_dump(exclude={"bounded_scores"}),
            bounded_scores=bounded,
            max_length=recipe.student.max_length,
            trust_remote_code=recipe.student.trust_remote_code,
            seed=recipe.seed,
        )

    def _train(self) -> None:
        from distilrank.students import train

        result = train(self.training, self.student, self.model, self._train_settings(), work=self.folder / "train")
        say(f"  agreement with the teacher {result.agreement_before:.4f} -> {result.agreement_after:.4f} (validation)")

    # ---- evaluate and report

    def _evaluate_io(self) -> tuple[Any, list[Path], list[Path]]:
        scored = [self.folder / "data/test.scored.parquet", *self.member_scores()]
        settings = self.recipe.evaluate.model_dump() | {"max_length": self.recipe.student.max_length}
        inputs = [self.test_groups, *scored, *_weights(self.student), self.model]
        return settings, inputs, [self.evaluation]

    def _evaluate(self) -> None:
        from distilrank.evidence import evaluate, save_evaluation

        groups = list(read_groups(self.test_groups))
        systems = [*self._given_systems(groups), *self._student_systems(groups)]
        order = {"baseline": 0, "member": 1, "before": 2, "after": 3, "teacher": 4}
        systems.sort(key=lambda system: order[system.role])
        settings: dict[str, Any] = {"title": self.recipe.name, "recipe": self.recipe.to_yaml(), "notes": self._notes(groups)}
        if record := training_record(self.model):
            settings["training"] = record
        evaluation = evaluate(groups, systems, self.recipe.evaluate.metrics, settings)
        save_evaluation(evaluation, self.evaluation)

    def _given_systems(self, groups: list[Group]) -> Iterator[Any]:
        from distilrank.data import bm25_scores
        from distilrank.evidence import System

        if "bm25" in self.recipe.evaluate.baselines:
            yield System("bm25", "baseline", bm25_scores(groups))
        yield System("teacher", "teacher", scores_of(self.folder / "data/test.scored.parquet", groups))
        names: list[str] = []
        for member, path in zip(self.members, self.member_scores(), strict=False):
            names.append(member.identity.kind)
            suffix = f" {names.count(names[-1])}" if names.count(names[-1]) > 1 else ""
            yield System(f"{names[-1]}{suffix}", "member", scores_of(path, groups))

    def _student_systems(self, groups: list[Group]) -> Iterator[Any]:
        from distilrank.evidence import System

        student = self.recipe.student
        options: dict[str, Any] = {"max_length": student.max_length, "trust_remote_code": student.trust_remote_code}
        yield System("before", "before", student_scores(self.student, groups, title="before", **options))
        yield System("after", "after", student_scores(self.model, groups, title="after", **options))

    def _notes(self, groups: list[Group]) -> list[str]:
        notes = []
        if (self.recipe.data.test or "").startswith("demo:"):
            from distilrank.demo import NOTES

            notes += NOTES
        taught = {group.query for group in read_groups(self.train_groups)}
        shared = sum(group.query in taught for group in groups)
        notes.append(f"{shared} of the {len(groups)} test queries also occur among the {len(taught):,} training queries.")
        return notes

    def _report_io(self) -> tuple[Any, list[Path], list[Path]]:
        return {}, [self.evaluation], [self.folder / "report.html"]

    def _report(self) -> None:
        from dataclasses import replace

        from distilrank.evidence import load_evaluation, write_report

        evaluation = load_evaluation(self.evaluation)
        settings = dict(evaluation.settings) | {"stages": stage_times(self.folder)}
        write_report(replace(evaluation, settings=settings), self.folder / "report.html")


def resolve_model(source: str, *, offline: bool = False) -> Path:
    """The local folder of a model source, the demo's models among them. Raises `UserError` when it is no folder."""
    if source.startswith("demo:"):
        from distilrank.demo import demo_model

        return demo_model(source.removeprefix("demo:"), offline=offline)
    folder = fetch(source, offline=offline)
    if not folder.is_dir():
        raise UserError(f"{source}: a model is a folder, this is a file")
    return folder


def given_systems(
    test: Path, models: Sequence[str], scored: Path | None, *, max_length: int, offline: bool, skip: BadLines | None
) -> tuple[list[Group], list[Any], dict[str, Any]]:
    """The groups of a test file, the systems to compare on them, and what is known of them.

    BM25 always; the teacher where its scored pairs are given; one model, or two as before and after, or more by name.
    """
    from distilrank.data import bm25_scores
    from distilrank.evidence import System

    groups = list(read_groups(test, skip))
    systems: list[Any] = [System("bm25", "baseline", bm25_scores(groups))]
    settings: dict[str, Any] = {"title": test.name, "models": list(models)}
    for number, source in enumerate(models):
        folder = resolve_model(source, offline=offline)
        roles: tuple[Role, Role] = ("before", "after")
        role: Role = roles[number] if len(models) == 2 else "model"
        name = role if len(models) == 2 else source
        systems.append(System(name, role, student_scores(folder, groups, max_length=max_length, title=name)))
        if record := training_record(folder):
            settings["training"] = record
    if scored:
        systems.append(System("teacher", "teacher", scores_of(scored, groups, skip)))
    return groups, systems, settings


def local_teacher(spec: Any, resolve: Any) -> Any:
    """A recipe's teacher with every model source replaced by its local folder."""
    if isinstance(spec, EnsembleSpec):
        return spec.model_copy(update={"members": tuple(local_teacher(member, resolve) for member in spec.members)})
    return spec.model_copy(update={"model": str(resolve(spec.model))})


def student_scores(
    folder: Path, groups: list[Group], *, max_length: int, title: str, trust_remote_code: bool = False
) -> list[np.ndarray]:
    """A student's raw logits on groups, float32 [passages] each."""
    from distilrank.engines.classifier import Reranker

    with bar(title, sum(len(group.passages) for group in groups), "pairs") as advance:
        reranker = Reranker(folder, max_length=max_length, trust_remote_code=trust_remote_code)
        return reranker.score(groups, advance)


def scores_of(path: Path, groups: Sequence[Group], skip: BadLines | None = None) -> list[np.ndarray]:
    """Scored pairs looked up for groups by content. Raises `UserError` when a pair has no score."""
    known = {(pair.query, pair.passage): pair.score for pair in read_scored(path, skip)}
    result = []
    for group in groups:
        try:
            values = [known[group.query, passage.text] for passage in group.passages]
        except KeyError:
            raise UserError(f"{path}: no score for a passage of the query {group.query[:60]!r}") from None
        result.append(np.asarray(values, dtype=np.float32))
    return result


def training_record(folder: Path) -> dict[str, Any] | None:
    """How a model of ours was trained; none for any other model."""
    from distilrank.students.train import RECORD

    path = folder / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _weights(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.suffix in (".safetensors", ".json", ".txt", ".model")]
