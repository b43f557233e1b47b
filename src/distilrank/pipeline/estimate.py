"""What a recipe will take, before it is paid for: pairs, tokens, hours, memory, disk and money.

A stage's seconds are what it takes to start, a cost a step, and FLOPs by the rate that was measured for their kind
(`throughput.yaml`) or is measured here (`calibrate.py`). FLOPs are those of matrix products: 2 a parameter and token read,
6 trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from distilrank.errors import UserError
from distilrank.mining.sampling import draws
from distilrank.pipeline.hardware import Hardware, throughputs
from distilrank.pipeline.measuring import timings
from distilrank.pipeline.plan import RecipePlan
from distilrank.pipeline.room import disk, memory
from distilrank.pipeline.sizes import (
    Part,
    bytes_of,
    configured,
    model_folder,
    pair_tokens,
    prompt_tokens,
    read_part,
    text_tokens,
)
from distilrank.progress import say
from distilrank.recipe import EnsembleSpec, MineSpec, Recipe

PAIRS_MINED = 68_000
"""A second: docs/performance.md, Mining."""
PAIRS_READ = 20_000
"""A second, where no data could be read here."""
CHECKED = 110
"""Pairs that a language model is asked in its checks (`teachers/checks.py`): its canaries, and some twice."""


@dataclass(frozen=True)
class Work:
    """What a model has to do: pairs, tokens, FLOPs, and the kind of rate."""

    kind: str
    pairs: float
    tokens: float
    flops: float
    passes: float = 0.0
    """Steps, or batches, that cost something beside their products."""


@dataclass(frozen=True)
class StageEstimate:
    """One stage; tokens are those that models read or learn from."""

    stage: str
    pairs: int
    tokens: int
    seconds: float
    basis: str


@dataclass(frozen=True)
class Estimate:
    """What a run will take."""

    recipe: str
    hardware: str
    queries: Mapping[str, int]
    pairs: int
    known: int
    """Pairs whose scores are in the store already."""
    stages: Sequence[StageEstimate]
    memory_gb: float
    """The most that a device holds."""
    disk_gb: float
    money: float | None
    notes: Sequence[str] = field(default=())

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)


class Estimator:
    """One recipe, what of it can be reached, and what cannot."""

    def __init__(self, recipe: Recipe, on: Hardware, *, offline: bool) -> None:
        self.recipe, self.on, self.offline = recipe, on, offline
        self.notes: list[str] = []
        self.plan = RecipePlan(recipe, offline=offline)
        self.folders: dict[str, tuple[Path | None, bool]] = {}
        student = self.folder(recipe.student.model)[0]
        if student:
            vars(self.plan)["student"] = student  # its tokenizer cuts the passages; its weights are not needed
        self.student = configured(recipe.student.model, student, throughputs(), self.notes)
        self.tokenizer = self.loaded(student)
        self.train = self.part("train", recipe.data.train, recipe.data.train_queries)
        self.test = self.part("test", recipe.data.test, recipe.data.test_queries) if recipe.data.tested else Part()

    # ---- what can be reached

    def folder(self, source: str) -> tuple[Path | None, bool]:
        """A model's folder and whether its weights are in it; said once where it cannot be reached."""
        if source not in self.folders:
            try:
                self.folders[source] = model_folder(source, offline=self.offline)
            except UserError as error:
                self.folders[source] = None, False
                self.notes.append(f"not reached: {error}; its texts are reckoned as 4 characters a token")
        return self.folders[source]

    def loaded(self, folder: Path | None) -> Any:
        """The tokenizer in a folder, if any."""
        from distilrank.engines.load import load_tokenizer

        return load_tokenizer(folder) if folder else None

    def part(self, name: str, source: str | None, most: int | None) -> Part:
        """The groups of a part, read here, or what is known of them."""
        made = self.plan.train_groups if name == "train" else self.plan.test_groups
        try:
            if made.exists():
                from distilrank.records import GroupFile

                return read_part(GroupFile(made), made.stat().st_size, None)
            if source is None:
                raise UserError("its queries are written in the run")
            groups = self.plan._groups(source, most, None if not self.recipe.data.skip_bad_lines else _skip())
            some = islice(groups, most)
            return read_part(self.plan._cut(some) if self.tokenizer else some, bytes_of(source, offline=self.offline), most)
        except UserError as error:
            guess = throughputs()["data"].get(source) or throughputs()["unknown_data"]
            known = "its published numbers are taken" if source in throughputs()["data"] else "a guess is taken"
            if corpus := self.recipe.data.corpus:
                guess = guess | {"passages": corpus.depth + corpus.random_negatives, "passage": corpus.tokens}
                if corpus.write:
                    held = corpus.write.held_out if self.recipe.data.holds_out else 0.0
                    written = 0.5 * corpus.write.count * corpus.write.per_passage  # about half of them are kept
                    guess |= {"queries": written * (held if name == "test" else 1 - held)}
            queries = min(int(guess["queries"]), most or 10**12)
            self.notes.append(
                f"{name} groups not read: {error}; {known}: {queries:,} queries of {guess['passages']:g} passages"
            )
            cut = min(guess["passage"], self.recipe.student.max_length - guess["query"] - 4)
            characters = queries * guess["passages"] * 4 * (cut + guess["query"] / guess["passages"])
            pairs = queries * guess["passages"]
            return Part(queries, round(pairs), round(characters), pairs / PAIRS_READ, guess=guess | {"passage": cut})

    # ---- the work

    def members(self) -> list[tuple[Any, Any, Path | None]]:
        """Each pointwise teacher: its settings, the teacher without its weights (or none), and its folder."""
        from distilrank.teachers.build import build_pointwise

        spec = self.recipe.teacher
        found: list[tuple[Any, Any, Path | None]] = []
        for member in spec.members if isinstance(spec, EnsembleSpec) else (spec,):
            folder = None if member.kind == "http" else self.folder(member.model)[0]
            local = member.model_copy(update={"model": str(folder)}) if folder else None
            found.append((member, build_pointwise(local) if local else None, folder))
        return found

    def asked(self, member: Any, teacher: Any, folder: Path | None, part: Part) -> Work | None:
        """What a teacher has to do for a part; none for a server, whose machine is not this one."""
        if member.kind == "http":
            return None
        shape = configured(member.model, folder, throughputs(), self.notes if part is self.train else [])
        head = 0.0
        if member.kind in ("causal", "likelihood"):
            tokens, tails = prompt_tokens(part, teacher, self.on.device)
            head = tails * shape.head if member.kind == "likelihood" else 0.0
            kind = "decoder_float8" if member.dtype == "float8" else "decoder"
        else:
            counted = text_tokens if member.kind == "embedder" else pair_tokens
            tokens = counted(part, self.loaded(folder), member.max_length)
            kind = "embedder" if member.kind == "embedder" else "encoder"
        return Work(kind, part.pairs, tokens * part.pairs, 2 * part.pairs * (tokens * shape.linear + head))

    def taught(self) -> tuple[Work, Work]:
        """What training has to do, and its validations."""
        recipe, train = self.recipe, self.recipe.train
        share = 1 - train.validation
        tokens = pair_tokens(self.train, self.tokenizer, recipe.student.max_length)
        pairs = self.passages_a_query() * self.train.queries * share * train.epochs
        if train.mode == "triplets":
            passes = pairs / 2 / train.batch_size
        else:
            passes = self.groups_a_query() * self.train.queries * share * train.epochs / train.queries_per_step
        again = 8 if train.gradient_checkpointing else 6
        held = min(self.train.pairs * train.validation, 512 * self.train.pairs / max(1, self.train.queries))
        looks = (train.evaluations + 2) * held
        return (
            Work("train", pairs, pairs * tokens, again * pairs * tokens * self.student.linear, passes),
            Work("encoder", looks, looks * tokens, 2 * looks * tokens * self.student.linear),
        )

    def passages_a_query(self) -> float:
        """How many passages of a query are forwarded in an epoch, on average."""
        counts = self._passages()
        return sum(passages_taught(n, self.recipe.mine) for n in counts) / len(counts)

    def groups_a_query(self) -> float:
        """How many training groups a query gives, on average: a step takes these, and not queries."""
        counts = self._passages()
        return sum(groups_taught(n, self.recipe.mine)[0] for n in counts) / len(counts)

    def _passages(self) -> list[int]:
        return [len(group.passages) for group in self.train.sample] or [round(self.train.guess["passages"])]

    def known(self, work: Sequence[tuple[Any, Any, Path | None]]) -> float:
        """The share of the pairs that the store has, by the sample: a pair counts once all members have scored it."""
        from distilrank.scoring import ScoreStore
        from distilrank.shards import parts

        groups = [group for part in (self.train, self.test) for group in part.sample]
        pairs = sum(len(group.passages) for group in groups)
        least = 1.0 if groups else 0.0
        try:
            for member, teacher, _ in work:
                # Without its weights nobody knows a teacher's identity.
                weighed = least and teacher is not None and (member.kind == "http" or self.folder(member.model)[1])
                if not weighed or not parts(self.recipe.store / teacher.identity.digest):
                    return 0.0
                with ScoreStore(self.recipe.store, teacher.identity).missing(groups) as missing:
                    least = min(least, 1 - missing.pairs / pairs)
        except UserError as error:
            self.notes.append(f"the score store is not read: {error}; it is taken to be empty")
            return 0.0
        return least


def estimate(
    recipe: Recipe,
    on: Hardware,
    *,
    offline: bool = False,
    price: float | None = None,
    calibrate: bool = False,
) -> Estimate:
    """What a run of a recipe takes on some hardware. `price` is of the machine, an hour; `calibrate` measures rates here.

    Data are read, and fetched where they are not here; of models only what says their size, and their tokenizers.
    """
    say(f"planning {recipe.name}: reading its data")
    found = Estimator(recipe, on, offline=offline)
    members = found.members()
    if calibrate:
        from distilrank.pipeline.calibrate import calibrated

        say("  measuring rates here, for about 30 seconds")
        on = found.on = calibrated(found, members, on)
    parts = [part for part in (found.train, found.test) if part.queries]
    works = [[found.asked(*member, part) for member in members] for part in parts]
    known = found.known(members)
    pairs = sum(part.pairs for part in parts)
    if any(work is None for of_part in works for work in of_part):
        found.notes.append("a server scores: its time is not reckoned")
    scoring = [work for of_part in works for work in of_part if work]
    checking = [] if recipe.score.checks == "skip" else [_checks(work) for work in works[0] if work]
    training, looking = found.taught()
    tested = _tested(found)
    mode = recipe.train.mode
    pass_cost = on.step["forward" if mode == "triplets" else "step"]

    def took(*work: Work, count: int = 1) -> float:
        return sum(one.flops / on.rates[one.kind] for one in work) / count

    def started(stage: str) -> float:
        return on.start.get(stage, 0.0)

    left = 1 - known
    stages = [
        StageEstimate(
            "data",
            pairs,
            0,
            sum(part.seconds for part in parts) + started("data"),
            "read here" if found.train.sample else "guess",
        ),
        StageEstimate(
            "score",
            round(pairs * left),
            round(sum(work.tokens for work in scoring) * left),
            took(*scoring, count=on.count) * left + (started("score") + took(*checking) if left else 0),
            on.basis,
        ),
        StageEstimate("mine", found.train.pairs, 0, found.train.pairs / PAIRS_MINED, "docs/performance.md, Mining"),
        StageEstimate(
            "train",
            round(training.pairs),
            round(training.tokens),
            (took(training) + training.passes * pass_cost) / on.count + took(looking) + started("train"),
            on.basis,
        ),
    ]
    if tested:
        tokens = round(sum(work.tokens for work in tested))
        seconds = took(*tested) + _timing(found, members, works[-1]) + started("evaluate")
        stages.append(StageEstimate("evaluate", round(sum(work.pairs for work in tested)), tokens, seconds, on.basis))
        stages.append(StageEstimate("report", 0, 0, 1.0, "docs/performance.md"))
    total = sum(stage.seconds for stage in stages)
    needed = memory(found, members)
    if on.memory and needed > on.memory:
        found.notes.append(f"{needed:,.0f} GB do not fit into {on.memory:g} GB: see docs/plan.md")
    return Estimate(
        recipe.name,
        f"{on.count} x {on.name}" if on.device == "cuda" else on.name,
        {"train": found.train.queries, "test": found.test.queries},
        pairs,
        round(pairs * known),
        stages,
        needed,
        disk(found, members, pairs, training),
        None if price is None else price * total / 3600,
        tuple(dict.fromkeys(found.notes)),
    )


def groups_taught(passages: int, mine: MineSpec) -> tuple[int, int]:
    """How many training groups a query with so many passages gives, and how many passages each of them has."""
    if mine.strategy == "adjacent":
        return 1, min(passages, mine.top_k + mine.num_negatives)
    drawn = passages if mine.strategy == "all_pairs" else min(passages, mine.passages)
    return draws(passages, drawn, mine.samples), drawn


def passages_taught(passages: int, mine: MineSpec) -> int:
    """How many passages of a query are forwarded in an epoch: two a triplet, or each one of its training groups."""
    groups, drawn = groups_taught(passages, mine)
    if mine.format == "groups":
        return groups * drawn
    if mine.strategy == "adjacent":
        return 2 * sum(min(mine.num_negatives, passages - 1 - rank) for rank in range(min(mine.top_k, passages)))
    return groups * drawn * (drawn - 1)


def _checks(work: Work) -> Work:
    """What the checks of a teacher ask before the first pair; those of an encoder are few enough to forget."""
    share = CHECKED / max(1.0, work.pairs) if work.kind.startswith("decoder") else 0.0
    return Work(work.kind, CHECKED, 0, work.flops * share)


def _tested(found: Estimator) -> list[Work]:
    """What the students score: the test pairs each and, before and after training, the sets outside the domain."""
    from distilrank.pipeline.systems import sets_outside

    if not found.test.queries:
        return []
    spec = found.recipe.evaluate
    try:
        outside = [read_part(groups, None, None) for groups in sets_outside(spec, offline=found.offline).values()]
    except UserError as error:
        found.notes.append(f"not reckoned: {error}")
        outside = []
    works = []
    for part in [found.test] * (2 + len(spec.models)) + 2 * outside:
        tokens = part.pairs * pair_tokens(part, found.tokenizer, found.recipe.student.max_length)
        works.append(Work("encoder", part.pairs, tokens, 2 * tokens * found.student.linear))
    return works


def _timing(found: Estimator, members: Sequence[tuple[Any, Any, Path | None]], works: Sequence[Work | None]) -> float:
    """Seconds for what is timed of each system; `works` are the members' on the test pairs."""
    spec, test = found.recipe.evaluate, found.test
    if not spec.latency:
        return 0.0
    pair = pair_tokens(test, found.tokenizer, found.recipe.student.max_length)
    student = 2 * test.pairs * pair * found.student.linear / test.queries
    asked = [(work.kind, work.flops / test.queries) for work in works if work]
    # A server and vLLM are not timed.
    all_here = len(asked) == len(works) and not any(getattr(member, "engine", "") == "vllm" for member, _, _ in members)
    return timings(student, 2 + len(spec.models), asked if all_here else (), spec.latency, found.on)


def _skip() -> Any:
    from distilrank.rows import BadLines

    return BadLines()
