"""A recipe as stages: what each reads, does and writes. The one place where the rooms are joined."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distilrank.data import cut_to_student
from distilrank.data.formats import read_any_groups
from distilrank.data.sources import fetch, located, revision_of
from distilrank.errors import UserError
from distilrank.metrics import is_judged
from distilrank.pipeline.ask import ask, local_teacher, resolve_model
from distilrank.pipeline.corpus import WRITTEN_TEST, CorpusData, corpus_inputs, corpus_models, describe_corpus
from distilrank.pipeline.where import Where
from distilrank.progress import say
from distilrank.recipe import EnsembleSpec, Recipe
from distilrank.records import Group, GroupFile, read_groups, write_groups, write_scored
from distilrank.rows import BadLines
from distilrank.shards import write_text
from distilrank.stages import Stage, stage_times

if TYPE_CHECKING:
    from distilrank.pipeline.systems import Student

NAMES = ("data", "score", "mine", "train", "evaluate", "report")


class RecipePlan:
    """The stages of a recipe. Sources are fetched when the stage that needs them is built."""

    def __init__(self, recipe: Recipe, *, offline: bool, ranks: Any = None, where: Where | None = None) -> None:
        """`ranks`: the processes that wait to join the training (`students.ranks`), if any. `where` teachers score."""
        self.recipe, self.offline, self.folder = recipe, offline, recipe.folder
        self.ranks, self.trained, self.where = ranks, False, where or Where()
        self.train_groups, self.test_groups = self.folder / "data/train.parquet", self.folder / "data/test.parquet"
        self.scored, self.training = self.folder / "data/train.scored.parquet", self.folder / "data/training.parquet"
        self.test_scored, self.combination = self.folder / "data/test.scored.parquet", self.folder / "data/teacher.json"
        self.model, self.evaluation = self.folder / "model", self.folder / "evaluation"

    def names(self) -> Sequence[str]:
        """The stages of this recipe, in order; without test data there is nothing to evaluate."""
        return NAMES if self.recipe.data.tested else NAMES[:4]

    def describe(self, name: str) -> str:
        """What a stage does, in a line, from the recipe alone."""
        recipe = self.recipe
        teacher = " + ".join(f"{member.kind} {member.source}" for member in self.named)
        test = f" and {recipe.data.test}" if recipe.data.test else ""
        read = f"read {recipe.data.train}" if recipe.data.corpus is None else describe_corpus(recipe.data.corpus)
        train = recipe.train
        return {
            "data": f"{read}{test}",
            "score": f"ask the teacher ({teacher})",
            "mine": f"choose the margins ({recipe.mine.strategy}, {recipe.mine.format})",
            "train": f"teach {recipe.student.model} ({train.told}, lr {train.learning_rate})",
            "evaluate": f"measure {', '.join(['before', 'after', 'teacher', *recipe.evaluate.baselines])}",
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

        return build_teacher(self._local_spec)

    @cached_property
    def _local_spec(self) -> Any:
        return local_teacher(self.recipe.teacher, self.resolve)

    @property
    def named(self) -> tuple[Any, ...]:
        """The settings of each pointwise member, their models by the recipe's names."""
        teacher = self.recipe.teacher
        return teacher.members if isinstance(teacher, EnsembleSpec) else (teacher,)

    @property
    def specs(self) -> tuple[Any, ...]:
        """The settings of each pointwise member, their models local."""
        return self._local_spec.members if isinstance(self._local_spec, EnsembleSpec) else (self._local_spec,)

    @cached_property
    def members(self) -> tuple[Any, ...]:
        """The teacher's pointwise members; a plain teacher is its own only one."""
        from distilrank.teachers import Ensemble

        return self.teacher.members if isinstance(self.teacher, Ensemble) else (self.teacher,)

    def member_scores(self) -> list[Path]:
        """Files with each member's scores on the test groups, for an ensemble."""
        if not isinstance(self.recipe.teacher, EnsembleSpec) or not self.recipe.data.tested:
            return []
        return [self.folder / f"data/test.member-{number}.parquet" for number in range(len(self.recipe.teacher.members))]

    # ---- data

    def _data_io(self) -> tuple[Any, list[Path], list[Path]]:
        data, student = self.recipe.data, self.recipe.student
        sources = [source for source in (data.train, data.test) if source]
        settings = {"data": data.model_dump(), "seed": self.recipe.seed}
        if any(source.startswith("demo:") for source in sources):
            settings["python"] = platform.python_version()
        inputs = []
        for source in sources:
            found = "" if source.startswith("demo:") else located(source, offline=self.offline)
            if not isinstance(found, str):
                inputs += found
                settings |= _revision(source, found[0])
        if data.corpus:
            inputs += corpus_inputs(data.corpus)
            inputs += [file for model in corpus_models(data.corpus) for file in _weights(self.resolve(model))]
        if data.cut_to_student or (data.corpus and data.corpus.documents):
            settings["max_length"] = student.max_length
            inputs += [file for file in sorted(self.student.glob("token*")) if file.is_file()]
        return settings, inputs, [self.train_groups, *([self.test_groups] if data.tested else [])]

    def _data(self) -> None:
        data = self.recipe.data
        skip = BadLines() if data.skip_bad_lines else None
        if data.tested:
            self._outside()  # what is wrong with them is told before the night, not after it
        with ExitStack() as open_until_written:
            made = open_until_written.enter_context(self._corpus_data(skip)) if data.corpus else None
            wanted = [(data.train, data.train_queries, self.train_groups), (data.test, data.test_queries, self.test_groups)]
            for source, most, path in wanted if data.tested else wanted[:1]:
                groups = self._groups(source, most, skip) if source else made.groups(path.stem) if made else ()
                count = write_groups(path, self._cut(islice(groups, most), skip))
                say(f"  {path.stem}: {count:,} queries")
                if path == self.test_groups and not any(map(is_judged, read_groups(path))):
                    say("  no test query has both a positive and a negative passage: agreement with the teacher is measured")
        if skip and skip.reasons:
            say(f"  {skip.summary()}")

    def _corpus_data(self, skip: BadLines | None) -> CorpusData:
        assert self.recipe.data.corpus
        return CorpusData(
            self.recipe.data.corpus,
            self._tokenizer,
            self.folder.parent if "://" in (self.recipe.score.store or "") else self.recipe.store.parent,
            self.resolve,
            seed=self.recipe.seed,
            hold_out=self.recipe.data.holds_out,
            skip=skip,
        )

    def _groups(self, source: str, most: int | None, skip: BadLines | None) -> Iterable[Group]:
        if source.startswith("demo:"):
            from distilrank.demo import demo_groups

            part, _, candidates = source.removeprefix("demo:").partition(":")
            if part not in ("train", "test") or not (candidates or "16").isdigit():
                raise UserError(f"{source}: write it as demo:train:8 (8 passages a query) or demo:test:16")
            return demo_groups(part, most, int(candidates or 16), self.recipe.seed)
        return read_any_groups(located(source, offline=self.offline), skip=skip, offline=self.offline)

    def _cut(self, groups: Iterable[Group], skip: BadLines | None = None) -> Iterator[Group]:
        if not self.recipe.data.cut_to_student:
            return iter(groups)
        return cut_to_student(groups, self._tokenizer(), self.recipe.student.max_length, skip)

    def _tokenizer(self) -> Any:
        from distilrank.engines.load import load_tokenizer

        return load_tokenizer(self.student, trust_remote_code=self.recipe.student.trust_remote_code)

    # ---- score

    def _score_io(self) -> tuple[Any, list[Path], list[Path]]:
        spec = self.recipe.teacher
        settings: dict[str, Any] = {"members": [member.identity.digest for member in self.members]}
        for given, local in zip(getattr(spec, "members", (spec,)), self.specs, strict=True):
            settings |= _revision(given.source, Path(local.source))
        if isinstance(spec, EnsembleSpec):
            settings |= {"weights": [member.weight for member in spec.members], "normalize": spec.normalize}
        inputs, outputs = [self.train_groups], [self.scored, self.combination]
        if self.recipe.data.tested:
            inputs.append(self.test_groups)
            outputs += [self.test_scored, *self.member_scores()]
        return settings, inputs, outputs

    def _score(self) -> None:
        """Ask each member for what the store lacks, then read the store and write files; scores are never held at once."""
        from distilrank.scoring import ScoreStore, scored_pairs
        from distilrank.teachers import Ensemble

        parts = [(self.train_groups, self.scored)]
        if self.recipe.data.tested:
            parts.append((self.test_groups, self.test_scored))
        stores = []
        for named, spec, member in zip(self.named, self.specs, self.members, strict=True):
            stores.append(store := ScoreStore(self.recipe.store, member.identity, named.source))
            with self.where.drive(named, spec, offline=self.offline) as drive:
                for path, _ in parts:
                    title = f"{member.identity.kind}, {path.stem}"
                    asked = ask(GroupFile(path), spec, member, store, self.recipe.score, title=title, drive=drive)
                    say(f"  {title}: {asked:,} pairs scored now")
            member.release()

        def kept(path: Path) -> list[Iterator[np.ndarray]]:
            return [store.scores(GroupFile(path)) for store in stores]

        ensemble = self.teacher if isinstance(self.teacher, Ensemble) else None
        affines = ensemble.fit(kept(self.train_groups)) if ensemble else ()
        for path, output in parts:
            scores = ensemble.combined(kept(path), affines) if ensemble else kept(path)[0]
            written = write_scored(output, scored_pairs(GroupFile(path), scores))
            say(f"  {path.stem}: {written:,} pairs with their scores")
        for output, scores in zip(self.member_scores(), kept(self.test_groups), strict=False):
            write_scored(output, scored_pairs(GroupFile(self.test_groups), scores))
        record = {
            "members": [asdict(member.identity) for member in self.members],
            "affines": [asdict(affine) for affine in affines],
        }
        write_text(self.combination, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    # ---- mine

    def _mine_io(self) -> tuple[Any, list[Path], list[Path]]:
        return self.recipe.mine.model_dump() | {"seed": self.recipe.seed}, [self.scored], [self.training]

    def _mine(self) -> None:
        from distilrank.mining import MiningSettings, mine

        spec = self.recipe.mine
        settings = MiningSettings(**spec.model_dump(exclude={"format"}), seed=self.recipe.seed)
        count = mine(self.scored, self.training, settings, triplets=spec.format == "triplets")
        say(f"  {count:,} {spec.format}")

    # ---- train

    def _train_io(self) -> tuple[Any, list[Path], list[Path]]:
        settings = self.train_settings().model_dump() | _revision(self.recipe.student.model, self.student)
        return settings, [self.training, *_weights(self.student)], [self.model]

    def train_settings(self) -> Any:
        """The settings of the training, as the whole recipe makes them."""
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
        from distilrank.pipeline.systems import scores_of
        from distilrank.pipeline.worth import compare_with_teacher
        from distilrank.students.train import train, train_together

        if self.recipe.data.tested:
            groups = list(read_groups(self.test_groups))
            compare_with_teacher(self._before(), groups, scores_of(self.test_scored, groups))
        self.trained = True
        data, work = (self.training, self.student, self.model, self.train_settings()), self.folder / "train"
        result = train_together(self.ranks, *data, work=work) if self.ranks else train(*data, work=work)
        if result.agreement_after == result.agreement_after:
            say(f"  agreement with the teacher {result.agreement_before:.4f} -> {result.agreement_after:.4f} (validation)")

    # ---- evaluate and report

    def _evaluate_io(self) -> tuple[Any, list[Path], list[Path]]:
        scored = [self.test_scored, *self.member_scores()]
        spec = self.recipe.evaluate
        settings = spec.model_dump(exclude={"max_forgetting"}) | {"max_length": self.recipe.student.max_length}
        sets = [source for source in spec.out_of_domain if not source.startswith("demo:")]
        outside = [fetch(source, dataset=True, offline=self.offline) for source in sets]
        # The model's card is no input: it is written anew once there is evidence.
        inputs = [self.test_groups, *scored, *_weights(self.student), *_weights(self.model), *outside]
        return settings, inputs, [self.evaluation]

    def _evaluate(self) -> None:
        from distilrank.evidence import System, evaluate, save_evaluation
        from distilrank.pipeline.costs import teacher_cost
        from distilrank.pipeline.names import published_recipe, published_source
        from distilrank.pipeline.systems import (
            baseline_names,
            baselines,
            measure_students,
            member_systems,
            scores_of,
            students_of,
            training_record,
        )

        groups = list(read_groups(self.test_groups))
        spec, before = self.recipe.evaluate, self._before()
        teachers = [(member.identity.kind, named.source) for member, named in zip(self.members, self.named, strict=True)]
        members = list(member_systems(teachers, self.member_scores(), groups))
        taken = ["before", "after", "teacher", *baseline_names(spec), *(member.name for member in members)]
        students = [
            before,
            replace(before, name="after", role="after", folder=self.model),
            *students_of(spec.models, taken, self.resolve, before.max_length),
        ]
        first = list(baselines(groups, spec, offline=self.offline))
        measured, costs, forgetting = measure_students(students, groups, spec, self._outside())
        source = " + ".join(published_source(source) for _, source in teachers)
        teacher = System("teacher", "teacher", scores_of(self.test_scored, groups), source)
        systems = [*first, *members, *measured, teacher]
        folders = [Path(getattr(member, "model", "")) for member in self.specs]
        if spec.latency and (cost := teacher_cost(self.members, folders, groups, spec.latency)):
            costs["teacher"] = cost
        recipe = published_recipe(self.recipe.to_yaml())
        settings: dict[str, Any] = {"title": self.recipe.name, "recipe": recipe, "notes": self._notes(groups)}
        if record := training_record(self.model):
            settings["training"] = record
        found = evaluate(groups, systems, spec.metrics, settings, counting=spec.counting, costs=costs, forgetting=forgetting)
        save_evaluation(found, self.evaluation)

    def _before(self) -> Student:
        """The student as it is before training."""
        from distilrank.pipeline.names import published_source
        from distilrank.pipeline.systems import Student

        spec = self.recipe.student
        return Student(
            "before", "before", self.student, spec.max_length, published_source(spec.model), spec.trust_remote_code
        )

    def _outside(self) -> dict[str, list[Group]]:
        from distilrank.pipeline.systems import sets_outside

        skip = BadLines() if self.recipe.data.skip_bad_lines else None
        return sets_outside(self.recipe.evaluate, offline=self.offline, skip=skip)

    def _notes(self, groups: list[Group]) -> list[str]:
        from distilrank.demo import notes_on

        notes = notes_on(self.recipe.data.test, *self.recipe.evaluate.out_of_domain)
        if self.recipe.data.holds_out:
            notes.append(WRITTEN_TEST)
        taught = {group.query for group in read_groups(self.train_groups)}
        shared = sum(group.query in taught for group in groups)
        notes.append(f"{shared} of the {len(groups)} test queries also occur among the {len(taught):,} training queries.")
        return notes

    def _report_io(self) -> tuple[Any, list[Path], list[Path]]:
        settings = {"max_forgetting": self.recipe.evaluate.max_forgetting}
        return settings, [self.evaluation, *_weights(self.model)], [self.folder / "report.html", self.model / "README.md"]

    def _report(self) -> None:
        from distilrank.evidence import load_evaluation, write_report
        from distilrank.evidence.card import model_card
        from distilrank.evidence.forgetting import demand_memory
        from distilrank.pipeline.origins import origins_of

        evaluation = load_evaluation(self.evaluation)
        origins = origins_of(self.recipe, self.student, list(zip(self.named, self.specs, strict=True)))
        settings = dict(evaluation.settings) | {"stages": stage_times(self.folder)}
        write_report(replace(evaluation, settings=settings), self.folder / "report.html")
        write_text(self.model / "README.md", model_card(evaluation, origins))
        if self.recipe.evaluate.max_forgetting is not None:
            demand_memory(evaluation.forgetting, self.recipe.evaluate.max_forgetting)


def _revision(source: str, path: Path) -> dict[str, str]:
    """The revision of what a hub gave, for the manifest."""
    revision = revision_of(path)
    return {f"revision of {source}": revision} if revision else {}


def _weights(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.suffix in (".safetensors", ".json", ".txt", ".model")]
