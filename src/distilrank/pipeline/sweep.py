"""Choosing how a student learns: several short trainings of a recipe, judged on held-out training queries alone."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilrank.errors import UserError
from distilrank.pipeline.plan import RecipePlan
from distilrank.progress import say
from distilrank.recipe import Recipe, TrainSpec
from distilrank.shards import digest
from distilrank.stages import run_stages, start_folder

if TYPE_CHECKING:
    from distilrank.students import TrainSettings

STUDY = "study.db"
KNOBS: dict[str, Any] = {
    "learning_rate": (5e-6, 4e-4),
    "queries_per_step": (4, 8, 16, 32),
    "dropout": (None, 0.0),
    "loss": ({"margin_mse": 1.0, "kl": 1.0}, "weighted_margin_mse", "margin_mse"),
}
"""What is tried: a range by its logarithm, or some values. The passes over the data, and so the cost, stay the recipe's."""
FEWEST_BEFORE_PRUNING = 4


@dataclass(frozen=True)
class Trial:
    """One training: what it changed, and nDCG@10 against the teacher's order on validation queries (none: cut short)."""

    number: int
    changes: dict[str, Any]
    agreement: float | None
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """All trainings, and the recipe with the settings of the best."""

    trials: tuple[Trial, ...]
    best: Trial
    recipe: Recipe


def sweep(recipe: Recipe, minutes: float, *, most: int | None = None, offline: bool = False) -> Sweep:
    """Train with other settings again and again, for so many minutes and `most` times; returns all, and the best recipe.

    The stages up to `mine` are run first, where they are not done; they do not count. The first trial is the recipe as it
    is, the rest are Optuna's (Akiba et al. 2019, arXiv 1907.10902), which cuts short what falls behind the median. The same
    command goes on with the trials that are there. Test data are never read.

    Raises `UserError` when Optuna is not installed, when the recipe has no validation queries or is not in mode groups, and
    when not one training was finished in the time.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("sweep needs Optuna: pip install 'distilrank[sweep]'") from None
    if recipe.train.mode != "groups":
        raise UserError("sweep is for train.mode groups: the published way has its own settings")
    if not recipe.train.validation:
        raise UserError("train.validation is 0: a sweep chooses on validation queries; 0.1 is a good share")
    start_folder(recipe.folder)
    plan = _UntilMined(recipe, offline=offline)
    run_stages(plan, recipe.folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = recipe.folder / "sweep"
    folder.mkdir(exist_ok=True)
    study = optuna.create_study(
        study_name=_name(plan),
        storage=f"sqlite:///{folder / STUDY}",
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(FEWEST_BEFORE_PRUNING, n_warmup_steps=1),
    )
    if study.trials:
        say(f"  {len(study.trials)} trials are there already")
    else:
        study.enqueue_trial({knob: _own(_settled(plan), knob) for knob in KNOBS})
    study.sampler = optuna.samplers.TPESampler(seed=recipe.seed + len(study.trials))
    deadline = time.monotonic() + 60 * minutes
    study.optimize(
        lambda trial: _trained(plan, trial, deadline),
        n_trials=most,
        timeout=60 * minutes,
        catch=(UserError,),
        callbacks=[lambda _, trial: _tell(_trial(trial))],
    )
    trials = tuple(map(_trial, study.trials))
    finished = [trial for trial in trials if trial.agreement is not None]
    if not finished:
        raise UserError(f"no training was finished within {minutes:g} minutes: give --minutes more, or train.epochs less")
    best = max(finished, key=lambda trial: trial.agreement or 0)
    found = recipe.model_copy(update={"train": recipe.train.model_copy(update=best.changes)})
    return Sweep(trials, best, found)


class _UntilMined(RecipePlan):
    """The stages that a training needs."""

    def names(self) -> Sequence[str]:
        return ("data", "score", "mine")


def _name(plan: RecipePlan) -> str:
    """Trials are compared under one training set, student and section `train` alone."""
    recipe = plan.recipe
    decides = [digest(plan.training), recipe.student.model_dump(), recipe.train.model_dump(), recipe.seed, KNOBS]
    return hashlib.sha256(json.dumps(decides, default=str).encode()).hexdigest()


def _is_range(knob: str) -> bool:
    return isinstance(KNOBS[knob][0], float)


def _settled(plan: RecipePlan) -> TrainSettings:
    """How the recipe trains, with what it leaves to the student."""
    from distilrank.students.folder import settled

    found: TrainSettings = settled(plan.student, plan.train_settings())
    return found


def _own(train: TrainSpec, knob: str) -> Any:
    """The recipe's own value, as the study holds it."""
    value = getattr(train, knob)
    return value if _is_range(knob) else json.dumps(value)


def _asked(trial: Any, train: TrainSpec) -> dict[str, Any]:
    """The settings of a trial; what the recipe has is always among what may be asked."""
    changes: dict[str, Any] = {}
    for knob, values in KNOBS.items():
        own = _own(train, knob)
        if _is_range(knob):
            changes[knob] = float(f"{trial.suggest_float(knob, min(own, *values), max(own, *values), log=True):.2g}")
        else:
            choices = list(dict.fromkeys([own, *map(json.dumps, values)]))
            changes[knob] = json.loads(trial.suggest_categorical(knob, choices))
    return changes


def _trained(plan: RecipePlan, trial: Any, deadline: float) -> float:
    """One training with settings that the study asks for: its agreement with the teacher."""
    import optuna

    from distilrank.students import train

    settings = _settled(plan)
    changes = _asked(trial, settings)
    trial.set_user_attr("changes", changes)
    looked = 0

    def watch(step: int, agreement: float) -> None:
        nonlocal looked
        trial.report(agreement, looked)
        looked += 1
        if trial.should_prune() or time.monotonic() > deadline:
            raise optuna.TrialPruned

    settings = settings.model_copy(update=changes)
    with tempfile.TemporaryDirectory(dir=plan.folder / "sweep") as place:
        result = train(plan.training, plan.student, Path(place) / "model", settings, work=Path(place) / "work", watch=watch)
    return result.agreement_after


def _trial(trial: Any) -> Trial:
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    finished = trial.state.name == "COMPLETE"
    return Trial(trial.number, trial.user_attrs.get("changes", {}), trial.value if finished else None, seconds)


def _tell(trial: Trial) -> None:
    told = ", ".join(f"{knob} {value}" for knob, value in trial.changes.items())
    result = "cut short" if trial.agreement is None else f"agreement {trial.agreement:.4f}"
    say(f"  trial {trial.number}: {told}: {result} ({trial.seconds:.0f} s)")
